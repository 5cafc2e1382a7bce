"""The licence of a model, as the hub's metadata name it: ``license``, and of another one its name and link.

The metadata are at the head of the model's card, ``README.md`` of its folder.
"""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from prunelib.sources.model_files import CARD, is_licence

KEYS = ("license", "license_name", "license_link")
_IDENTIFIER = re.compile(r"[A-Za-z0-9.-]+")


def licence_of_card(folder: Path) -> dict[str, str]:
    """Return the licence in the metadata of a model's card; empty if it names none."""
    known = metadata_of_card(folder)
    found = {key: known[key] for key in KEYS if isinstance(known.get(key), str)}
    return found if _IDENTIFIER.fullmatch(found.get("license", "")) else {}


def metadata_of_card(folder: Path) -> dict[str, Any]:
    """Return the metadata of a model's card; empty without a card, or if it has none."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
        before, metadata, _ = re.split(r"^---\s*$", text, maxsplit=2, flags=re.MULTILINE)
        return {} if before.strip() else dict(YAML(typ="safe").load(metadata))
    except (OSError, ValueError, TypeError, YAMLError):
        return {}


def licence_of_file(folder: Path) -> dict[str, str]:
    """Return the licence of a folder with a file of that name: another one, with a link to the file; or empty."""
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and is_licence(file.name))
    return {"license": "other", "license_name": "see-file", "license_link": names[0]} if names else {}
