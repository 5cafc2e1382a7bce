"""Where a dense model comes from, for the card of the pruned one: its name on the hub, and its licence."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunelib.masks.pruned import MASKS_FILE
from prunelib.sources.licences import KEYS, licence_of_card, licence_of_file, metadata_of_card

_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)")  # a folder of the hub's cache


@dataclass(frozen=True)
class Origin:
    """A dense model's name on the hub, ``owner/name``, and the hub's metadata of its licence, where they are known."""

    base_model: str | None = None
    licence: Mapping[str, str] = field(default_factory=dict)


def origin_of(folder: Path, base_model: str | None = None, licence: str | None = None) -> Origin:
    """Return the origin of a model in a folder.

    Parameters
    ----------
    folder
        The dense model. Its name is read from ``provenance.json``, from the place of the folder in the hub's cache, or,
        of a model that is itself pruned, from its card; its licence from ``provenance.json`` or its card, or it is
        another one whose file is in the folder.
    base_model, licence
        Name on the hub, and the identifier of the licence there, where they are given.
    """
    source = _recorded(folder)
    known = {key: str(source[key]) for key in KEYS if key in source}
    found = {"license": licence} if licence else known or licence_of_card(folder) or licence_of_file(folder)
    fetched = str(source["id"]) if source.get("source") == "hub" and "id" in source else None
    return Origin(base_model or fetched or _cached(folder) or _named_in_card(folder), found)


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # a folder that no stage has made


def _named_in_card(folder: Path) -> str | None:
    """Return the base model of a model that is itself pruned: of another, the card's is not the model in the folder."""
    name = metadata_of_card(folder).get("base_model")
    return name if isinstance(name, str) and (folder / MASKS_FILE).is_file() else None


def _cached(folder: Path) -> str | None:
    names = [_SNAPSHOT.fullmatch(part) for part in folder.absolute().parts]
    return next((f"{name[1]}/{name[2]}" for name in names if name), None)
