"""The form of a task's items in files: the type of each field, and labels that name a choice of their item.

An item whose label names none of its choices would count as answered wrongly by every model. Labels in another form
(``"0"`` for ``0``) are converted where they can mean nothing else.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Item = Mapping[str, Any]
Read = Callable[[str, Item], Any]
"""Returns the value of a field of an item in the form that the task's rules read; ValueError: no such form."""


class Form(NamedTuple):
    """The fields of an item that the task reads; other fields are left out."""

    fields: Mapping[str, Read]

    def read(self, line: bytes) -> dict[str, Any]:
        """Return the fields of an item, in the form that the task's rules read.

        Parameters
        ----------
        line
            A JSON object.

        Raises
        ------
        ValueError
            If the line is no such object, lacks a field, or has a value that the task cannot use; the message names
            field and value.
        """
        item = _object(line)
        missing = sorted(self.fields.keys() - item.keys())
        if missing:
            raise ValueError(f"no item of this task, it lacks {', '.join(missing)}")
        return {field: read(field, item) for field, read in self.fields.items()}


def text(field: str, item: Item) -> str:
    """Return a text."""
    value = item[field]
    if not isinstance(value, str):
        raise _unusable(field, value, "a text")
    return value


def non_blank(field: str, item: Item) -> str:
    """Return a text that is not blank."""
    if not text(field, item).strip():
        raise _unusable(field, item[field], "a text that is not blank")
    return text(field, item)


def text_with(part: str) -> Read:
    """Return a reader of texts that contain ``part``."""

    def read(field: str, item: Item) -> str:
        if part not in text(field, item):
            raise _unusable(field, item[field], f"a text with {part!r}")
        return text(field, item)

    return read


def texts(field: str, item: Item) -> list[str]:
    """Return a list of at least two texts."""
    return _texts(field, item[field])


def one_of(*known: str) -> Read:
    """Return a reader of texts out of a few; a whole number may stand for its digits."""

    def read(field: str, item: Item) -> str:
        return _among(field, item[field], known)

    return read


def index_below(count: int) -> Read:
    """Return a reader of the number of one of ``count`` choices, counted from 0; digits as text are converted."""
    return lambda field, item: _index(field, item[field], count)


def index_into(choices: str) -> Read:
    """Return a reader of the number of one of the texts in the list ``choices``, as :func:`index_below`."""
    return lambda field, item: _index(field, item[field], len(texts(choices, item)))


def truth(field: str, item: Item) -> bool:
    """Return a truth value; 0, 1, and these words as text are converted."""
    value = item[field]
    words = {"false": False, "0": False, "true": True, "1": True}
    found = words.get(json.dumps(value).strip('"').strip().lower())
    if found is None or isinstance(value, float):
        raise _unusable(field, value, "true or false")
    return found


def labelled_choices(field: str, item: Item) -> dict[str, list[str]]:
    """Return the choices of an item, ``{"text": [...], "label": [...]}``: texts, and as many distinct labels."""
    match item[field]:
        case {"text": choices, "label": list(labels)}:
            found = _texts(f"{field}.text", choices)
            names = [_word(label) for label in labels]
            if len(names) == len(found) == len(set(names)) and None not in names:
                return {"text": found, "label": [str(name) for name in names]}
            raise _unusable(f"{field}.label", labels, f"{len(found)} distinct labels, one for each text")
    raise _unusable(field, item[field], "an object with the lists text and label")


def label_among(choices: str) -> Read:
    """Return a reader of the label of the right choice, one of those in ``choices`` (:func:`labelled_choices`)."""
    return lambda field, item: _among(field, item[field], labelled_choices(choices, item)["label"])


def _object(line: bytes) -> dict[str, Any]:
    """Return a JSON object, or an empty one for anything else."""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return {}


def _texts(field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(part, str) for part in value):
        raise _unusable(field, value, "a list of at least two texts")
    return value


def _among(field: str, value: Any, known: Sequence[str]) -> str:
    word = _word(value)
    if word is None or word not in known:
        raise _unusable(field, value, f"one of {', '.join(known)}")
    return word


def _index(field: str, value: Any, count: int) -> int:
    try:
        return int(_among(field, value, [str(number) for number in range(count)]))
    except ValueError:
        raise _unusable(field, value, f"the number of a choice, 0 to {count - 1}") from None


def _word(value: Any) -> str | None:
    """Return a text without space around it, or the digits of a whole number; None for anything else."""
    if isinstance(value, bool):
        return None  # which choice it means depends on the task
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.strip() if isinstance(value, str) else str(value) if isinstance(value, int) else None


def _unusable(field: str, value: Any, expected: str) -> ValueError:
    shown = json.dumps(value)
    return ValueError(f"{field} = {shown if len(shown) <= 80 else f'{shown[:77]}...'}, expected {expected}")
