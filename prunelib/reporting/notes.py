"""Notes that explain the report's tables."""

from collections import Counter
from collections.abc import Sequence

from prunelib.reporting.digits import percent_reached
from prunelib.reporting.draws import draws_differ, means
from prunelib.reporting.report import Report
from prunelib.reporting.rows import Row, rows_of

_SPARSITY = (
    "Sparsity: share of zeros among the matrix weights inside the decoder blocks. "
    "Embeddings, norms and the output head stay dense."
)
_ERROR = (
    "Relative error: ‖WX − (M∘W)X‖² / ‖WX‖² on the calibration tokens, mean over layers. "
    "Error reduction: 1 − L(refined mask) / L(its own warm start), mean over layers."
)
_UPDATED = (
    "Updated weights: the weights that are kept were changed, too, so W′ replaces M∘W. "
    "Always reported separately from mask-only results, with their own best values."
)
_RECONSTRUCTED = (
    "Blocks reconstructed: after the mask, the kept weights of each decoder block were trained to return what the "
    "dense block returns, by gradients of its hidden states. Block error: relative error of these states on the "
    "windows measured, mean over blocks; errors of single matrices, which were not minimised, are left out."
)
_WANDA = "Error / Wanda's: L / L(Wanda's mask, not refined), mean over layers."
_GAP = (
    "Optimality gap: 1 − B / L, mean over layers, rounded up. B is the highest lower bound that a refiner has "
    "certified for the layer: no mask of the pattern lowers the error by more."
)
_BOLD = (
    "Bold: the best of its pattern, in the columns with an arrow, where it differs from the next by more than the "
    "standard error of the difference. A row of one draw counts with the deviation of its group's other rows; where no "
    "deviation is known, bold is the best of this draw alone. Error reduction has no arrow, because a worse warm start "
    "leaves more to reduce."
)
_OPTIMUM = "Rows at optimum: share of rows in which no single swap lowers the error, rounded down."
_DEVIATION = "± is the sample standard deviation over a row's draws."
_COSTS = "Time: of the refiner alone, without the compilation of kernels. Memory: the peak of its process"


def notes(report: Report) -> list[str]:
    """Return the notes that explain the tables, one or two sentences each."""
    perplexities = [
        f"Perplexity {report.label('texts', text)}: exp of the mean loss over {report.measured[text]}."
        for text in report.texts
        if text in report.measured
    ]
    return [
        *_seeds(report),
        _SPARSITY + _covered(report),
        *_experts(report),
        _ERROR,
        *_dense_targets(report),
        *_comparisons(rows_of(report)),
        *_chains(report),
        *perplexities,
        *_accuracies(report),
        _BOLD,
        _OPTIMUM,
        *_code(report),
    ]


def cost_notes(report: Report) -> list[str]:
    """Return the notes that explain the columns of time and memory; none if no cell has a timing."""
    machines = dict.fromkeys(cell["machine"] for cell in report.cells if cell.get("machine"))
    largest = ", the largest of the draws" if len(report.seeds) > 1 else ""
    return [f"{_COSTS}{largest}. Measured on {' and '.join(machines)}."] if machines else []


def _seeds(report: Report) -> list[str]:
    seeds = report.seeds
    if len(seeds) < 2:
        return []
    drawn = f"Seeds: the calibration tokens were drawn {len(seeds)} times (seeds {', '.join(map(str, seeds))})"
    known = rows_of(report)
    if not means(known):
        return [f"{drawn}; every row is of one of them."]
    if draws_differ(known):
        return [f"{drawn}; the column Draws has how many of them a row averages. {_DEVIATION}"]
    return [f"{drawn}. Shown are means over the draws. {_DEVIATION}"]


def _dense_targets(report: Report) -> list[str]:
    share = report.settings.get("calibration", {}).get("dense_target", 0.0)
    moved = f"before a matrix is pruned, its weights make up for {share:g} of what pruning has changed in its inputs"
    return [f"Dense targets: {moved}. Errors are measured against these weights."] if share else []


def _comparisons(members: Sequence[Row]) -> list[str]:
    """Return the notes on features that only some reports have."""
    return [
        *([_UPDATED] if any(row.updated for row in members) else []),
        *([_RECONSTRUCTED] if any(row.reconstructed for row in members) else []),
        *([_WANDA] if any("error_vs_wanda" in row.values for row in members) else []),
        *([_GAP] if any("optimality_gap" in row.values for row in members) else []),
    ]


def _chains(report: Report) -> list[str]:
    """Return a note with the error after each step of each chain, for the first seed."""
    first = [cell for cell in report.cells if cell["seed"] in (None, *report.seeds[:1])]
    known = [
        f"{report.label('patterns', cell['pattern'])}, {report.label('warmstarts', cell['warmstart'])}, "
        f"{report.label('refiners', cell['refiner'])}: {cell['steps']}"
        for cell in first
        if cell["steps"]
    ]
    if not known:
        return []
    return [f"Chains, the share of the warm start's error that each step left, over all layers: {'; '.join(known)}."]


def _accuracies(report: Report) -> list[str]:
    known = {task: report.measured[task] for task in report.tasks if task in report.measured}
    tasks = ", ".join(f"{report.label('tasks', task)} ({items})" for task, items in known.items())
    several = "mean over the draws, ± the standard error of one, because all share the items"
    shown = several if means(rows_of(report)) else "± one standard error"
    return [f"Accuracy: zero-shot, {shown}; {tasks}."] if tasks else []


def _code(report: Report) -> list[str]:
    """Return a note on the stages that ran with different code for different cells."""
    counted: dict[str, Counter[str]] = {}
    for stages in report.code.values():
        for stage, identity in stages.items():
            counted.setdefault(stage, Counter())[identity[:8]] += 1
    several = {stage: versions for stage, versions in counted.items() if len(versions) > 1}
    if not several:
        return []
    shown = "; ".join(
        f"{stage}, " + ", ".join(f"{identity} for {cells} cells" for identity, cells in versions.items())
        for stage, versions in several.items()
    )
    return [
        f"Code: several versions of it made these cells. Versions of each stage, and the cells that each made: {shown}."
    ]


def _covered(report: Report) -> str:
    """Return a sentence on the share of the blocks' weights that is prunable; empty if it is all of them."""
    partial = {cell["model"]: cell["coverage"] for cell in report.cells if cell["coverage"] < 1}
    shares = ", ".join(
        f"{percent_reached(share)}% in {report.label('models', model)}" for model, share in partial.items()
    )
    return f" Only linear layers are pruned and counted: of the blocks' matrix weights {shares}." if shares else ""


def _experts(report: Report) -> list[str]:
    seen = [layer["tokens"] for layer in report.layers if layer["tokens"] is not None]
    if not seen:
        return []
    least = report.settings["calibration"]["min_tokens"]
    few = sum(tokens < least for tokens in seen)
    alone = f" {few:,} of {len(seen):,} received fewer than {least:,}; their inputs are taken as independent."
    routed = f"Experts: each matrix is calibrated on the tokens routed to it, {min(seen):,} to {max(seen):,} of them."
    return [routed + alone * bool(few)]
