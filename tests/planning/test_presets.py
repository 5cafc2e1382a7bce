"""The papers' models: each comparison is valid, and fits a GPU of 80 GB, by its published configuration."""

from pathlib import Path

import pytest
from configs import PUBLISHED

from prunelib.params import load_params
from prunelib.planning.grid import workload
from prunelib.planning.needs import memory
from prunelib.planning.outline import outline
from prunelib.sources.models import HubModel

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
GB, GIB = 10**9, 1024**3
BILLIONS = {
    "llama31_8b": 8.03,
    "gemma2_9b": 9.24,
    "yi15_9b": 8.83,
    "deepseek_7b": 6.91,
    "qwen25_7b": 7.62,
    "qwen25_14b": 14.77,
}


def test_every_model_of_the_hub_has_a_comparison_and_a_config():
    models = {name for name, source in PARAMS.models.items() if isinstance(source, HubModel)}
    assert models == set(PUBLISHED) == set(BILLIONS)
    assert models | {f"{name}_sparsefw" for name in models} < set(PARAMS.comparisons)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_gives_the_known_number_of_weights(name):
    assert outline(PUBLISHED[name]).weights / GB == pytest.approx(BILLIONS[name], abs=0.01)


@pytest.mark.parametrize(("paper", "samples"), [("", 128), ("_sparsefw", 256)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_protocol_is_asked_for(name, paper, samples):
    for params in PARAMS.compared(name + paper):
        assert params.grid.models == (name,)
        assert (params.calibration.text, params.calibration.draw) == ("c4", "documents")
        assert (params.calibration.samples, params.calibration.length) == (samples, 2048)
        assert params.evaluation.perplexity.length == 2048
        assert params.grid.texts[0] == "wikitext2"
        assert params.tasks.source == "hub"


@pytest.mark.parametrize("paper", ["", "_sparsefw"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_it_fits_one_gpu(name, paper):
    stages = memory(outline(PUBLISHED[name]), workload(PARAMS.compared(name + paper), name), 2 * GIB, 4 * GIB)
    assert all(stage.gpu < 80 * GB and stage.beside_gpu < 64 * GB for stage in stages)


@pytest.mark.parametrize("paper", ["", "_sparsefw"])
@pytest.mark.parametrize("name", [name for name in PUBLISHED if BILLIONS[name] < 10])
def test_eight_billion_weights_fit_a_small_gpu_and_a_processor(name, paper):
    stages = memory(outline(PUBLISHED[name]), workload(PARAMS.compared(name + paper), name), GIB, GIB)
    assert all(stage.gpu < 24 * GB and stage.beside_gpu < 64 * GB for stage in stages)
    assert all(stage.without_gpu < 64 * GB for stage in stages)


def test_what_several_grids_share_runs_once():
    work = workload(PARAMS.compared("llama31_8b"), "llama31_8b")
    assert (work.seeds, work.starts, len(work.cells)) == (1, 3 * 3, 3 * 3 * 3 + 3)
