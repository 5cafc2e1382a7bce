"""Where tests run what is written in Triton: on a GPU, else in Triton's interpreter (conftest.py), small and slow."""

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
