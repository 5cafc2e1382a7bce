"""Stages refuse before they work what disk or memory cannot hold, and what would be of no use."""

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from families import save, tiny_model

from prunelib import NOfM, PerLayer, PerRow
from prunelib.calibration.artifact import Calibration
from prunelib.calibration.settings import CalibrationSettings
from prunelib.errors import PatternError, StageError
from prunelib.masks.allocation import Atp, Owl, SparsityTable
from prunelib.model.layers import Layer, LayerIndex
from prunelib.planning import capacity
from prunelib.planning import checks as refusals
from prunelib.pruning.chains import Chain
from prunelib.refiners.none import NoRefinement
from prunelib.refiners.sparseswaps import SparseSwaps as Swaps

GB = 10**9
ROWS, INPUTS = 1000, 2000
GRAM = 4 * INPUTS**2
LAYER = {"kind": "m", "tensor": "m.weight", "transposed": False, "rows": ROWS, "inputs": INPUTS}
INDEX = LayerIndex(
    layers=tuple(Layer(name=f"b.{i}.m", block=i, gram=f"b.{i}.m", **LAYER) for i in range(3)),
    block_list="b",
    blocks=3,
    coverage=1,
)
SETTINGS = {"text": "t", "samples": 1, "length": 2, "batch": 1}
CALIBRATION = Calibration(Path(), INDEX, {}, {}, CalibrationSettings(**SETTINGS))


@pytest.fixture
def free(monkeypatch):
    def have(disk=10**15, memory=10**15):
        monkeypatch.setattr(capacity, "free_disk", lambda path: disk)
        monkeypatch.setattr(capacity, "free_memory", lambda device: memory)

    return have


def test_what_fits_is_let_through_and_what_does_not_is_one_line(free, tmp_path):
    free(disk=12 * GB, memory=3 * GB)
    capacity.require_disk(tmp_path, 12 * GB, "Gram matrices")
    capacity.require_memory(3 * GB, "Gram matrices", "cpu")
    with pytest.raises(StageError, match=r"^Gram matrices: .* needs 41\.0 GB on disk, 12\.0 GB free$"):
        capacity.require_disk(tmp_path, 41 * GB, "Gram matrices")
    with pytest.raises(StageError, match=r"^masks: needs 4\.1 GB of memory \(cuda\), 3\.0 GB free$"):
        capacity.require_memory(4_100_000_000, "masks", "cuda")


def test_the_disk_is_that_of_the_nearest_folder_that_exists(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=7))
    assert capacity.free_disk(tmp_path / "not" / "there") == 7
    assert asked == [tmp_path]


def test_the_real_figures_are_there(tmp_path):
    assert capacity.free_disk(tmp_path) > 0
    assert capacity.free_memory() > 0


VERSIONS = {
    "v2": ("max", "current", "anon 30\ninactive_file 15\n", "max"),
    "v1": ("limit_in_bytes", "usage_in_bytes", "cache 30\ntotal_inactive_file 15\n", f"{2**63 - 4096}"),
}


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """The mount of control groups, of which this process is in those that it says, on a machine with 100 bytes free."""
    monkeypatch.setattr(capacity.psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    monkeypatch.setattr(capacity, "_CONTAINER", tmp_path / "mount")
    monkeypatch.setattr(capacity, "_OWN_GROUPS", tmp_path / "own")

    def limit(version, group, most):
        """Limit a group, of whose memory 50 bytes are taken."""
        limit, used, counts, _ = VERSIONS[version]
        folder = tmp_path / "mount" / ("memory" if version == "v1" else "") / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"memory.{limit}").write_text(f"{most}\n")
        (folder / f"memory.{used}").write_text("50\n")
        (folder / "memory.stat").write_text(counts)

    def own(lines):
        (tmp_path / "own").write_text(lines)

    return SimpleNamespace(limit=limit, own=own)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_limit_of_a_container_counts(groups, version):
    assert capacity.free_memory() == 100
    groups.limit(version, "", 80)
    assert capacity.free_memory() == 45
    groups.limit(version, "", 10)
    assert capacity.free_memory() == 0
    groups.limit(version, "", VERSIONS[version][-1])
    assert capacity.free_memory() == 100


