"""Inputs at which the project fails or failed, one folder each; README.md says what is right.

A script ends with status 1 while its fault is there, with 0 once it is gone. Faults that are open are expected
failures; one that is gone must be taken off the list, so that it stays gone.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cases
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDERS = sorted(path.parent.name for path in HERE.glob("*/show.py"))
GONE = {
    "01_removal_stopped_midway",
    "02_mapped_files_on_nfs",
    "03_model_where_the_stage_writes",
    "04_names_beyond_the_project",
    "05_names_reach_the_shell",
    "06_hub_text_from_a_folder_here",
    "07_stale_figures_in_the_card",
    "08_dense_folder_with_another_file",
    "09_more_than_the_cluster_has",
    "10_no_place_for_compiled_code",
    "11_name_of_a_pattern",
    "13_pickle_named_by_the_index",
    "14_weights_changed_behind_their_hash",
    "15_counts_of_rows",
    "16_markup_in_the_report",
    "17_config_larger_than_its_weights",
    "18_limit_of_the_container",
    "19_one_line_for_every_fault",
    "20_work_without_end",
    "21_lines_that_mislead",
    "22_files_that_are_not_the_models",
    "23_tensors_as_users_have_them",
    "24_fewer_blocks_than_the_file",
    "25_damaged_member",
    "30_eos_after_every_text",
    "31_token_beyond_the_embedding",
    "32_prompts_cut_in_silence",
    "33_labels_as_text",
    "34_key_that_is_no_label",
    "35_longrope_in_one_batch",
    "36_rows_like_experts",
    "37_keys_shared_between_blocks",
    "38_names_in_files",
    "39_blocks_that_return_a_tuple",
    "40_matrix_never_called",
    "41_float8_tensors",
    "42_plan_of_a_short_text_config",
    "43_plan_of_unknown_experts",
    "44_gguf",
    "50_widths_known_late",
    "51_part_of_a_snapshot",
    "53_line_endings",
    "54_a_group_of_tasks",
    "60_pinned_triton",
    "63_eight_decades",
    "64_means_of_some_rows",
    "65_mode_of_exported_files",
    "66_masks_taken_for_weights",
    "67_types_for_users",
    "68_front_door",
    "71_removed_entry",
    "72_one_cell_that_cannot_be_made",
}


class BrokenScriptError(Exception):
    """A script that did not come to its verdict."""


def case(folder):
    open_fault = pytest.mark.xfail(reason="open", raises=AssertionError, strict=True)
    return pytest.param(folder, marks=() if folder in GONE else open_fault)


@pytest.mark.parametrize("folder", [case(folder) for folder in FOLDERS])
def test_the_fault_is_gone(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, HERE / folder / "show.py"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    verdict = (done.stdout.strip().splitlines() or [""])[-1]
    if (done.returncode, verdict) not in {(0, "fixed"), (1, "FAULT")}:
        raise BrokenScriptError(done.stdout[-1000:] + done.stderr[-2000:])
    assert verdict == "fixed", done.stdout[-1000:]
