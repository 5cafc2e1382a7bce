"""The contract of a refiner of whole decoder blocks: the block that it is given, and what it returns."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from pydantic import Field

from prunelib.methods.contract import Method, MethodSettings, S, S_contra
from prunelib.runtime.threads import Workers


class BlockSettings(MethodSettings):
    """The settings that every block refiner has: what a block reads, and what it is to return.

    Attributes
    ----------
    inputs
        ``pruned``: what the blocks before it return once they are pruned and refined; ``dense``: what those of the
        dense model return.
    dense_target
        Share of the dense model's states in the target; the rest is what the dense block returns for pruned inputs.
    """

    inputs: Literal["pruned", "dense"] = "pruned"
    dense_target: float = Field(default=1.0, ge=0, le=1)

    @abstractmethod
    def gradients(self, samples: int) -> int:
        """Return how many windows' gradients a block takes, given the number of calibration windows."""


class Target(NamedTuple):
    """What a block is to return for a window.

    Attributes
    ----------
    states
        (1, length, hidden), in the model's dtype.
    update
        (1, length) float32: for each token, the squared norm of what the dense block adds to its state.
    """

    states: torch.Tensor
    update: torch.Tensor


@dataclass(frozen=True)
class BlockProblem:
    """A pruned decoder block in the model, on the device that runs it.

    Attributes
    ----------
    parameters
        The parameters that contain prunable matrices, by name, with the kept weights that came in; +0.0 where pruned.
    kept
        bool of the shape of each parameter: True for the weights that may change.
    stored
        The dtype in which each parameter is stored in the end.
    windows
        The numbers of the calibration windows.
    states
        Runs the block on a window with gradients recorded, and returns its hidden states (1, length, hidden).
    target
        Returns what these states are to be.
    workers
        Threads that windows run on.
    """

    parameters: Mapping[str, torch.nn.Parameter]
    kept: Mapping[str, torch.Tensor]
    stored: Mapping[str, torch.dtype]
    windows: Sequence[int]
    states: Callable[[int], torch.Tensor]
    target: Callable[[int], Target]
    workers: Workers


class Reconstructed(NamedTuple):
    """What a block refiner measured; the weights are in the parameters of the problem, rounded as they are stored.

    ``error_before`` and ``error_after`` are relative, and ``epoch`` is the one whose weights were kept; 0: none is
    better than the weights that came in.
    """

    error_before: float
    error_after: float
    epoch: int


class Reconstruct(Protocol[S_contra]):
    """Change the kept weights of a block so that it returns what it should."""

    def __call__(
        self, problem: BlockProblem, settings: S_contra = ..., on_window: Callable[[], None] = ...
    ) -> Reconstructed:
        """Change the parameters of the problem where they are kept; all other weights stay as they are, bit for bit.

        On the CPU the result is the same bit for bit for any number of threads.

        Parameters
        ----------
        on_window
            Called after each window whose gradient is computed.
        """


@dataclass(frozen=True, kw_only=True)
class BlockRefiner(Method[S]):
    """A method that changes the kept weights of a whole decoder block.

    Attributes
    ----------
    reconstruct
        The function that does so for one block.
    weight_bytes
        Peak memory in addition to the block and its activations, in bytes per weight of its prunable matrices.
    """

    reconstruct: Reconstruct[S]
    weight_bytes: int
    updates_weights: bool = True
