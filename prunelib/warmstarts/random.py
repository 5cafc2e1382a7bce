"""Random: any weight as likely as another, the floor under every other choice."""

import hashlib
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from prunelib.methods.contract import MethodSettings, WarmStart


class Settings(MethodSettings):
    """``seed``: of the draw."""

    method: Literal["random"] = "random"
    seed: Annotated[int, Field(ge=0)] = 0


_DEFAULT = Settings()


def saliency(weight: torch.Tensor, gram: torch.Tensor | None = None, settings: Settings = _DEFAULT) -> torch.Tensor:
    """Scores uniform in [0, 1), (rows, inputs) float32; the Gram matrix is not looked at.

    They are the raw output of NumPy's Philox generator, which is the same on every platform and in every version. Its
    key is a hash of the seed and the weight's bytes, so that layers of one shape get masks of their own.
    """
    key = hashlib.sha256(f"{settings.seed}:".encode() + _bytes(weight)).digest()[:16]
    raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(weight.numel())
    scores = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)  # 24 bits are what a float32 tells apart
    return torch.from_numpy(scores).view(weight.shape).to(weight.device)


METHOD = WarmStart(
    settings=Settings,
    saliency=saliency,
    summary="keep weights drawn at random",
)


def _bytes(weight: torch.Tensor) -> bytes:
    return weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
