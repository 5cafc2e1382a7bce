"""Methods found in a folder: each module of a package is one method, named after its file.

A method's module holds ``Settings`` (what params.yaml may say of it), ``ABOUT`` (what the table of methods says of it),
and the function that its package's docstring asks for.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union

from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunelib.masks.patterns import Pattern


class Holds(NamedTuple):
    """What a refiner has in memory at most beside a layer and its Gram matrix.

    ``squares`` are float32 matrices (inputs, inputs); ``weight_bytes`` are for each weight.
    """

    squares: int
    weight_bytes: int


_SWAPS = Holds(squares=5, weight_bytes=32)


@dataclass(frozen=True)
class About:
    """What a method does, where it comes from, and what it needs and supports.

    Attributes
    ----------
    summary, source
        One line, and the paper.
    takes, limits
        Which patterns it supports, by their properties, and the reason why no others.
    moves_weights
        Whether a refiner also changes the weights that are kept.
    descends
        Whether a refiner never raises the pruning error.
    streams
        Whether a refiner takes a Gram matrix that is still on the processor, wherever the weight is.
    extras
        What a refiner takes by keyword beyond the common arguments: ``moved`` (the kept weights as the step before
        left them, or None), ``input_mean``, ``tokens``, ``held_out_gram``.
    holds
        What a refiner has in memory where groups lie within rows; one of the whole matrix takes some more.
    """

    summary: str
    source: str = ""
    takes: "Callable[[Pattern], bool]" = lambda _pattern: True
    limits: str = ""
    moves_weights: bool = False
    descends: bool = True
    streams: bool = False
    extras: tuple[str, ...] = ()
    holds: Holds = _SWAPS

    def supports(self, pattern: "Pattern") -> bool:
        """Whether it can be used with a pattern."""
        return self.takes(pattern)


def methods(package: ModuleType) -> dict[str, ModuleType]:
    """The modules of a method package (``prunelib.warmstarts``, ``prunelib.refiners``) by name, sorted."""
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def any_settings(package: ModuleType) -> Any:
    """The type of the settings of any method of a package, told apart by ``method``."""
    choices = tuple(module.Settings for module in methods(package).values())
    return Annotated[Union[choices], Field(discriminator="method")]  # noqa: UP007 - members known at run time


def about(package: ModuleType, settings: Any) -> About:
    """What is known of the method of these settings."""
    described: About = methods(package)[settings.method].ABOUT
    return described
