"""As if a compiler of kernels were not installed."""

import sys


def forbid(monkeypatch, compiler):
    """From here on a compiler (``numba``, ``triton``) cannot be imported, nor what it compiles."""
    device = {"numba": "cpu", "triton": "cuda"}[compiler]
    for name in list(sys.modules):
        package, _, module = name.rpartition(".")
        if package.startswith("prunelib.kernels") and module.startswith(device):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, compiler, None)
