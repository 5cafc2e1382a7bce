"""Where there is no GPU, what is written in Triton runs in its interpreter: said before anything imports it."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
