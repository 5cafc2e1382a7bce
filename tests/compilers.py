"""As if a compiler of kernels were not installed."""

import sys


def forbid(monkeypatch, compiler):
    """From here on a compiler (``numba``, ``triton``) cannot be imported, nor what it compiles."""
    device = {"numba": "cpu", "triton": "cuda"}[compiler]
    for name in [name for name in sys.modules if name.startswith(f"prunelib.kernels.{device}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, compiler, None)
