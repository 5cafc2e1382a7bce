"""Faults of a user that end in a traceback, one for each cause."""
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import ALL, CALIBRATE, DOWNLOADS, EVALUATE, REFINE, last, run, tiny_project, verdict

from safetensors.torch import load_file, save_file

CELL = "artifacts/refined/tiny/0/row50-wanda-swaps/masks.safetensors"
START = "artifacts/warmstarts/tiny/0/row50-wanda.safetensors"
REPORT, APPLY = ["stages/report.py"], ["prunelib", "apply", "--model", "given/model", "--masks", "of", "--to", "to"]
PLAN = ["prunelib", "plan", "--config", "deep.json"]


def folder_for_file(project):
    (project.folder / "params.yaml").unlink()
    (project.folder / "params.yaml").mkdir()


def header(project):
    tensors = {name: tensor.clone() for name, tensor in load_file(project.folder / CELL).items()}
    save_file(tensors, project.folder / CELL, metadata={"prunelib": "[]"})


def no_keys(project):
    config = project.folder / "given" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_key_value_heads": 0}))


def masks_of_a_start(project):
    (project.folder / "of").mkdir()
    shutil.copy(project.folder / START, project.folder / "of" / "masks.safetensors")


FAULTS = {  # the cause: what is done to the project, the commands, what the environment has
    "the system's refusals: a folder where a file is expected": (folder_for_file, [REPORT], {}),
    "the system's refusals: scratch is a file": (lambda project: (project.folder / "scratch").touch(), [REFINE], {}),
    "headers and JSON of another shape: prunelib is a list": (header, [EVALUATE], {}),
    "numbers that no model has: num_key_value_heads = 0": (no_keys, [DOWNLOADS[0], CALIBRATE], {}),
    "texts: a glob that is the folder itself": (lambda project: project.edit("texts.ours.members", ["."]), [DOWNLOADS[1]], {}),
    "numbers too large: calibration.length = 10**30": (lambda project: project.edit("calibration.length", 10**30), [CALIBRATE], {}),
    "the environment: the backend that notebooks set": (lambda _: None, [REPORT], {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
    "commands: masks of a warm start are no cell's": (masks_of_a_start, [APPLY], {}),
    "JSON 100,000 levels deep": (lambda project: (project.folder / "deep.json").write_text("[" * 100_000), [PLAN], {}),
}
found = []
with tiny_project() as whole, tempfile.TemporaryDirectory() as copies:
    status, said = run(whole, *ALL)
    assert status == 0, said
    shutil.rmtree(whole.folder / "scratch")
    for number, (cause, (change, commands, environment)) in enumerate(FAULTS.items()):
        project = whole.copy(Path(copies) / str(number))
        change(project)
        status, said = run(project, *commands, **environment)
        found.append("Traceback" in said)
        print(f"{'traceback' if found[-1] else 'one line '}  {cause}: exit {status}, {last(said)[:120]}")
verdict(any(found), "each is one line that names the file or key, its value and what it may be, and exit 2; or it works")
