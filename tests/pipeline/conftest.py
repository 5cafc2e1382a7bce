"""A tiny project whose whole grid has run: once for all tests, which change copies of it."""

import shutil

import pytest
from filelock import FileLock
from pipeline_project import EVERYTHING, Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """A project whose whole grid has run, with everything committed and pushed; made once for all workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "pipeline"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
    return Project(folder / "project")


def make(folder):
    project = Project.create(folder / "project")
    project.command("dvc", "remote", "add", "--default", "shared", str(folder / "remote"))
    assert sorted(project.repro()) == sorted(EVERYTHING)
    project.commit("all results")
    project.command("dvc", "push", "--run-cache")
    (folder / "done").touch()


@pytest.fixture
def project(finished, tmp_path):
    return finished.copy(tmp_path / "project")
