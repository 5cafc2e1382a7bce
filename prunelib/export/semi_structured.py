"""2:4 weights on sparse tensor cores: check that they convert, and that their products match the dense ones."""

import torch

_TOLERANCE = 1e-2  # relative error of products in half precision
_TOKENS = 64


def has_sparse_units() -> bool:
    """Return whether the GPU, if any, has sparse tensor cores: compute capability 8.0 or higher."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def unconvertible(weight: torch.Tensor) -> str | None:
    """Return why ``torch.sparse.to_sparse_semi_structured`` fails on a weight (rows, inputs), or None if it works.

    The weight must be on a GPU with sparse tensor cores, in bfloat16 or float16, with at most two non-zeros in every
    four consecutive inputs.
    """
    inputs = torch.randn(_TOKENS, weight.shape[1], generator=_generator(weight), device=weight.device).to(weight.dtype)
    dense = inputs @ weight.T
    try:
        sparse = torch.nn.functional.linear(inputs, torch.sparse.to_sparse_semi_structured(weight))
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return str(error).partition("\n")[0]
    off = float((sparse - dense).norm() / dense.norm().clamp(min=1e-30))
    return None if off <= _TOLERANCE else f"its products differ by {off:.1%} from the dense ones"


def _generator(weight: torch.Tensor) -> torch.Generator:
    return torch.Generator(weight.device).manual_seed(0)
