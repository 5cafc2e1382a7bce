"""The command that prints what a model will need."""

import json
import re
import shutil
from pathlib import Path

import pytest
from commands import prunelib
from configs import LLAMA_8B, written

from prunelib.cli import plan
from prunelib.planning import tables
from prunelib.planning.capacity import Free
from prunelib.planning.needs import Workload
from prunelib.planning.outline import outline
from prunelib.planning.speed import Speed
from prunelib.runtime import store
from prunelib.runtime.machine import budgets
from prunelib.workflow import paths

ROOT = Path(__file__).parents[2]
GB = 10**9


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command in an empty project that has only the params; its status and both streams, spaces squeezed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNELIB_DEVICE", "cpu")
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copy(ROOT / "params.yaml", tmp_path)

    def run(*options):
        done = prunelib("plan", *options)
        return done.exit_code, [" ".join(line.split()) for line in done.stdout.splitlines()], done.stderr

    return run


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_8B))
    return path


def test_what_is_needed_is_printed_and_whether_it_fits(command, config_file, monkeypatch):
    monkeypatch.setenv("PRUNELIB_GRAM_BYTES", "1GB")
    monkeypatch.setattr(plan, "free_disk", lambda path: 12 * GB)
    monkeypatch.setattr(plan, "free_memory", lambda: 256 * GB)
    status, lines, _ = command("--config", config_file)
    assert status == 0
    assert lines[0] == "llama: 32 blocks; 6.98 of 8.03 billion weights prunable; stored in bfloat16"
    assert "q_proj, o_proj 4,096 x 4,096 64" in lines
    assert "down_proj 4,096 x 14,336 32" in lines
    assert "of a block 1.0 GB" in lines
    assert "of all 32 blocks 32.7 GB" in lines
    assert "passes through a block, PRUNELIB_GRAM_BYTES = 1.0 GB 2" in lines
    assert re.fullmatch(r"disk: does not fit: all of it needs \d\d\.\d GB, 12\.0 GB free", lines[-2])
    assert re.fullmatch(r"memory: fits: evaluate needs \d\d\.\d GB, 256\.0 GB free", lines[-1])


def test_the_page_on_big_models_shows_what_is_printed(command, config_file):
    page = (ROOT / "docs" / "pages" / "how-to" / "plan.md").read_text()
    (shown,) = re.findall(r"plan --config .*?\n(.*?)```", page, flags=re.DOTALL)
    printed = command("--config", config_file)[1]
    expected = [" ".join(line.split()) for line in shown.splitlines()]
    told = [[line for line in lines if line and not line.endswith("free")] for lines in (expected, printed)]
    assert told[0] == told[1]


def test_a_gpu_is_judged_apart():
    free = Free(disk=10**12, memory=10**11, gpu=16 * GB)
    *_, gpu, memory = tables.plan(outline(LLAMA_8B), Workload(), budgets(), free)
    assert re.fullmatch(r"GPU: does not fit: evaluate needs 1\d\.\d GB, 16\.0 GB free", gpu)
    assert memory.startswith("memory: fits: calibrate needs ")


def test_experts_are_counted_one_by_one(command, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA_8B, "model_type": "mixtral", "num_local_experts": 8}))
    lines = command("--config", path)[1]
    assert "experts.w2 4,096 x 14,336 256" in lines


def test_what_stays_dense_is_said(command, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA_8B, "model_type": "mixtral", "num_local_experts": 8}))
    lines = command("--config", path)[1]
    gates = 32 * 8 * 4096
    assert any(f"32 matrices of {gates:,} weights" in line and "mlp.gate" in line for line in lines)


def test_a_model_of_the_params_is_planned_with_its_grid(command, tmp_path):
    store.write_json(tmp_path / paths.model_folder("smollm2_135m") / "config.json", written("llama"))
    status, lines, _ = command("--model", "smollm2_135m")
    assert status == 0
    assert any(line.startswith("masks, warm starts: 6, cells: 12") for line in lines)


def test_a_comparison_is_planned_with_all_its_grids(command, tmp_path):
    store.write_json(tmp_path / paths.model_folder("llama31_8b") / "config.json", LLAMA_8B)
    status, lines, _ = command("--comparison", "llama31_8b")
    assert status == 0
    assert lines[0].startswith("llama: 32 blocks; 6.98 of 8.03 billion")
    assert any(line.startswith("masks, warm starts: 9, cells: 30") for line in lines)


def with_model(entry):
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("models:\n  smollm2", f"models:\n  mine: {entry}\n  smollm2"))


def test_a_local_model_is_planned_where_it_lies(command):
    with_model("{source: local, path: here}")
    store.write_json(Path("here/config.json"), written("opt"))
    assert command("--model", "mine")[1][0].startswith("opt: 2 blocks")


def test_a_model_of_the_hub_is_planned_from_its_config_alone(command, config_file, monkeypatch):
    with_model(f"{{source: hub, id: a/b, revision: {'a' * 40}}}")
    asked = []
    monkeypatch.setattr("prunelib.sources.hub.snapshot", lambda _, files: asked.append(files) or config_file.parent)
    assert command("--model", "mine")[0] == 0
    assert asked == [["config.json"]]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--model", "smollm2_135m"),
            "error: --model smollm2_135m: a model in a wheel has no config.json before it is",
        ),
        (("--model", "smollm"), "error: --model: unknown name 'smollm', expected one of smollm2_135m, "),
        (("--comparison", "all"), "error: --comparison: unknown name 'all', expected one of methods, overfitting, "),
        (("--config", "none.json"), "error: none.json: no such file, expected the config.json of a model"),
        (("--config", "params.yaml"), "error: params.yaml: damaged or not JSON"),
        (("--config", "."), "error: config.json: no such file, expected the config.json of a model"),
    ],
)
def test_a_fault_is_one_line_and_status_2(command, options, line):
    status, output, errors = command(*options)
    assert (status, output) == (2, [])
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_times_are_there_when_asked_for(command, config_file, monkeypatch):
    monkeypatch.setattr("prunelib.planning.speed.measure", lambda *_: Speed(1e12, 1e11, 1e9))
    status, lines, _ = command("--config", config_file, "--measure")
    assert status == 0
    assert any(line.startswith("refine, a cell = swaps to the optimum at 60% per row: 7 sweeps x ") for line in lines)


def test_a_config_that_is_nested_without_end_is_one_line(command, tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    status, _, errors = command("--config", tmp_path / "config.json")
    assert status == 2
    assert errors.startswith(f"error: {tmp_path}/config.json: damaged or not JSON")


@pytest.mark.parametrize("nested", [False, True])
def test_more_blocks_than_any_model_has_are_refused(command, tmp_path, nested):
    blocks = {**LLAMA_8B, "num_hidden_layers": 10**9}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": blocks} if nested else blocks))
    status, output, errors = command("--config", tmp_path / "config.json")
    assert (status, output) == (2, [])
    assert "num_hidden_layers = 1000000000" in errors
    assert errors.count("\n") == 1
