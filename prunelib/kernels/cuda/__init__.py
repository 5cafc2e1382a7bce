"""Operations as Triton kernels, for tensors on NVIDIA GPUs."""
