"""Where tests run what is written in Triton: on a GPU, else in Triton's interpreter (conftest.py), small and slow."""

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CUDA = pytest.param("cuda", marks=pytest.mark.triton)  # the backend, among the parameters of a test for several