@pytest.mark.parametrize("version", VERSIONS)
def test_the_least_limit_of_a_jobs_groups_counts(groups, version):
    groups.own({"v2": "0::/slurm/job_7/step_0\n", "v1": "4:cpu,cpuacct:/\n3:memory:/slurm/job_7/step_0\n"}[version])
    groups.limit(version, "slurm/job_7/step_0", VERSIONS[version][-1])
    groups.limit(version, "slurm/job_7", 70)
    groups.limit(version, "slurm", 90)
    groups.limit(version, "other", 50)
    assert capacity.free_memory() == 35


def test_a_gpus_memory_is_what_torch_says(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (5, 10))
    assert capacity.free_memory("cuda:0") == 5


@pytest.mark.parametrize(("shown", "free"), [("143000\n", 143000 * 1024**2), ("[N/A]\n", None)])
def test_a_gpu_is_asked_for_without_torch(monkeypatch, shown, free):
    monkeypatch.setattr(capacity.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=shown))
    assert capacity.free_gpu_memory() == free


@pytest.mark.parametrize(
    ("visible", "number", "asked"),
    [
        (None, 0, "0"),
        (None, 3, "3"),
        ("5,2", 0, "5"),
        ("5,2", 1, "2"),
        ("GPU-8932f937", 0, "GPU-8932f937"),
        ("2", 1, ""),
    ],
)
def test_the_gpu_that_is_asked_for_is_the_one_that_runs_the_model(monkeypatch, visible, number, asked):
    def run(words, **_):
        assert words[-1] == f"--id={asked}"
        return SimpleNamespace(stdout="1\n")

    monkeypatch.setattr(capacity.subprocess, "run", run)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert capacity.free_gpu_memory(number) == 1024**2


@pytest.mark.parametrize("fault", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 5)])
def test_no_tool_is_no_gpu(monkeypatch, fault):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(capacity.subprocess, "run", fail)
    assert capacity.free_gpu_memory() is None


def test_calibration_is_refused_where_its_matrices_do_not_fit(free, tmp_path):
    one, two = (CalibrationSettings(**SETTINGS, held_out_samples=apart) for apart in (0, 1))
    free(disk=3 * (GRAM + 4 * INPUTS), memory=2 * GRAM)
    refusals.require_capacity_to_calibrate(tmp_path, INDEX, one, token_bytes=0)
    with pytest.raises(StageError, match=r"Gram matrices of all blocks: .* needs 96\.0 MB on disk, 48\.0 MB free"):
        refusals.require_capacity_to_calibrate(tmp_path, INDEX, two, token_bytes=0)
    free(memory=2 * GRAM)
    with pytest.raises(StageError, match=r"Gram matrices of a block, and hidden states .*: needs 48\.0 MB of memory"):
        refusals.require_capacity_to_calibrate(tmp_path, INDEX, two, token_bytes=0)


def test_states_of_the_windows_of_a_shard_count(free, tmp_path):
    settings = CalibrationSettings(**SETTINGS | {"samples": 5, "shards": 2}, held_out_samples=1)
    free(memory=3 * GRAM + (3 + 1) * 2 * 1000)
    refusals.require_capacity_to_calibrate(tmp_path, INDEX, settings, token_bytes=1000)
    with pytest.raises(StageError, match=r"states of all windows: needs"):
        refusals.require_capacity_to_calibrate(tmp_path, INDEX, settings, token_bytes=1001)


def test_gram_matrices_that_refinement_finds_take_no_disk(free, tmp_path):
    free(disk=0)
    settings = CalibrationSettings(**SETTINGS, inputs="sequential")
    refusals.require_capacity_to_calibrate(tmp_path, INDEX, settings, token_bytes=0)


