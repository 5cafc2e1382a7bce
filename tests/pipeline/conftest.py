"""A tiny project whose whole grid has run: once for all tests of a worker, which change copies of it."""

import pytest
from pipeline_project import EVERYTHING, Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project whose whole grid has run, with everything committed and pushed."""
    folder = tmp_path_factory.mktemp("pipeline")
    project = Project.create(folder / "project")
    project.command("dvc", "remote", "add", "--default", "shared", str(folder / "remote"))
    assert sorted(project.repro()) == sorted(EVERYTHING)
    project.commit("all results")
    project.command("dvc", "push", "--run-cache")
    return project


@pytest.fixture
def project(finished, tmp_path):
    return finished.copy(tmp_path / "project")
