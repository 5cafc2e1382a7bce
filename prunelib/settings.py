"""The base of all settings classes: frozen, with unknown keys refused by name."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Settings(BaseModel):
    """One section of params.yaml; subclasses stand beside the code that they configure."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, data: Any) -> Any:
        unknown = sorted(set(map(str, data)) - set(cls.model_fields)) if isinstance(data, Mapping) else []
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}, expected among {', '.join(cls.model_fields)}")
        return data
