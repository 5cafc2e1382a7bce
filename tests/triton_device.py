"""Where tests run what is written in Triton: on a GPU, else in Triton's interpreter, small and slow."""

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def triton_or_skip():
    """Skip the module that calls where triton is not installed."""
    pytest.importorskip("triton", reason="triton is not installed")
