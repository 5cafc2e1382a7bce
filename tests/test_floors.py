"""The folders of prunelib draw its architecture: an import stays on its floor or goes down, never up."""

import ast
from pathlib import Path

import prunelib

ROOT = Path(prunelib.__file__).parent

FLOORS = [  # from the roof down to the ground; a name is a folder or a module of prunelib
    {"__init__", "__main__", "api", "cli"},
    {"planning", "reporting", "export", "training"},
    {"cell_settings", "params", "stage_code", "workflow"},
    {"evaluation"},
    {"pruning"},
    {"cell", "records", "report_tables"},
    {"calibration"},
    {"warmstarts", "refiners", "block_refiners"},
    {"relaxation"},
    {"kernels"},
    {"model", "sources"},
    {"methods"},
    {"masks", "algebra"},
    {"runtime"},
    {"errors", "markdown", "settings"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def imported(path):
    """The folders and modules that a file of the library imports, at its top, inside functions or for type checkers."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, second = (*name.split("."), "")[:2]
            if first == "prunelib" and second in FLOOR:
                yield second


def files():
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).parts[0].removesuffix(".py"), path


def test_every_folder_and_module_has_its_floor():
    assert {folder for folder, _ in files()} == set(FLOOR)


def test_no_import_goes_up():
    upwards = {
        f"{path.relative_to(ROOT)} imports {below}"
        for folder, path in files()
        for below in imported(path)
        if FLOOR[below] < FLOOR[folder]
    }
    assert upwards == set()


def test_no_two_folders_import_each_other():
    pairs = {(folder, other) for folder, path in files() for other in imported(path) if folder != other}
    assert {pair for pair in pairs if pair[::-1] in pairs} == set()


def test_only_commands_and_tasks_read_the_environment():
    """A task runs where Ray puts it, so that it must read the settings of that machine; all else is an argument."""
    tasks = {"calibration/shards.py", "evaluation/parts.py", "pruning/stored_grams.py"}
    readers = {
        str(path.relative_to(ROOT))
        for _, path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "prunelib.runtime.machine"
        if {"machine", "budgets"} & {alias.name for alias in node.names}
    }
    assert {reader for reader in readers if not reader.startswith(("cli/", "runtime/"))} == {
        "workflow/stage.py",
        *tasks,
    }
