"""The command ``prunelib``: its subcommands, their options and help. What each does is in the module of its name."""

# ruff: noqa: PLC0415 - a subcommand imports its module when it runs, so that help and completion are fast

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from prunelib import __version__
from prunelib.runtime.console import one_line

_INSTALL = "pip install -e '.[workflow,evaluate]' in the checkout"


class _Commands(TyperGroup):
    """The subcommands; a user error in one of them prints one line and exits with status 2, an interrupt with 130."""

    def invoke(self, ctx: Any) -> Any:
        with one_line(show_traceback=ctx.params.get("traceback", False), resumes=False), _extras(ctx):
            return super().invoke(ctx)


@contextlib.contextmanager
def _extras(context: typer.Context) -> Iterator[None]:
    """Say which extra has a package that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "prunelib":
            raise
        context.fail(f"this command needs {error.name}, which is not installed: {_INSTALL}")


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Choose which weights of a language model to remove, and refine that choice.",
    epilog="`prunelib COMMAND --help` shows examples.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prunelib {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None: ...


Model = Annotated[str, typer.Option(metavar="NAME", help="A name under models in params.yaml.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the calibration, one of grid.seeds.")]
PatternName = Annotated[str, typer.Option("--pattern", metavar="NAME", help="A name under patterns.")]
WarmstartName = Annotated[str, typer.Option("--warmstart", metavar="NAME", help="A name under warmstarts.")]
RefinerName = Annotated[str, typer.Option("--refiner", metavar="NAME", help="A name under refiners.")]
Inputs = Literal["dense", "sequential", "true_sequential"]
Draw = Literal["stream", "documents"]
Rows = Literal["documents", "lines"]
Dtype = Literal["float32", "bfloat16", "float16"]
Target = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write; new or empty.")]


@app.command()
def prune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, or OWNER/NAME on the hub.")],
    text: Annotated[list[str], typer.Option(metavar="FILE", help="UTF-8 text to calibrate on; glob; repeatable.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the pruned model goes; new or empty.")],
    pattern: Annotated[str, typer.Option(metavar="PATTERN", help="2:4, 60% (of each row) or 60% per layer.")] = "2:4",
    allocation: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Sparsities that differ by block: owl, dlp or atp."),
    ] = None,
    warmstart: Annotated[str, typer.Option(metavar="METHOD", help="The first mask; see `prunelib methods`.")] = "wanda",
    refiner: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Repeat for a chain; default: sparseswaps.")
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", help="Calibration windows.")] = 128,
    length: Annotated[int, typer.Option(metavar="N", help="Tokens in each.")] = 2048,
    batch: Annotated[int, typer.Option(metavar="N", help="Windows per forward pass.")] = 1,
    held_out_samples: Annotated[int, typer.Option(metavar="N", help="Further windows, for early stopping.")] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw.")] = 0,
    draw: Annotated[Draw, typer.Option(help="Windows of the joined text, or each within a document.")] = "stream",
    rows: Annotated[Rows | None, typer.Option(help="What a line is; by default a file is one document.")] = None,
    bos_per_window: Annotated[bool, typer.Option(help="Begin each window with BOS, as Gemma needs.")] = False,
    inputs: Annotated[Inputs, typer.Option(help="Inputs of the dense model, or of the pruned one.")] = "dense",
    dense_target: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of changed inputs to make up for, with true_sequential.")
    ] = 0.0,
    allow_uncovered: Annotated[bool, typer.Option(help="Accept that some matrices stay dense.")] = False,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N; default: GPU if any.")
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Dtype to run in; default: its config's.")] = None,
    revision: Annotated[str | None, typer.Option(metavar="COMMIT", help="Commit, branch or tag on the hub.")] = None,
) -> None:
    """Prune a model, and write the result to a folder; no project is needed.

    A method is a name, or its settings as a YAML mapping. The pruned model loads with
    `AutoModelForCausalLM.from_pretrained`; `masks.safetensors` in its folder has the masks.

    ```
    prunelib prune meta-llama/Llama-3.1-8B --text 'c4/*.txt' --pattern 2:4 --out llama-24
    prunelib prune ./model --text notes.txt --refiner sparseswaps --refiner refit_swaps --out pruned
    prunelib prune ./model --text notes.txt --refiner '{method: sparsefw, iterations: 500}' --out pruned
    ```
    """
    import torch

    from prunelib.cli.prune import prune_folder
    from prunelib.runtime.machine import machine

    torch.set_num_threads(machine().threads)
    result = prune_folder(
        model,
        text,
        out,
        pattern=pattern,
        allocation=allocation,
        warmstart=warmstart,
        refiners=refiner or ["sparseswaps"],
        revision=revision,
        rows=rows,
        dtype=dtype,
        samples=samples,
        length=length,
        batch=batch,
        held_out_samples=held_out_samples,
        seed=seed,
        draw=draw,
        bos_per_window=bos_per_window,
        calibration_inputs=inputs,
        dense_target=dense_target,
        allow_uncovered=allow_uncovered,
        device=device or machine().device,
    )
    typer.echo(f"{result}\nThe pruned model: {out}")


@app.command()
def demo() -> None:
    """Prune the first model of the grid at 2:4 by three methods, in a few minutes, and print what changes.

    ```
    prunelib demo
    ```
    """
    from prunelib.cli import demo as command

    command.demo()


@app.command()
def run(
    cell: Annotated[str | None, typer.Option(metavar="NAME", help="One cell of the grid, with what it needs.")] = None,
    pull: Annotated[bool, typer.Option("--pull", help="Take what is missing from the DVC remote.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run every stage, even if up to date.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="After a failure, run all that does not need it.")
    ] = False,
) -> None:
    """Run every stage of params.yaml that is not up to date, and print the main figures.

    This is `dvc repro` with numbered stages; for targets and other options use `dvc repro` itself.

    ```
    prunelib run
    prunelib run --cell smollm2_135m-0-row60-wanda-swaps
    ```
    """
    from prunelib.cli import run as command

    command.run(cell, pull=pull, force=force, keep_going=keep_going)


@app.command()
def plan(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The config.json of a model.")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="A name under models in params.yaml.")] = None,
    comparison: Annotated[str | None, typer.Option(metavar="NAME", help="A name under comparisons.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Also estimate times, from a short measurement.")] = False,
) -> None:
    """Print what a model needs before anything runs: shapes, passes, disk, memory, and whether they fit.

    `--config` plans a single cell at 50% with updated weights and the papers' numbers of tokens; `--model` a model's
    share of the grid in params.yaml; `--comparison` all grids of a comparison.

    ```
    prunelib plan --config llama-3.1-8b/config.json
    prunelib plan --model smollm2_135m --measure
    ```
    """
    from prunelib.cli import plan as command

    command.plan(config, model, comparison, measure=measure)


@app.command()
def compare(
    comparison: Annotated[str, typer.Argument(metavar="NAME", help="A name under comparisons in params.yaml.")],
    renew: Annotated[
        bool, typer.Option("--renew", help="Also rerun cells made by another version of the code.")
    ] = False,
) -> None:
    """Run the unfinished cells of a comparison, and put all of its cells into one report, reports/NAME.

    Each finished cell is saved in reports/NAME/cells at once. With these files in git, a comparison that was stopped
    resumes in any clone; a cell is rerun only if its settings change. Stages run in a copy of the project
    under scratch/, which shares the project's DVC cache: params.yaml and the results of its own grid are unchanged.

    ```
    prunelib compare methods
    ```
    """
    from prunelib.cli import compare as command

    command.compare(comparison, renew=renew)


@app.command()
def report(
    comparison: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A name under comparisons in params.yaml; default: the grid.")
    ] = None,
) -> None:
    """Write the report of the finished cells, without running anything.

    It includes every finished cell, even if a stage failed: from results/ for the grid, from reports/NAME/cells for a
    comparison. Where there are none, the page and the figures are drawn from the report's own tables.

    ```
    prunelib report
    prunelib report methods
    ```
    """
    from prunelib.cli import report as command

    command.report(comparison)


@app.command()
def methods(
    write: Annotated[bool, typer.Option("--write", help="Put the table into README.md, between its markers.")] = False,
) -> None:
    """Print a Markdown table of all methods, from their own descriptions."""
    from prunelib.cli import methods as command

    if write:
        command.write()
    else:
        typer.echo(command.table(), nl=False)


@app.command()
def export(
    model: Model, seed: Seed, pattern: PatternName, warmstart: WarmstartName, refiner: RefinerName, to: Target
) -> None:
    """Write the pruned model of a cell of the grid as a folder that transformers can load.

    ```
    prunelib export --model smollm2_135m --seed 0 --pattern nm24 --warmstart wanda --refiner swaps --to pruned
    ```
    """
    from prunelib.cell import Cell
    from prunelib.cli import export as command

    command.export(Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner), to)


@app.command()
def apply(
    model: Annotated[Path, typer.Option(metavar="FOLDER", help="The dense model, safetensors.")],
    masks: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder with masks.safetensors.")],
    to: Target,
) -> None:
    """Apply masks, and updated weights if there are any, to a dense model, and write the pruned model to a folder.

    The masks are those of a refined cell (artifacts/refined/...), of an exported folder or of `PruningResult.save`, and
    must belong to this exact model. Only the folder of a cell has updated weights.

    ```
    prunelib apply --model dense --masks artifacts/refined/smollm2_135m/0/nm24-wanda-swaps --to pruned
    ```
    """
    from prunelib.cli import apply as command

    command.apply(model, masks, to)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The pruned model, safetensors.")],
    masks: Annotated[Path | None, typer.Option(metavar="FILE", help="Masks; default: those in the folder.")] = None,
    pattern: Annotated[str | None, typer.Option(metavar="PATTERN", help="Such as 2:4; default: the masks'.")] = None,
) -> None:
    """Check that a model's folder is still pruned by its masks: after fine-tuning, quantisation or conversion.

    Tensors are read one at a time. Exit status 0: every pruned weight is zero, and no group of the pattern has more
    than it keeps. 2: some layers are broken, named with their counts, or the files do not fit.

    ```
    prunelib verify tuned --masks pruned/masks.safetensors
    ```
    """
    from prunelib.export.verification import verify as verified

    found = verified(folder, masks or folder, pattern)
    typer.echo(found)
    raise typer.Exit(0 if found.intact else 2)


def main() -> None:
    """Run the command line."""
    app(prog_name="prunelib")
