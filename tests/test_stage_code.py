"""The code that decides what a stage computes: DVC reruns a stage when it changes, and goes on with unfinished work."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from prunelib import stage_code
from prunelib.stage_code import STAGES, code_of, files_that_decide

ROOT = Path(__file__).parents[1]
OF_DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
FILES = {
    "stages/evaluate.py": "def late():\n    from prunelib.model import names\nfrom prunelib.masks.packed import pack\n",
    "prunelib/__init__.py": "from prunelib import unused\n",
    "prunelib/unused.py": "",
    "prunelib/model/__init__.py": "from prunelib.model import other\n",
    "prunelib/model/names.py": "import prunelib\nimport prunelib.errors\nimport prunelib.tables\n",
    "prunelib/model/other.py": "",
    "prunelib/masks/__init__.py": "",
    "prunelib/masks/packed.py": "from prunelib import refiners\nfrom prunelib.report import draw\n",
    "prunelib/refiners/__init__.py": "",
    "prunelib/refiners/swaps.py": "",
    "prunelib/refiners/inside/deep.py": "",
    "prunelib/report/__init__.py": "",
    "prunelib/report/page.html": "<p>",
    "prunelib/report/notes.txt": "",
    "prunelib/errors.py": "from prunelib import unused\n",
    "prunelib/tables.py": "ROWS = 1\n",
}
REACHED = {
    "stages/evaluate.py",
    "prunelib/masks/packed.py",
    "prunelib/model/names.py",
    "prunelib/refiners/__init__.py",
    "prunelib/refiners/inside/deep.py",
    "prunelib/refiners/swaps.py",
    "prunelib/report/__init__.py",
    "prunelib/report/page.html",
    "prunelib/tables.py",
}


@pytest.fixture
def project(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_code_is_reached_through_imports_but_not_through_the_frame(project):
    assert files_that_decide("evaluate", project).keys() == REACHED


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_stage_has_other_code_when_a_file_that_decides_has(project, name):
    before = code_of("evaluate", project)
    with (project / name).open("a") as stream:
        stream.write("\nANOTHER = 1\n")
    assert (code_of("evaluate", project) != before) == (name in REACHED)


def test_what_selects_the_kept_weights_is_code_of_the_warm_start():
    assert "prunelib/masks/selection.py" in files_that_decide("warmstart")


def test_comments_are_no_code(project):
    before = code_of("evaluate", project)
    (project / "prunelib" / "tables.py").write_text('"""Tables."""\n\nROWS = 1  # of numbers\n')
    assert code_of("evaluate", project) == before


def test_code_that_is_chosen_by_a_name_decides():
    files = files_that_decide("refine", ROOT)
    for part in ("refiners", "block_refiners", "warmstarts", "kernels"):
        inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / "prunelib" / part).rglob("*.py")}
        assert inside - {"prunelib/kernels/cpu_cache.py"} <= files.keys()


def test_each_stage_has_code_of_its_own():
    assert len({code_of(stage, ROOT) for stage in STAGES}) == len(STAGES)
    assert not any("kernels" in file for file in files_that_decide("evaluate", ROOT))
    assert "prunelib/reporting/page.html" in files_that_decide("report", ROOT)


def test_the_frame_exists():
    for name in (*stage_code._FRAME, *stage_code._READ_ONLY):
        assert (ROOT / "prunelib" / name).is_file()


@pytest.mark.parametrize("stage", sorted(OF_DVC.keys() - {"check"}))
def test_every_stage_depends_on_its_code_and_so_on_the_check_of_all_names(stage):
    (script,) = [name for name in STAGES if f"python -m stages.{name}" in OF_DVC[stage]["cmd"]]
    assert f"artifacts/code/{script}.json" in OF_DVC[stage]["deps"]
    assert OF_DVC["check"]["outs"] == ["artifacts/code"]


def test_the_check_of_all_names_takes_none_of_them():
    assert {"prunelib", "stages", "params.yaml"} == set(OF_DVC["check"]["deps"])
    assert "${" not in str(OF_DVC["check"])


@pytest.mark.parametrize("stage", OF_DVC)
def test_commands_carry_names_and_no_values(stage):
    assert all(part.startswith("item.") for part in OF_DVC[stage]["cmd"].replace("${", "\0").split("\0")[1:])
