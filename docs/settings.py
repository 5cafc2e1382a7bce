"""Tables of settings, from their classes: names, defaults and bounds by pydantic, descriptions by their docstrings."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import griffe
from parts.markdown import table
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from prunelib import block_refiners, refiners, warmstarts
from prunelib.calibration.settings import CalibrationSettings
from prunelib.cli.methods import described
from prunelib.evaluation.perplexity import PerplexitySettings
from prunelib.evaluation.samples import SamplesSettings
from prunelib.evaluation.zeroshot import TasksSettings
from prunelib.masks.allocation import Atp, Dlp, Owl, SparsityTable
from prunelib.masks.patterns import EXAMPLES
from prunelib.methods import registry
from prunelib.params import Comparison, Grid, LabelSettings
from prunelib.pruning.chains import Chain
from prunelib.runtime.machine import Machine
from prunelib.sources.models import HubModel, LocalModel, WheelModel, WheelsModel
from prunelib.sources.tasks import HubTasks, WheelTasks
from prunelib.sources.texts import HubText, LocalText, WheelText

SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "grid": (Grid,),
    "models": (HubModel, LocalModel, WheelModel, WheelsModel),
    "texts": (HubText, LocalText, WheelText),
    "tasks": (HubTasks, WheelTasks),
    "calibration": (CalibrationSettings,),
    "patterns": tuple(type(example) for example in EXAMPLES),
    "patterns.allocation": (Owl, Dlp, Atp, SparsityTable),
    "warmstarts": tuple(method.settings for method in registry.methods(warmstarts).values()),
    "refiners": (
        *(method.settings for package in (refiners, block_refiners) for method in registry.methods(package).values()),
        Chain,
    ),
    "evaluation.perplexity": (PerplexitySettings,),
    "evaluation.tasks": (TasksSettings,),
    "evaluation.samples": (SamplesSettings,),
    "comparisons": (Comparison,),
    "labels": (LabelSettings,),
}
KINDS = {"warmstarts": warmstarts, "refiners": refiners, "block_refiners": block_refiners}
KEYS = ("source", "kind", "method")
"""The keys that tell one class of a section from the others."""


def params() -> str:
    """Return the reference of params.yaml: a heading per section, a table per class."""
    parts = []
    for section, classes in SECTIONS.items():
        parts.append(f"## {section}\n")
        for each in classes:
            title = _title(each)
            parts += [f"### `{title}`\n"] if title else []
            parts.append(settings(each))
    return "\n".join(parts)


def machine() -> str:
    """Return the environment variables of the machine."""
    about = _about(Machine)
    rows = [
        (f"`PRUNELIB_{name.upper()}`", _default(field.default), about.get(name, ""))
        for name, field in Machine.model_fields.items()
    ]
    return table(("variable", "default", "meaning"), rows, left=3)


def method(kind: str, name: str) -> str:
    """Return what a method declares of itself, and its settings."""
    found = registry.methods(KINDS[kind])[name]
    summary, patterns, weights, source = described(found)
    lines = (("does", summary), ("patterns", patterns), ("kept weights", weights), ("source", source))
    section = "warmstarts" if kind == "warmstarts" else "refiners"
    return (
        table(("", f"`{name}`"), lines, left=2)
        + f"\n**Settings** (`{section}` in `params.yaml`)\n\n{settings(found.settings)}"
    )


def settings(owner: type[BaseModel]) -> str:
    """Return the table of a class: key, type and bounds, default, description."""
    about, schema = _about(owner), owner.model_json_schema()
    rows = [
        (f"`{name}`", _type(schema["properties"][name]), _default(field.default), about.get(name, ""))
        for name, field in owner.model_fields.items()
        if name not in KEYS
    ]
    return f"{_summary(owner)}\n\n" + (
        table(("key", "type", "default", "meaning"), rows, left=4) if rows else "No settings.\n"
    )


def _title(owner: type[BaseModel]) -> str:
    """Return what tells a class from the others of its section, ``source: hub``; empty if it is alone."""
    properties = owner.model_json_schema()["properties"]
    return next((f"{key}: {properties[key]['const']}" for key in KEYS if "const" in properties.get(key, {})), "")


def _sections(owner: type[BaseModel]) -> list[Any]:
    """Parse the docstrings of a class and its bases, those of the bases first."""
    classes = [each for each in reversed(owner.__mro__) if issubclass(each, BaseModel) and each is not BaseModel]
    return [part for each in classes for part in _parsed(each.__dict__.get("__doc__"))]


def _parsed(docstring: str | None) -> list[Any]:
    return griffe.Docstring(inspect.cleandoc(docstring or "")).parse("numpy", warnings=False)


def _about(owner: type[BaseModel]) -> dict[str, str]:
    """Return the descriptions under ``Attributes``; an entry may describe several names."""
    return {
        name: _plain(" ".join(entry.description.split()))
        for part in _sections(owner)
        if part.kind is griffe.DocstringSectionKind.attributes
        for entry in part.value
        for name in map(str.strip, entry.name.split(","))
    }


def _summary(owner: type[BaseModel]) -> str:
    texts = (part.value for part in _parsed(owner.__doc__) if part.kind is griffe.DocstringSectionKind.text)
    return _plain(next(texts, ""))


def _plain(text: str) -> str:
    """Return a docstring's text as Markdown: its code and its roles in single backticks."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`"))


def _default(value: Any) -> str:
    return "" if value is PydanticUndefined else f"`{'null' if value is None else getattr(value, 'value', value)}`"


def _type(schema: dict[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_types(schema)))


def _types(schema: dict[str, Any]) -> Iterator[str]:
    if "anyOf" in schema or "oneOf" in schema:
        for each in schema.get("anyOf") or schema["oneOf"]:
            yield from _types(each)
    elif "enum" in schema or "const" in schema:
        yield " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    elif "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    else:
        yield schema.get("type", "any").replace("array", "list").replace("object", "map") + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f" ({', '.join(found)})" if found else ""
