"""Texts out of files: order, names, splits, and the real Wikipedia sample."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML

from prunelib.errors import SourceError
from prunelib.sources import ModelSource, TaskSource, TextSource, fetch_text, read_documents, text_identity, texts
from prunelib.sources.documents import with_newlines
from prunelib.sources.texts import HubText, LocalText

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def speeches(tmp_path, monkeypatch):
    for name, text in {"b/2.txt": "two", "a/1.txt": "one", "a/3.txt": "\ufeffthree", "a/notes.md": "no"}.items():
        (tmp_path / "speeches" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "speeches" / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "speeches"


def fetched(settings, folder):
    folder.mkdir()
    fetch_text(settings, folder)
    return folder


@pytest.mark.parametrize("absolute", [False, True])
def test_files_are_documents_in_the_order_of_their_names(speeches, tmp_path, absolute):
    glob = f"{speeches if absolute else 'speeches'}/*/*.txt"
    folder = fetched(LocalText(members=[glob], held_out_every_nth=2), tmp_path / "out")
    assert [(d.id, d.text) for d in read_documents(folder, "held_out")] == [("a/1.txt", "one"), ("b/2.txt", "two")]
    assert [(d.id, d.text) for d in read_documents(folder, "calibration")] == [("a/3.txt", "three")]


def test_identity_is_of_the_documents_and_provenance_has_no_path(speeches, tmp_path):
    paths = {"relative": "speeches/a/*.txt", "absolute": f"{speeches}/a/*.txt"}
    texts = {
        name: LocalText(members=[glob], held_out_every_nth=2, attribution="the speakers")
        for name, glob in paths.items()
    }
    folders = [fetched(text, tmp_path / name) for name, text in texts.items()]
    assert text_identity(folders[0]) == text_identity(folders[1])
    provenance = json.loads((folders[1] / "provenance.json").read_text())
    assert provenance["source"]["members"] == ["*.txt"]
    assert provenance["source"]["attribution"] == "the speakers"
    (speeches / "a" / "1.txt").write_text("another")
    assert text_identity(fetched(texts["relative"], tmp_path / "changed")) != text_identity(folders[0])


def test_files_that_are_not_there_are_refused(speeches, tmp_path):
    with pytest.raises(SourceError, match=r"^speeches/\*\.text: no such file"):
        fetched(LocalText(members=["speeches/*.text"], held_out_every_nth=2), tmp_path / "out")


def test_a_file_that_is_no_text_is_refused(speeches, tmp_path):
    (speeches / "a" / "1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"a/1\.txt: not UTF-8 text"):
        fetched(LocalText(members=["speeches/a/*.txt"], held_out_every_nth=2), tmp_path / "out")


WIKI = " \n = Robert Boulter = \n \n Robert Boulter is an English actor . \x85 He appeared \n \n"
HUB_ROWS = ["", " = Robert Boulter = \n", "", " Robert Boulter is an English actor . \x85 He appeared \n", ""]


@pytest.fixture
def wiki(tmp_path):
    """WikiText's own files, one for each split."""
    for split, text in {"test": WIKI, "train": WIKI.replace("actor", "writer")}.items():
        (tmp_path / f"wiki.{split}.raw").write_bytes(text.encode())
    return tmp_path


def documents(settings, folder):
    folder = fetched(settings, folder)
    return {split: [(d.id, d.text) for d in read_documents(folder, split)] for split in ("held_out", "calibration")}


