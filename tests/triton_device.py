"""Where tests run what is written in Triton: on a GPU, else in Triton's interpreter, small and slow."""

import os
import sys

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def triton_or_skip():
    """Choose the interpreter where there is no GPU; skip the module that calls where neither is to be had."""
    if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        if "triton" in sys.modules:
            pytest.skip("no GPU, and triton was imported without TRITON_INTERPRET=1", allow_module_level=True)
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
    pytest.importorskip("triton", reason="triton is not installed")
