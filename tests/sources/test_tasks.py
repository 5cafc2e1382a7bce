"""Task items: read by lm-eval's loader exactly as they were in the Arrow file."""

import io
import json

import datasets
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from prunelib.errors import SourceError
from prunelib.sources import TaskSource, fetch_tasks
from prunelib.sources.tasks import HubTasks, LocalTasks, _items

ITEMS = [
    {"goal": "Öffnen", "label": 1, "choices": {"text": ["a\n", "b"], "label": ["A", "B"]}, "answer": True},
    {"goal": "", "label": 0, "choices": {"text": [], "label": []}, "answer": False},
]


@pytest.fixture
def files(tmp_path):
    features = datasets.Features(
        {
            "goal": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "choices": {
                "text": datasets.List(datasets.Value("string")),
                "label": datasets.List(datasets.Value("string")),
            },
            "answer": datasets.Value("bool"),
        }
    )
    datasets.Dataset.from_list(ITEMS, features=features).save_to_disk(tmp_path / "saved")
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in ITEMS) + "\n")
    return {"piqa": tmp_path / "saved" / "data-00000-of-00001.arrow", "own": tmp_path / "own.jsonl"}


@pytest.fixture(scope="module")
def arrow():
    sink = io.BytesIO()
    table = datasets.Dataset.from_list(ITEMS * 20).data.table
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("task", ["piqa", "own"])
def test_items_keep_their_fields_and_values(files, tmp_path, task):
    fetch_tasks(LocalTasks(files=files), tmp_path / "out")
    path = tmp_path / "out" / task / "validation.jsonl"
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == ITEMS
    data_files = {"validation": str(path)}
    assert (
        list(datasets.load_dataset("json", data_files=data_files, split="validation", cache_dir=tmp_path / "cache"))
        == ITEMS
    )


def test_all_tasks_are_fetched_and_recorded(files, tmp_path):
    fetch_tasks(LocalTasks(files=files), tmp_path / "out")
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert set(provenance["files"]) == {"own/validation.jsonl", "piqa/validation.jsonl"}
    assert provenance["source"] == {"source": "local", "files": {"own": "own.jsonl", "piqa": files["piqa"].name}}
    assert len(provenance["sha256"]) == 64


def test_files_may_have_relative_paths_and_serve_several_tasks(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = files["own"].relative_to(tmp_path)
    fetch_tasks(LocalTasks(files={"own": own, "same": own}), tmp_path / "out")
    found = [(tmp_path / "out" / task / "validation.jsonl").read_text(encoding="utf-8") for task in ("own", "same")]
    assert found[0] == found[1]


@pytest.mark.parametrize("task", ["piqa", "own"])
def test_a_damaged_file_is_refused(files, tmp_path, task):
    content = files[task].read_bytes()
    files[task].write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="truncated, or not a file of task items"):
        fetch_tasks(LocalTasks(files=files), tmp_path / "out")


@given(data=st.data())
@settings(max_examples=100)
def test_an_altered_arrow_file_gives_items_or_one_line(arrow, data):
    content = bytearray(arrow[: data.draw(st.integers(0, len(arrow)))] if data.draw(st.booleans()) else arrow)
    for place in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=3)) if content else []:
        content[place] = data.draw(st.integers(0, 255))
    try:
        _items("file.arrow", bytes(content))
    except SourceError as error:
        refused = str(error)
        said = refused.startswith("file.arrow: ") and "\n" not in refused
    else:
        said = True
    assert said


@pytest.mark.parametrize("line", [b"[[1, 2]]", b"[]", b"7", b'"text"', b"[" * 100_000, b"\xff"])
def test_a_line_that_is_no_item_is_refused_by_file(line):
    with pytest.raises(SourceError, match=r"^file\.jsonl: "):
        _items("file.jsonl", line)


def test_tasks_of_the_hub_need_nothing_but_provenance(tmp_path):
    fetch_tasks(HubTasks(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["provenance.json"]


@pytest.mark.parametrize("file", [{"piqa": "piqa.csv"}, {"../piqa": "piqa.arrow"}, {}])
def test_unusable_settings_are_refused(file):
    with pytest.raises(ValidationError):
        TypeAdapter(TaskSource).validate_python({"source": "local", "files": file})


@pytest.mark.parametrize("line", [b'{"goal": "\\ud83d"}', b'{"goal": NaN}\n{'])
def test_an_item_that_utf_8_cannot_hold_is_refused_by_file(tmp_path, line):
    (tmp_path / "own.jsonl").write_bytes(line)
    with pytest.raises(SourceError, match=r"own\.jsonl: ") as caught:
        fetch_tasks(LocalTasks(files={"own": tmp_path / "own.jsonl"}), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_column_that_json_cannot_hold_is_refused_by_file(tmp_path):
    table = pyarrow.table({"goal": ["a"], "asked": pyarrow.array([0], pyarrow.timestamp("s"))})
    with (
        pyarrow.OSFile(str(tmp_path / "own.arrow"), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    with pytest.raises(SourceError, match=r"own\.arrow: .*datetime"):
        fetch_tasks(LocalTasks(files={"own": tmp_path / "own.arrow"}), tmp_path / "out")


def test_a_glob_is_that_of_a_single_file(files, tmp_path):
    fetch_tasks(LocalTasks(files={"own": tmp_path / "o*.jsonl"}), tmp_path / "out")
    (tmp_path / "other.jsonl").write_bytes((tmp_path / "own.jsonl").read_bytes())
    with pytest.raises(SourceError, match="2 files match, expected one"):
        fetch_tasks(LocalTasks(files={"own": tmp_path / "o*.jsonl"}), tmp_path / "again")
