"""The bytes that are planned, against the files that are written and against published figures."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from configs import LLAMA_8B, written
from hypothesis import given
from hypothesis import strategies as st

from prunelib.block_refiners import block_reconstruction
from prunelib.calibration.accumulation import plan_passes
from prunelib.calibration.artifact import write_grams
from prunelib.calibration.settings import CalibrationInputs
from prunelib.calibration.statistics import InputStatistics
from prunelib.masks.packed import write_masks
from prunelib.methods.workspace import Workspace
from prunelib.params import load_params
from prunelib.planning.grid import workload
from prunelib.planning.needs import (
    RUNTIME,
    Workload,
    calibration_disk,
    disk,
    gram_bytes,
    masks_disk,
    memory,
    passes,
    reconstructing_bytes,
    refining_bytes,
)
from prunelib.planning.outline import outline
from prunelib.planning.shapes import Block, Matrix
from prunelib.planning.speed import SPARSITY, SWEEPS, Speed, estimates, measure
from prunelib.refiners import refit_swaps
from prunelib.runtime.machine import WAITING_BYTES

ROOT = Path(__file__).parents[2]
GIB = 1024**3
BUDGETS = {"gram_budget": 2 * GIB, "state_budget": 4 * GIB}


@given(st.lists(st.integers(1, 64), min_size=1, max_size=6), st.integers(1, 60_000))
def test_passes_are_those_of_the_calibration(widths, budget):
    block = Block(tuple(Matrix("m", 2, width) for width in widths))
    layers = [SimpleNamespace(inputs=width) for width in widths]
    assert passes(block, budget) == len(plan_passes(layers, budget))


@pytest.mark.parametrize("gram_sets", [1, 2])
def test_the_disk_of_a_calibration_is_the_size_of_its_files(tmp_path, gram_sets):
    (block,) = outline(written("llama", num_hidden_layers=1)).blocks
    inputs = {str(i): InputStatistics(torch.eye(d), torch.ones(d), 1) for i, d in enumerate(block.inputs)}
    held_out = {name: InputStatistics(known.gram.clone(), known.mean.clone(), 1) for name, known in inputs.items()}
    held_out = held_out if gram_sets == 2 else {}
    write_grams(tmp_path, 0, (inputs, held_out), {"model": "", "tokens": "", "count": 1, "held_out_count": 1})
    size = (tmp_path / "block_000.safetensors").stat().st_size
    assert 0 < size - calibration_disk([block], gram_sets) < 3000  # names and checksums


def test_the_disk_of_masks_is_the_size_of_their_file(tmp_path):
    block = Block((Matrix("a", 3, 9), Matrix("b", 500, 160), Matrix("c", 7, 8)))
    masks = {m.kind: torch.ones(m.rows, m.inputs).bool() for m in block.matrices}
    write_masks(tmp_path / "masks", masks, {})
    assert masks_disk([block]) == 3 * 2 + 500 * 20 + 7
    assert 0 < (tmp_path / "masks").stat().st_size - masks_disk([block]) < 2000


def test_the_disk_of_a_grid_counts_seeds_starts_and_cells():
    planned = outline(LLAMA_8B)
    cells = ((Fraction(2, 5), True), (Fraction(1, 2), True), (Fraction(1, 2), False))
    model, grams, masks, updated, scratch = (need.size for need in disk(planned, Workload(2, 3, cells, gram_sets=2)))
    assert model == 2 * planned.weights
    assert grams == 2 * calibration_disk(planned.blocks, 2)
    assert masks == 6 * planned.prunable // 8
    assert updated == pytest.approx(0.9 * 2 * planned.prunable)
    assert scratch == planned.prunable // 8 + planned.prunable


def test_shards_wait_on_disk_until_they_are_added():
    planned = outline(LLAMA_8B)
    alone, four = (disk(planned, Workload(shards=shards))[-1].size for shards in (1, 4))
    assert four > 4 * calibration_disk(planned.blocks, 1) > alone


def test_the_memory_of_the_stages_is_what_they_hold():
    planned, work = outline(LLAMA_8B), Workload()
    calibrate, refine, evaluate = memory(planned, work, **BUDGETS)
    grams, largest, states = gram_bytes(planned.blocks[0]), 4 * 14336**2, 128 * 2048 * 4096 * 2
    norms = 2 * 4096
    batch, block = 2048 * (14336 * 12 + 6 * 128256), 2 * (planned.blocks[0].prunable + norms)
    assert calibrate.gpu == 2 * planned.other + block + grams + largest + states + batch + WAITING_BYTES
    assert calibrate.beside_gpu == grams + states + RUNTIME
    assert calibrate.without_gpu == block + grams + largest + states + batch + RUNTIME
    assert refine.gpu == refining_bytes(planned.blocks, 1, work.workspaces) == 9 * largest + 104 * 4096 * 14336
    assert work.workspaces == (refit_swaps.METHOD.workspace,)
    assert evaluate.gpu == 2 * planned.weights + batch
    assert evaluate.without_gpu - evaluate.gpu == evaluate.beside_gpu == RUNTIME


def test_blocks_that_are_refined_whole_are_held_with_two_streams():
    model = outline(written("llama"))
    plain = Workload(calibration_tokens=1000, calibration_window=10, dtype="float32")
    work = replace(plain, block_weight_bytes=24)
    block = max(model.blocks, key=lambda block: block.prunable)
    activations = 10 * 2 * 4 * sum(matrix.rows + matrix.inputs for matrix in block.matrices)
    held = (4 + 24) * block.prunable + 4 * block.dense + activations
    assert reconstructing_bytes(block, 4, 24, 10) == held
    states = 1000 * model.hidden * 4
    before, after = (memory(model, each, **BUDGETS)[1] for each in (plain, work))
    assert after.gpu == max(before.gpu, 4 * model.other + held + 2 * states)
    assert after.without_gpu >= held + 2 * states + RUNTIME
    assert disk(model, work)[-1].size >= 2 * states


def test_every_thread_of_a_cpu_runs_a_window_through_a_block_that_is_refined_whole():
    model, work = outline(LLAMA_8B), Workload(workspaces=(Workspace(0, 0),), block_weight_bytes=24)
    one, two, many = (memory(model, work, **BUDGETS, threads=threads)[1] for threads in (1, 2, 1000))
    window = reconstructing_bytes(model.blocks[0], 2, 24, 2048, 2) - reconstructing_bytes(model.blocks[0], 2, 24, 2048)
    assert window == 2048 * 2 * 2 * sum(matrix.rows + matrix.inputs for matrix in model.blocks[0].matrices)
    assert (one.gpu, one.beside_gpu) == (two.gpu, two.beside_gpu)
    assert two.without_gpu - one.without_gpu == window
    assert many.without_gpu - one.without_gpu == 127 * window  # no more than there are windows


def test_inputs_that_come_about_leave_no_gram_matrices_and_join_the_stages():
    planned, dense, block = outline(LLAMA_8B), Workload(), Workload(inputs=CalibrationInputs.SEQUENTIAL)
    known, come_about = (memory(planned, work, **BUDGETS) for work in (dense, block))
    assert come_about[0].gpu == 0
    assert come_about[1].gpu == known[0].gpu + known[1].gpu
    assert come_about[1].without_gpu == known[0].without_gpu + refining_bytes(planned.blocks, 1, dense.workspaces)
    assert come_about[2] == known[2]
    before, after = ({need.what: need.size for need in disk(planned, work)} for work in (dense, block))
    assert before.keys() - after.keys() == {"Gram matrices, seeds: 1"}
    states, masks = 128 * 2048 * 4096 * 2, planned.prunable // 8
    assert after["scratch (temporary)"] == states + masks + planned.prunable


def test_dense_targets_hold_the_dense_model_beside_the_pruned_one():
    planned, alone = outline(LLAMA_8B), Workload(inputs=CalibrationInputs.TRUE_SEQUENTIAL)
    plain, both = (memory(planned, work, **BUDGETS)[1] for work in (alone, replace(alone, streams=2)))
    states, block = 128 * 2048 * 4096 * 2, 2 * (planned.blocks[0].prunable + planned.blocks[0].dense)
    squares = gram_bytes(planned.blocks[0]) + 36 * 14336**2
    assert both.gpu - plain.gpu == states + block + squares
    assert both.beside_gpu - plain.beside_gpu == states
    assert both.without_gpu - plain.without_gpu == states + block + squares
    before, after = (disk(planned, work)[-1].size for work in (alone, replace(alone, streams=2)))
    assert after - before == states
    alone = replace(alone, block_weight_bytes=24)
    before, after = (disk(planned, work)[-1].size for work in (alone, replace(alone, streams=2)))
    assert after - before == states


def test_states_and_gram_matrices_beyond_their_budgets_are_not_on_the_gpu():
    planned = outline(LLAMA_8B)
    whole = memory(planned, Workload(), **BUDGETS)[0]
    tight = memory(planned, Workload(), gram_budget=1, state_budget=1)[0]
    states, smaller = 128 * 2048 * 4096 * 2, 3 * 4 * 4096**2
    assert whole.gpu - tight.gpu == states + smaller
    assert tight.beside_gpu == whole.beside_gpu
    assert tight.without_gpu == whole.without_gpu


def test_a_model_that_runs_in_another_dtype_is_held_as_a_whole():
    planned = outline(LLAMA_8B)
    own, other = (memory(planned, Workload(dtype=dtype), **BUDGETS) for dtype in ("bfloat16", "float32"))
    assert other[2].beside_gpu - own[2].beside_gpu == 4 * planned.weights
    assert own == memory(planned, Workload(), **BUDGETS)


def test_experts_that_are_merged_are_held_as_a_whole():
    planned = outline(written("mixtral"))
    merged, paged = (memory(replace(planned, merged=count), Workload(), **BUDGETS) for count in (planned.merged, 0))
    assert planned.merged > 0
    held = [one.beside_gpu - other.beside_gpu for one, other in zip(merged, paged, strict=True)]
    assert held == [4 * planned.merged, 0, 4 * planned.merged]


def test_the_work_on_a_model_is_that_of_the_grid():
    params = load_params(ROOT / "params.yaml")
    work = workload([params], "smollm2_135m")
    cells = [cell for cell in params.grid.cells() if cell.pattern]
    assert len(work.cells) == len(cells)
    assert work.starts == len({(cell.seed, cell.pattern, cell.warmstart) for cell in cells})
    assert sorted(set(work.cells)) == [(Fraction(2, 5), False), (Fraction(1, 2), False)]
    assert work.calibration_tokens == params.calibration.samples * params.calibration.length
    assert work.evaluation_tokens == len(params.grid.texts) * params.evaluation.perplexity.tokens


def test_a_refiner_of_blocks_is_counted():
    params = load_params(ROOT / "params.yaml")
    grid = params.grid.model_copy(update={"refiners": ("swaps", "swaps_reconstruct")})
    work = workload([params.model_copy(update={"grid": grid})], "smollm2_135m")
    assert work.block_weight_bytes == block_reconstruction.METHOD.weight_bytes
    assert work.calibration_window == params.calibration.length
    assert work.block_gradients == block_reconstruction.BlockReconstruction().gradients(params.calibration.samples)
    assert {updates for _, updates in work.cells} == {True, False}


def test_cells_whose_weights_move_are_told_apart():
    params = load_params(ROOT / "params.yaml")
    change = {"refiners": ("swaps", "admm_refit"), "seeds": (0, 1)}
    grid = params.grid.model_copy(update=change)
    calibration = params.calibration.model_copy(update={"held_out_samples": 16})
    work = workload([params.model_copy(update={"grid": grid, "calibration": calibration})], "smollm2_135m")
    assert (len(work.cells), work.starts, work.seeds, work.gram_sets) == (24, 12, 2, 2)
    assert sorted(kept for kept, moves in work.cells if moves) == [Fraction(2, 5)] * 6 + [Fraction(1, 2)] * 6


def test_dense_targets_move_the_weights_of_all_cells():
    params = load_params(ROOT / "params.yaml")
    change = {"inputs": CalibrationInputs.TRUE_SEQUENTIAL, "dense_target": 0.5}
    calibration = params.calibration.model_copy(update=change)
    work = workload([params.model_copy(update={"calibration": calibration})], "smollm2_135m")
    assert work.streams == 2
    assert {updates for _, updates in work.cells} == {True}


def test_times_are_work_by_speed():
    planned, work = outline(LLAMA_8B), Workload()
    speed = Speed(forward=1e12, products=1e11, pairs=1e9)
    calibrate, refine, evaluate = (each.seconds for each in estimates(planned, work, speed))
    squares = 32 * (3 * 4096**2 + 14336**2)
    assert calibrate == pytest.approx(128 * 2048 * (2 * planned.prunable / 1e12 + squares / 1e11))
    pairs = 32 * ((2 * 4096 + 2 * 1024 + 2 * 14336) * 4096**2 + 4096 * 14336**2) * SPARSITY * (1 - SPARSITY)
    assert refine == pytest.approx(SWEEPS * pairs / 1e9)
    assert evaluate == pytest.approx(2 * planned.weights * work.evaluation_tokens / 1e12)


def test_reconstruction_takes_a_forward_and_a_backward_pass_for_each_gradient():
    planned, work = outline(LLAMA_8B), Workload(block_gradients=100, calibration_window=10, calibration_tokens=2000)
    _, _, reconstruct, _ = estimates(planned, work, Speed(forward=1e12, products=1e11, pairs=1e9))
    assert reconstruct.seconds == pytest.approx((3 * 100 * 10 + 2 * 2000) * 2 * planned.prunable / 1e12)


@pytest.mark.parametrize(
    ("inputs", "streams", "passes"), [("sequential", 1, 2), ("true_sequential", 1, 5), ("true_sequential", 2, 14)]
)
def test_inputs_that_come_about_take_the_time_of_their_passes_from_refine(inputs, streams, passes):
    planned, speed = outline(LLAMA_8B), Speed(forward=1e12, products=1e11, pairs=1e9)
    work = Workload(inputs=CalibrationInputs(inputs), streams=streams)
    (_, alone, _), (refine, _) = estimates(planned, Workload(), speed), estimates(planned, work, speed)
    accumulation = (passes * 2 * planned.prunable / 1e12) + 32 * (3 * 4096**2 + 14336**2) / 1e11
    assert refine.seconds - alone.seconds == pytest.approx(128 * 2048 * accumulation)


def test_this_machine_is_measured(monkeypatch):
    monkeypatch.setattr("prunelib.planning.speed._WIDTH", 64)
    monkeypatch.setattr("prunelib.planning.speed._SECONDS", 0.01)
    assert all(rate > 0 for rate in measure("bfloat16", "cpu", threads=1))
