"""The text artifact: what is written is read, and the splits share nothing."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prunelib.errors import ArtifactError, SourceError
from prunelib.sources.documents import (
    Document,
    folded,
    read_documents,
    shared_document,
    split_documents,
    write_documents,
)

documents = st.lists(st.builds(Document, st.text(max_size=8), st.text(min_size=1, max_size=40)), min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(calibration=documents, held_out=documents)
def test_what_is_written_is_read(tmp_path, calibration, held_out):
    assume(all(document.text.strip() for document in calibration + held_out))
    assume(shared_document(calibration, held_out) is None)
    write_documents({"calibration": calibration, "held_out": held_out}, tmp_path)
    assert read_documents(tmp_path, "calibration") == calibration
    assert read_documents(tmp_path, "held_out") == held_out


def test_every_nth_document_is_held_out():
    dealt = split_documents([Document(str(index), "text") for index in range(7)], 3)
    assert [document.id for document in dealt["held_out"]] == ["0", "3", "6"]
    assert [document.id for document in dealt["calibration"]] == ["1", "2", "4", "5"]


def test_a_text_in_both_splits_is_refused_whatever_its_white_space(tmp_path):
    splits = {
        "calibration": [Document("a", "one two\n")],
        "held_out": [Document("b", "three"), Document("c", " one\ntwo")],
    }
    with pytest.raises(SourceError, match="held-out document 'c' has the same text as calibration document 'a'"):
        write_documents(splits, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_first_shared_document_comes_with_its_twin():
    calibration = [Document("a", "one"), Document("b", "two  words")]
    held_out = [Document("c", "three"), Document("d", "\ttwo\nwords "), Document("e", "one")]
    assert shared_document(calibration, held_out) == (held_out[1], calibration[1])
    assert shared_document(calibration, held_out[:1]) is None
    assert shared_document([], held_out) is None


@given(st.text())
def test_folding_leaves_words_with_one_space_between(text):
    assert folded(text).split(" ") == (text.split() or [""])
    assert folded(folded(text)) == folded(text)


@pytest.mark.parametrize("empty", ["calibration", "held_out"])
def test_an_empty_split_is_refused_and_blank_documents_do_not_fill_it(tmp_path, empty):
    splits = {"calibration": [Document("a", "one")], "held_out": [Document("b", "two")], empty: [Document("c", " \n")]}
    with pytest.raises(SourceError, match=f"the {empty} split is empty"):
        write_documents(splits, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b'{"id": "a"}\n',
        b'{"id": "a", "te',
        b"[1]\n",
        b'{"id": "a", "text": "b", "more": 1}\n',
        b'{"id": "a", "text": 7}\n',
        b'{"id": null, "text": "b"}\n',
        b'{"id": "a", "text": "\xff"}\n',
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, content):
    (tmp_path / "held_out.jsonl").write_bytes(b'{"id": "a", "text": "b"}\n' + content)
    with pytest.raises(ArtifactError, match=r"held_out.jsonl, line 2: damaged, expected an id and a text") as caught:
        read_documents(tmp_path, "held_out")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"calibration.jsonl: no such file"):
        read_documents(tmp_path, "calibration")
