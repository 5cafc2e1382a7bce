"""The GPU's kernels compile for a GPU that is not there: what the interpreter takes, the compiler may not."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.triton

SCRIPT = """
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from prunelib.kernels.block_moves import cuda as block_moves, cuda_kernels as block_move_kernels
from prunelib.kernels.frank_wolfe import cuda_kernels as frank_wolfe_kernels
from prunelib.kernels.partial_refit_swaps import cuda as partial_refit_swaps, cuda_kernels as refit_kernels
from prunelib.kernels.relaxed_swaps import cuda as relaxed_swaps, cuda_kernels as relaxed_swap_kernels
from prunelib.kernels.swaps import cuda as swaps, cuda_kernels as swap_kernels, cuda_scan as scan_kernels
from prunelib.kernels.swaps import cuda_sweeps as sweep_kernels
from prunelib.kernels.swaps.cuda_best import best_swaps
from prunelib.kernels.swaps.cuda_groups import best_swaps_in_groups
from prunelib.kernels.cuda_chunks import row_block, row_tiles, whole_row

TYPES = dict(rows="*i64", active="*i1", weight="*fp32", gram="*fp32", diagonal="*fp32", corr="*fp64", restore="*fp32",
    least="*fp32", loss="*fp64", swaps="*i64", sweeps="*i64", optimal="*i1", mask="*i1", limit="i32",
    order="*i32", positions="*i32", number="*i32", moved="*i64", loss_before="*fp64", loss_after="*fp64",
    count="i32", first="i32", x="*fp64", inverse="*fp64", scale="*fp32", closed="*fp32", target="*fp32", steps="*fp64",
    linear="*fp32", residual="*fp32", mass="*fp32", fixed="*i1", toward="*fp32", pruned="*fp32", slope="*fp64",
    keep="i32", change="*fp32", found="*fp64", shifts="*fp64", gradient="*fp32", stages="i32", price="fp32",
    tolerance="fp32", rounds="i32", reach="*fp32", farthest="*fp32",
    near="*fp32", near_restore="*fp32", near_size="*fp32", largest="*fp32")


def compiled(kernel, **settings):
    options = {name: settings.pop(name) for name in ("num_warps", "maxnreg") if name in settings}
    constants = {name: value for name, value in settings.items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in constants else TYPES[name] for name in kernel.arg_names}
    # Tensors that torch allocates begin at multiples of 16 bytes: a launch compiles wide loads for them.
    pointers = [k for k, name in enumerate(kernel.arg_names) if signature[name].startswith("*")]
    aligned = {(k,): [["tt.divisibility", 16]] for k in pointers}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]


inputs = int(sys.argv[1])
groups = (inputs, 4)
row = {"inputs": inputs, **whole_row(inputs)}
compiled(best_swaps, SEGMENT=swaps.SEGMENT, **row)
compiled(best_swaps_in_groups, group=4, inputs=inputs, **row_tiles(inputs))
compiled(sweep_kernels.visit, SEGMENT=swaps.SEGMENT, **swaps._VISIT, **row)
segments = triton.next_power_of_2(triton.cdiv(inputs, swaps.SEGMENT))
compiled(sweep_kernels.scan_again, inputs=inputs, SEGMENT=swaps.SEGMENT, SEGMENTS=segments, **swaps._SCAN)
compiled(swap_kernels.begin, inputs=inputs, **swaps._BEGIN_TILE)
compiled(scan_kernels.scan_rows, inputs=inputs, **swaps.TILE)
for size, keep, moves, most in ((4, 2, 5, 4), (16, 8, 12869, 16)):
    sizes = {"inputs": inputs, "size": size, "keep": keep, "moves": moves, "most": most}
    compiled(block_move_kernels.settle, **sizes, **block_moves._looks(moves), **block_moves._TILE)
compiled(frank_wolfe_kernels.direct_rows, inputs=inputs, **row_block(inputs))
compiled(frank_wolfe_kernels.direct_groups, inputs=inputs, group=4, **row_block(inputs))
compiled(frank_wolfe_kernels.bend, inputs=inputs, **row_block(inputs))
TYPES["mass"] = "*fp64"
for group, priced in ((inputs, False), (inputs, True), (4, False)):
    row = whole_row(inputs) | relaxed_swaps._groups(inputs, group) | {"pairs": 96, "PRICED": priced}
    compiled(relaxed_swap_kernels.descend, inputs=inputs, group=group, **row)
TYPES["weight"] = "*fp64"
for group in groups:
    compiled(refit_kernels.visit, inputs=inputs, group=group, **whole_row(inputs))
compiled(refit_kernels.scan_rows, inputs=inputs, **partial_refit_swaps.TILE)
compiled(refit_kernels.scan_groups, inputs=inputs, group=4, **partial_refit_swaps._GROUPS_TILE)
compiled(refit_kernels.descend, inputs=inputs, **partial_refit_swaps.DESCENT)
"""


@pytest.mark.parametrize("inputs", [768, pytest.param(14336, marks=pytest.mark.slow)])
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernels_compile_for_hopper(tmp_path, inputs):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", SCRIPT, str(inputs)]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
