"""Random: every weight is equally likely to be kept; a baseline for all other methods."""

import hashlib
from typing import Literal

import numpy as np
import torch

from prunelib.algebra.tensors import real_matrix
from prunelib.methods.contract import MethodSettings, WarmStart
from prunelib.settings import Seed


class RandomScores(MethodSettings):
    """Settings of the random draw: its ``seed``."""

    method: Literal["random"] = "random"
    seed: Seed = 0


_DEFAULT = RandomScores()


def random_scores(
    weight: torch.Tensor, gram: torch.Tensor | None = None, settings: RandomScores = _DEFAULT
) -> torch.Tensor:
    """Return scores uniform in [0, 1), (rows, inputs) float32; the Gram matrix is not used.

    They are the raw output of NumPy's Philox generator, which is the same on every platform and in every version. Its
    key is a hash of the seed and the weight's bytes, so that layers of the same shape get different masks.
    """
    weight = real_matrix("weight", weight)
    key = hashlib.sha256(f"{settings.seed}:".encode() + _bytes(weight)).digest()[:16]
    raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(weight.numel())
    scores = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)  # 24 bits: the precision of float32
    return torch.from_numpy(scores).view(weight.shape).to(weight.device)


METHOD = WarmStart(
    settings=RandomScores,
    saliency=random_scores,
    summary="keep weights drawn at random",
)


def _bytes(weight: torch.Tensor) -> bytes:
    return weight.cpu().contiguous().view(torch.uint8).numpy().tobytes()
