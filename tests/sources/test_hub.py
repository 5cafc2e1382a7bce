"""The hub's library replaced by what it would answer: nothing here touches a network."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
    with pytest.raises(SourceError, match=f"^owner/name at {REVISION}: could not be downloaded .*{message}") as caught:
        snapshot(REPOSITORY, ["*.json"])
    assert "\n" not in str(caught.value)


SNAPSHOT = f"""
from prunelib.errors import SourceError
from prunelib.sources.hub import Repository, snapshot
try:
    print((snapshot(Repository(id="owner/name", revision="{REVISION}"), ["*.json"]) / "config.json").read_text())
except SourceError as error:
    print(error)
"""


def snapshot_with(home, **environment):
    """What the hub's own library makes of the environment, which it reads when it is imported."""
    words, own = [sys.executable, "-c", SNAPSHOT], {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    changed = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **own, **environment}
    return subprocess.run(words, env=changed, capture_output=True, text=True, check=True).stdout.strip()


class Mirror(BaseHTTPRequestHandler):
    """A hub that has one file."""

    def do_GET(self):
        files = {
            "tree": [{"type": "file", "path": "config.json", "size": 8, "oid": "1"}],
            "revision": {"id": "owner/name", "sha": REVISION, "siblings": [{"rfilename": "config.json"}]},
        }
        asked = self.path.removeprefix("/api/models/owner/name/").partition("/")[0]
        content = json.dumps(files[asked]) if asked in files else "mirrored"
        self.send_response(200)
        for name, value in (("ETag", '"1"'), ("X-Repo-Commit", REVISION), ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content.encode())

    do_HEAD = do_GET  # noqa: N815 - the name that is called

    def log_message(self, *_):
        pass


def test_a_mirror_is_asked_and_offline_what_it_gave_is_found(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}"
        assert snapshot_with(tmp_path, HF_ENDPOINT=mirror, HF_HUB_OFFLINE="0") == "mirrored"
        server.shutdown()
    assert snapshot_with(tmp_path, HF_HUB_OFFLINE="1") == "mirrored"


def test_offline_what_is_not_there_is_one_line(tmp_path):
    (line,) = snapshot_with(tmp_path, HF_HUB_OFFLINE="1").splitlines()
    assert line.startswith(f"owner/name at {REVISION}: could not be downloaded from the hub: ")


def test_rows_are_one_column_of_one_split(monkeypatch):
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    calls = answering(monkeypatch, datasets, "load_dataset", table)
    dataset = Dataset(id="owner/name", revision=REVISION, config="raw", data_files={"train": "a.json.gz"})
    assert rows(dataset, "train[:2]") == ["a", "b"]
    expected = {"data_files": {"train": "a.json.gz"}, "split": "train[:2]", "revision": REVISION}
    assert calls == [(("owner/name", "raw"), expected)]


@pytest.mark.parametrize("kind", [Path.mkdir, Path.touch])
def test_a_dataset_is_never_read_from_the_working_directory(monkeypatch, tmp_path, kind):
    calls = answering(monkeypatch, datasets, "load_dataset", datasets.Dataset.from_dict({"text": ["not the hub's"]}))
    (tmp_path / "owner").mkdir()
    kind(tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=f"^owner/name: .*{tmp_path}/owner/name"):
        rows(Dataset(id="owner/name", revision=REVISION), "train")
    assert calls == []


@pytest.mark.parametrize(
    ("column", "message"),
    [("body", "no column 'body', expected one of text, label"), ("label", "column .* text")],
)
def test_a_column_that_is_no_text_is_refused(monkeypatch, column, message):
    answering(monkeypatch, datasets, "load_dataset", datasets.Dataset.from_dict({"text": ["a"], "label": [0]}))
    with pytest.raises(SourceError, match=message):
        rows(Dataset(id="owner/name", revision=REVISION, column=column), "train")


@pytest.mark.parametrize("kind", [ValueError, datasets.exceptions.DatasetGenerationError, ConnectionError])
def test_an_unknown_split_or_damaged_dataset_is_refused(monkeypatch, kind):
    answering(monkeypatch, datasets, "load_dataset", kind('Unknown split "tset".'))
    with pytest.raises(SourceError, match='could not be downloaded from the hub: Unknown split "tset"'):
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