def test_lines_are_rows_of_one_document_as_the_hub_has_them(wiki, monkeypatch):
    local = LocalText(members=[f"{wiki}/wiki.*.raw"], rows="lines", held_out_every_nth=2)
    monkeypatch.setattr(
        "prunelib.sources.hub.rows",
        lambda _, split: HUB_ROWS if split == "test" else [row.replace("actor", "writer") for row in HUB_ROWS],
    )
    of_hub = HubText(id="a/wiki", revision="0" * 40, rows="lines", calibration_split="train", held_out_split="test")
    mine, theirs = documents(local, wiki / "mine"), documents(of_hub, wiki / "theirs")
    assert mine["held_out"] == [("wiki.test.raw", "\n\n".join(HUB_ROWS))]
    assert [text for _, text in mine["calibration"]] == [text for _, text in theirs["calibration"]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_documents_where_rows_are(tmp_path, end):
    (tmp_path / "web.txt").write_bytes(end.join(["one\x0b1\u2028", "", "two ", " \t", "three"]).encode())
    found = documents(
        LocalText(members=[f"{tmp_path}/web.txt"], rows="documents", held_out_every_nth=2), tmp_path / "out"
    )
    assert found["held_out"] == [("web.txt:1", "one\x0b1\u2028"), ("web.txt:5", "three")]
    assert found["calibration"] == [("web.txt:3", "two ")]


@pytest.mark.parametrize("rows", [None, "lines", "documents"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_change_no_document(tmp_path, rows, end):
    found = []
    for ends in ("\n", end):
        for name in ("a", "b"):
            (tmp_path / f"{name}.txt").write_bytes(f"{name} one\n\ntwo of {name}\n".replace("\n", ends).encode())
        settings = LocalText(members=[f"{tmp_path}/*.txt"], rows=rows, held_out_every_nth=2)
        found.append(documents(settings, tmp_path / f"out{len(found)}"))
    assert found[0] == found[1]


def test_a_carriage_return_within_a_line_is_kept():
    assert with_newlines("one\rmore\ntwo\r\n") == "one\rmore\ntwo\n"


def test_a_text_of_a_wheel_has_rows_too(monkeypatch, tmp_path):
    monkeypatch.setattr(texts, "read_members", lambda *_: {"a/web.txt": b"one\r\ntwo\r\n"})
    section = {"source": "wheel", "requirement": "a==1", "sha256": "0" * 64, "members": ["*"], "rows": "documents"}
    found = documents(TypeAdapter(TextSource).validate_python({**section, "held_out_every_nth": 2}), tmp_path / "out")
    assert found == {"held_out": [("web.txt:1", "one")], "calibration": [("web.txt:2", "two")]}


def test_rows_are_recorded_where_they_are_set(wiki):
    settings = {"members": [f"{wiki}/*.raw"], "held_out_every_nth": 2}
    assert LocalText(**settings, rows="lines").origin()["rows"] == "lines"
    assert "rows" not in LocalText(**settings).origin()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "words"},
        {"rows": "lines", "format": "mediawiki"},
        {"held_out_every_nth": 1},
        {"members": []},
        {"format": "pdf"},
        {"platform": "cp311-any"},
    ],
)
def test_unusable_settings_are_refused(change):
    section = {"source": "local", "members": ["*.txt"], "held_out_every_nth": 5, **change}
    with pytest.raises(ValidationError):
        TypeAdapter(TextSource).validate_python(section)


def test_the_default_parameters_are_valid():
    params = YAML(typ="safe").load(PARAMS)
    for kind, sections in ((ModelSource, params["models"]), (TextSource, params["texts"])):
        for section in sections.values():
            TypeAdapter(kind).validate_python(section)
    TypeAdapter(TaskSource).validate_python(params["tasks"])


@pytest.mark.e2e
def test_the_wikipedia_sample_is_prose(tmp_path):
    section = YAML(typ="safe").load(PARAMS)["texts"]["wikipedia"]
    folder = fetched(TypeAdapter(TextSource).validate_python(section), tmp_path / "out")
    calibration, held_out = read_documents(folder, "calibration"), read_documents(folder, "held_out")
    assert (len(calibration), len(held_out)) == (84, 22)
    assert held_out[0].id == "Anarchism"
    text = "\n".join(document.text for document in calibration + held_out)
    prose = [line for line in text.splitlines() if len(line) > 150]
    assert len(text) > 2_500_000
    assert sum(map(len, prose)) > 0.9 * len(text)
    assert not any(markup in text for markup in ("[[File:", "{{cite", "<ref", "https://", "thumb|"))
