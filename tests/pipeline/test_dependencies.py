"""dvc.yaml lists, for every stage, the modules that decide its numbers: compared with what its script imports."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]

# Modules that frame the work and decide no number: a change in them must not rerun a day of calibration.
FRAME = {
    "prunelib/calibration/side_stream.py",  # when inputs are read
    "prunelib/cell.py",
    "prunelib/cell_settings.py",  # which finished cells of a comparison are its own
    "prunelib/errors.py",
    "prunelib/methods/contract.py",
    "prunelib/methods/workspace.py",
    "prunelib/methods/registry.py",
    "prunelib/sources/block_counts.py",  # refuses to begin, or changes nothing
    "prunelib/model/fit.py",  # the same
    "prunelib/params.py",
    "prunelib/planning/checks.py",  # the same
    "prunelib/pruning/warm_up.py",
    "prunelib/runtime/code.py",
    "prunelib/runtime/compute.py",
    "prunelib/runtime/console.py",
    "prunelib/runtime/load.py",
    "prunelib/runtime/machine.py",
    "prunelib/runtime/prefetch.py",
    "prunelib/runtime/progress.py",
    "prunelib/runtime/ray_backend.py",
    "prunelib/runtime/resume.py",
    "prunelib/runtime/store.py",
    "prunelib/runtime/tasks.py",  # where tasks run
    "prunelib/settings.py",
    "prunelib/workflow.py",
}
READ = {"prunelib/sources/documents.py", "prunelib/sources/provenance.py"}  # by the stages after download


def module_files(name):
    """The file of a module, or that of a package with all that is in it."""
    path = ROOT / name.replace(".", "/")
    if path.with_suffix(".py").is_file():
        return {path.with_suffix(".py")}
    return set(path.glob("*.py")) if path.is_dir() else set()


def imports(path):
    """Files of the library that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name != "prunelib"]  # its version
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = inside if all(map(module_files, inside)) else [node.module]
        else:
            continue
        for name in names:
            found |= module_files(name) if name.startswith("prunelib") else set()
    return {file.relative_to(ROOT).as_posix() for file in found} - {"prunelib/__init__.py"}


def reached(script):
    """All files that a script reaches through imports, without going through the frame."""
    seen, ahead = set(), imports(ROOT / script)
    while ahead:
        file = ahead.pop()
        if file not in seen and file not in FRAME | (set() if script == "stages/download.py" else READ):
            seen.add(file)
            ahead |= imports(ROOT / file)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_reaches_is_among_its_dependencies(stage):
    listed = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("prunelib", "stages"))]
    (script,) = [dep for dep in listed if dep.startswith("stages")]
    covered = {file for file in reached(script) if any(file == dep or file.startswith(f"{dep}/") for dep in listed)}
    assert reached(script) - covered == set()
    unused = [
        dep for dep in listed if dep != script and not any(f == dep or f.startswith(f"{dep}/") for f in reached(script))
    ]
    assert unused == []
    assert script in STAGES[stage]["cmd"]


def test_the_frame_exists():
    assert all((ROOT / file).is_file() for file in FRAME | READ)


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"check"}))
def test_every_stage_begins_after_all_names_are_checked(stage):
    assert "artifacts/checked.txt" in STAGES[stage]["deps"]


def test_the_check_of_all_names_takes_none_of_them():
    assert "params.yaml" in STAGES["check"]["deps"]
    assert "${" not in str(STAGES["check"])


@pytest.mark.parametrize("stage", STAGES)
def test_commands_carry_names_and_no_values(stage):
    assert all(part.startswith("item.") for part in STAGES[stage]["cmd"].replace("${", "\0").split("\0")[1:])
