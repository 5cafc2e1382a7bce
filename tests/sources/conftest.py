"""A package index in a folder, from which the real pip fetches."""

import pytest


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder for the wheels; there is no other index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder
