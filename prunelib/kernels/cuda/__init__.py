"""Operations as Triton kernels, for tensors on NVIDIA GPUs.

A constant stands on the right of a product with a tensor. On the left, Triton's interpreter makes a ``constexpr`` of
the product, and since Triton 3.7 a comparison refuses a ``constexpr`` that holds a tensor.
"""
