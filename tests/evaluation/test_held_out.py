"""The held-out text of evaluation, against the calibration documents of the same and of other texts."""

from pathlib import Path

import pytest
import torch
from pipeline_project import LETTERS, character_tokenizer

from prunelib.errors import ArtifactError, ParamsError
from prunelib.evaluation import held_out
from prunelib.evaluation.held_out import held_out_texts, held_out_windows
from prunelib.evaluation.perplexity import PerplexitySettings
from prunelib.sources.documents import Document, Split, write_documents


def text(folder: Path, calibration: str, *held_out: str) -> Path:
    """A text with one calibration document and some held-out ones, named after their split and number."""
    splits: dict[Split, list[Document]] = {
        "calibration": [Document("calibration 0", calibration)],
        "held_out": [Document(f"held-out {number}", content) for number, content in enumerate(held_out)],
    }
    write_documents(splits, folder)
    return folder


def test_every_text_gives_its_held_out_documents_in_order(tmp_path: Path) -> None:
    folders = {"theirs": text(tmp_path / "theirs", "one", "two", "three"), "ours": text(tmp_path / "ours", "a", "b")}
    assert held_out_texts(folders, "ours") == {"theirs": ["two", "three"], "ours": ["b"]}
    assert list(held_out_texts(folders, "ours")) == ["theirs", "ours"]


def test_a_held_out_document_among_the_calibration_documents_of_another_text_is_refused(tmp_path: Path) -> None:
    ours, theirs = (
        text(tmp_path / "ours", "the same\nwords", "b"),
        text(tmp_path / "theirs", "a", "c", "the  same words"),
    )
    with pytest.raises(ParamsError) as refused:
        held_out_texts({"ours": ours, "theirs": theirs}, "ours")
    assert str(refused.value) == (
        "grid.texts: held-out document 'held-out 1' of theirs is 'calibration 0' among the calibration documents "
        "of ours; evaluate on another text"
    )
    assert set(held_out_texts({"ours": ours, "theirs": theirs}, "theirs")) == {"ours", "theirs"}


def test_the_calibration_documents_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, splits = held_out.read_documents, []

    def noted(folder: Path, split: Split) -> list[Document]:
        splits.append(split)
        return read(folder, split)

    monkeypatch.setattr(held_out, "read_documents", noted)
    held_out_texts({name: text(tmp_path / name, f"seen in {name}", name) for name in ("a", "b", "c")}, "b")
    assert splits == ["calibration", "held_out", "held_out", "held_out"]


def test_a_text_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    folders = {"ours": text(tmp_path / "ours", "a", "b"), "theirs": tmp_path / "theirs"}
    with pytest.raises(ArtifactError, match=r"theirs/held_out\.jsonl: no such file"):
        held_out_texts(folders, "ours")


def test_windows_are_spread_over_each_text() -> None:
    settings = PerplexitySettings(length=4, tokens=9, batch=1)
    windows = held_out_windows({"long": [LETTERS], "short": ["abcdef"]}, character_tokenizer(), settings)
    assert {name: found.tolist() for name, found in windows.items()} == {
        "long": [[3, 4, 5, 6], [15, 16, 17, 18]],
        "short": [[3, 4, 5, 6]],
    }
    assert windows["long"].dtype == torch.int32


def test_a_text_shorter_than_a_window_is_refused() -> None:
    settings = PerplexitySettings(length=4, tokens=8, batch=1)
    with pytest.raises(ParamsError, match=r"^evaluation\.perplexity\.length = 4: the text has 3 tokens"):
        held_out_windows({"short": ["abc"]}, character_tokenizer(), settings)


def test_windows_with_a_bos_stand_under_a_name_of_their_own() -> None:
    settings = PerplexitySettings(length=4, tokens=20, batch=1)
    texts = {"ours": ["abcdefghijkl"]}
    (plain,) = held_out_windows(texts, character_tokenizer(), settings).values()
    labelled = held_out_windows(texts, character_tokenizer(), settings, bos=1)
    assert list(labelled) == ["ours_bos_per_window"]
    assert labelled["ours_bos_per_window"].tolist() == [
        [1, *plain.flatten().tolist()[i : i + 3]] for i in range(0, 12, 3)
    ]
