"""The base of all settings classes: frozen, and an error names an unknown key. Bounds that several classes share.

Every number has an upper bound, far above what is of use, so that a mistake is refused instead of worked on.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MOST_DAMPING = 1e6
"""Highest damping, relative to the Gram matrix's diagonal: above it, the rounding of float32 is as large as what the
inputs have in common, and the result that of independent inputs."""

Damping = Annotated[float, Field(ge=0, le=MOST_DAMPING)]
"""A multiple of the mean of a Gram matrix's diagonal, added to it."""

Iterations = Annotated[int, Field(ge=1, le=10**6)]
"""A maximum number of iterations over a matrix: by then even Frank-Wolfe's gap, which falls as 1 / t, has fallen to the
precision of float32."""

Count = Annotated[int, Field(ge=1, le=10**9)]
"""A number of windows, items, tokens or swaps: more than any text, task or row has."""

Length = Annotated[int, Field(ge=2, le=10**7)]
"""Tokens in a window: the longest context of any model."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""The seed of a draw: 32 bits, as every generator takes."""


class Settings(BaseModel):
    """One section of params.yaml; subclasses are defined next to the code that they configure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        unknown = sorted(set(map(str, data)) - set(cls.model_fields)) if isinstance(data, Mapping) else []
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}, expected one of {among(unknown[0], cls.model_fields)}")
        return data

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_text(cls, data: Any) -> Any:
        for key, value in data.items() if isinstance(data, Mapping) else ():
            if (
                isinstance(value, str | bool)
                and key in cls.model_fields
                and _is_numeric(cls.model_fields[key].annotation)
            ):
                raise ValueError(f"{key} = {value!r}: Input should be a number, without quotes")
        return data


def among(name: str, known: Iterable[str]) -> str:
    """Return the known names, for an error message about an unknown one: ``a, b, c; did you mean c?``.

    A name that contains the unknown one is nearer than any other.
    """
    known = list(known)
    longer = [other for other in known if name and name in other]
    near = difflib.get_close_matches(name, longer, n=1, cutoff=0) or difflib.get_close_matches(name, known, n=1)
    return ", ".join(known) + "".join(f"; did you mean {other}?" for other in near)


def first_fault(error: ValidationError) -> str:
    """Return the key and the message of the first of the errors."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that are all different, as a validator of a list; raise ValueError for others."""
    if len(set(names)) < len(names):
        raise ValueError(f"duplicate name in {list(names)}")
    return names


def _is_numeric(annotation: Any) -> bool:
    """Return whether a field accepts an int or a float, possibly among other types such as None."""
    return annotation in {int, float} or any(_is_numeric(part) for part in get_args(annotation))