def test_dense_targets_need_states_of_two_models_and_room_for_updated_weights(free, tmp_path):
    settings = CalibrationSettings(**SETTINGS, inputs="true_sequential", dense_target=0.5)
    free(memory=2 * GRAM + 2 * 2 * 1000)
    refusals.require_capacity_to_calibrate(tmp_path, INDEX, settings, token_bytes=1000)
    with pytest.raises(StageError, match=r"states of all windows: needs"):
        refusals.require_capacity_to_calibrate(tmp_path, INDEX, settings, token_bytes=1001)
    free(disk=3 * ROWS * INPUTS // 8)
    with pytest.raises(StageError, match="updated weights"):
        refusals.require_capacity_to_refine(tmp_path, replace(CALIBRATION, settings=settings), Swaps(), 2, "cpu")
    free(memory=10 * GRAM)
    refusals.require_capacity_to_refine(tmp_path, replace(CALIBRATION, settings=settings), NoRefinement(), 2, "cpu")
    free(memory=10 * GRAM - 1)
    with pytest.raises(StageError, match="refining the largest layer"):
        refusals.require_capacity_to_refine(tmp_path, replace(CALIBRATION, settings=settings), NoRefinement(), 2, "cpu")


def test_refinement_is_refused_where_masks_updated_weights_or_its_work_do_not_fit(free, tmp_path):
    free(disk=3 * ROWS * INPUTS // 8)
    refusals.require_capacity_to_refine(tmp_path, CALIBRATION, Swaps(), 2, "cpu")
    with pytest.raises(StageError, match=r"and updated weights: .* needs 12\.8 MB on disk, 750\.0 kB free"):
        refusals.require_capacity_to_refine(
            tmp_path, CALIBRATION, Chain(chain=("sparseswaps", "least_squares")), 2, "cpu"
        )
    free(memory=GB // 20)
    with pytest.raises(StageError, match=r"refining the largest layer: needs 160\.0 MB of memory \(cpu\), 50\.0 MB"):
        refusals.require_capacity_to_refine(tmp_path, CALIBRATION, Swaps(), 2, "cpu")


def test_evaluation_is_refused_where_the_model_does_not_fit(free, tmp_path):
    model = tiny_model("llama")
    weights = sum(weight.numel() for weight in {id(w): w for w in model.parameters()}.values())
    save(model, tmp_path)
    free(memory=2 * weights)
    refusals.require_capacity_to_evaluate(tmp_path, "bfloat16", "cpu")
    with pytest.raises(StageError, match=r"^the model: needs .* of memory \(cpu\), .* free$"):
        refusals.require_capacity_to_evaluate(tmp_path, "float32", "cpu")


EXPERT = {"fused": {"parameter": "b.2.experts", "expert": 0, "first_row": 0}, "kind": "up", "tensor": "b.2.experts"}
WITH_EXPERT = INDEX.model_copy(
    update={
        "layers": (
            *INDEX.layers,
            Layer(name="b.2.up", block=2, gram="b.2.up", transposed=False, rows=4, inputs=50, **EXPERT),
        )
    }
)


@pytest.mark.parametrize(
    ("pattern", "facts"),
    [
        (NOfM(keep=2, group=4), r"b\.2\.up.* 50 "),
        (NOfM(keep=1, group=10**9), r"b\.0\.m.* 2000 "),
        (PerRow(sparsity=0.5, allocation=SparsityTable(sparsities={"b.3.*": 0.4})), r"'b\.3\.\*'.*b\.0\.m"),
        (PerLayer(sparsity=0.9, allocation=SparsityTable(sparsities={"b.2.*": 0.1})), r"leaves -"),
        (PerRow(sparsity=0.9, allocation=Atp(slope=0.15)), r"allocation\.slope = 0\.15"),
    ],
)
def test_a_pattern_that_does_not_fit_the_layers_is_refused(pattern, facts):
    refusals.require_patterns_that_fit({"fits": PerRow(sparsity=0.5, allocation=Owl())}, WITH_EXPERT)
    with pytest.raises(PatternError, match=rf"^patterns\.mine: .*{facts}"):
        refusals.require_patterns_that_fit({"fits": PerRow(sparsity=0.5), "mine": pattern}, WITH_EXPERT)
