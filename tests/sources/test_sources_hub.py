"""The hub's library replaced by what it would answer: nothing here touches a network."""

import datasets
import huggingface_hub
import pytest
from huggingface_hub import errors
from pydantic import ValidationError

from prunelib.errors import SourceError
from prunelib.sources import fetch_text, read_documents
from prunelib.sources.hub import Dataset, Repository, rows, snapshot
from prunelib.sources.texts import HubText

REVISION = "0123456789" * 4
REPOSITORY = Repository(id="owner/name", revision=REVISION)


def answering(monkeypatch, module, function, answer):
    """Replace a function of the library by one that records its call and returns, or raises, the answer."""
    calls = []

    def replacement(*args, **kwargs):
        calls.append((args, kwargs))
        if isinstance(answer, Exception):
            raise answer
        return answer(kwargs) if callable(answer) else answer

    monkeypatch.setattr(module, function, replacement)
    return calls


def hub_error(kind, message="no"):
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    return error


@pytest.mark.parametrize("change", [{"revision": "main"}, {"revision": REVISION[:-1]}, {"id": "https://x.org/a"}])
def test_a_repository_is_pinned_to_a_commit(change):
    with pytest.raises(ValidationError):
        Repository(**{"id": "owner/name", "revision": REVISION, **change})


def test_a_snapshot_asks_for_the_named_top_level_files_at_the_commit(monkeypatch, tmp_path):
    calls = answering(monkeypatch, huggingface_hub, "snapshot_download", str(tmp_path))
    assert snapshot(REPOSITORY, ["*.json"]) == tmp_path
    expected = {"revision": REVISION, "allow_patterns": ["*.json"], "ignore_patterns": ["*/*"]}
    assert calls == [(("owner/name",), expected)]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_error(errors.GatedRepoError), "gated; accept its licence on the hub, then set HF_TOKEN"),
        (hub_error(errors.RepositoryNotFoundError), "no such repository, or a private one"),
        (hub_error(errors.RevisionNotFoundError), "no such revision"),
        (errors.LocalEntryNotFoundError("cannot reach\nthe hub"), "cannot reach the hub"),
        (errors.HFValidationError("bad id"), "bad id"),
        (hub_error(errors.HTTPError, "connection dropped"), "connection dropped"),
    ],
)
def test_the_hubs_refusals_become_one_line(monkeypatch, error, message):
    answering(monkeypatch, huggingface_hub, "snapshot_download", error)
    with pytest.raises(SourceError, match=f"^owner/name at {REVISION}: not had from the hub: .*{message}") as caught:
        snapshot(REPOSITORY, ["*.json"])
    assert "\n" not in str(caught.value)


def test_rows_are_one_column_of_one_split(monkeypatch):
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    calls = answering(monkeypatch, datasets, "load_dataset", table)
    dataset = Dataset(id="owner/name", revision=REVISION, config="raw", data_files={"train": "a.json.gz"})
    assert rows(dataset, "train[:2]") == ["a", "b"]
    expected = {"data_files": {"train": "a.json.gz"}, "split": "train[:2]", "revision": REVISION}
    assert calls == [(("owner/name", "raw"), expected)]


@pytest.mark.parametrize(
    ("column", "message"),
    [("body", "no column 'body', expected one of text, label"), ("label", "something else than text")],
)
def test_a_column_that_is_no_text_is_refused(monkeypatch, column, message):
    answering(monkeypatch, datasets, "load_dataset", datasets.Dataset.from_dict({"text": ["a"], "label": [0]}))
    with pytest.raises(SourceError, match=message):
        rows(Dataset(id="owner/name", revision=REVISION, column=column), "train")


@pytest.mark.parametrize("kind", [ValueError, datasets.exceptions.DatasetGenerationError, ConnectionError])
def test_an_unknown_split_or_damaged_dataset_is_refused(monkeypatch, kind):
    answering(monkeypatch, datasets, "load_dataset", kind('Unknown split "tset".'))
    with pytest.raises(SourceError, match='not had from the hub: Unknown split "tset"'):
        rows(Dataset(id="owner/name", revision=REVISION), "tset")


@pytest.mark.parametrize(
    ("kind", "calibration"),
    [("documents", [("train/0", "one"), ("train/2", "two")]), ("lines", [("train", "one\n\n\n\ntwo")])],
)
def test_rows_are_documents_or_lines_of_one(monkeypatch, tmp_path, kind, calibration):
    splits = {"train": ["one", "", "two"], "test": ["three"]}
    answering(
        monkeypatch,
        datasets,
        "load_dataset",
        lambda asked: datasets.Dataset.from_dict({"text": splits[asked["split"]]}),
    )
    text = HubText(id="wikitext", revision=REVISION, rows=kind, calibration_split="train", held_out_split="test")
    fetch_text(text, tmp_path)
    assert [(document.id, document.text) for document in read_documents(tmp_path, "calibration")] == calibration
    assert [document.text for document in read_documents(tmp_path, "held_out")] == ["three"]
