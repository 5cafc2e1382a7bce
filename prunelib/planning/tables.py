"""A plan as lines and tables for a terminal: shapes, Gram matrices, disk, memory, whether they fit, and times."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.table import Table

from prunelib.planning.capacity import Free
from prunelib.planning.needs import Requirement, StageMemory, Workload, disk, gram_bytes, memory, passes
from prunelib.planning.shapes import Outline
from prunelib.runtime.machine import Budgets

if TYPE_CHECKING:
    from prunelib.planning.speed import Estimate


def plan(outline: Outline, work: Workload, budgets: Budgets, free: Free) -> Iterator[str | Table]:
    """Yield the lines and tables of a model's needs, and whether they fit on this machine."""
    needs = disk(outline, work)
    stages = memory(outline, work, budgets.gram_bytes, budgets.state_bytes, budgets.threads)
    of_text = outline.weights - outline.beside
    yield (
        f"{outline.family}: {len(outline.blocks)} blocks; {outline.prunable / 1e9:.3g} of {of_text / 1e9:.3g} "
        f"billion weights prunable; stored in {outline.dtype}"
    )
    if outline.beside:
        yield f"{outline.beside / 1e9:.3g} billion weights outside the language model stay dense"
    yield from outline.stays_dense
    yield _table(("matrix", "rows x inputs", "how many"), _shapes(outline))
    yield _table(("Gram matrices", ""), _grams(outline, work, budgets))
    yield _table(("disk", "size"), ((need.what, decimal(need.size)) for need in needs))
    yield _memory(stages, free)
    yield from _verdicts(needs, stages, free)


def times(estimates: "Iterable[Estimate]") -> Iterator[str | Table]:
    """Yield a table of the estimated time of each stage, and the formulas."""
    known = list(estimates)
    rows = [(each.stage, str(timedelta(seconds=round(each.seconds)))) for each in known]
    yield _table(("stage", "h:mm:ss, about"), rows)
    yield from (f"{each.stage} = {each.formula}" for each in known)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=bool(index), overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _shapes(outline: Outline) -> Iterator[tuple[str, str, str]]:
    """Yield one line per distinct shape: the names of its matrices, and their number in all blocks."""
    names: dict[tuple[int, int], dict[str, int]] = {}
    for block in outline.blocks:
        for matrix in block.matrices:
            of_shape = names.setdefault((matrix.rows, matrix.inputs), {})
            of_shape[matrix.kind] = of_shape.get(matrix.kind, 0) + 1
    for (rows, inputs), found in names.items():
        yield ", ".join(found), f"{rows:,} x {inputs:,}", f"{sum(found.values()):,}"


def _grams(outline: Outline, work: Workload, budgets: Budgets) -> Iterator[tuple[str, str]]:
    sizes = [work.gram_sets * gram_bytes(block) for block in outline.blocks]
    least, most = decimal(min(sizes)), decimal(max(sizes))
    yield "of a block", most if least == most else f"{least} to {most}"
    yield f"of all {len(sizes)} blocks", decimal(sum(sizes))
    most_passes = max(passes(block, budgets.gram_bytes) for block in outline.blocks)
    yield f"passes through a block, PRUNELIB_GRAM_BYTES = {decimal(budgets.gram_bytes)}", f"{most_passes}"


def _memory(stages: list[StageMemory], free: Free) -> Table:
    if free.gpu is None:
        return _table(("memory", "size"), [(each.stage, decimal(each.without_gpu)) for each in stages])
    rows = [(each.stage, decimal(each.gpu), decimal(each.beside_gpu)) for each in stages]
    return _table(("memory", "GPU", "CPU"), rows)


def _verdicts(needs: list[Requirement], stages: list[StageMemory], free: Free) -> Iterator[str]:
    yield _verdict("disk", "all of it", sum(need.size for need in needs), free.disk)
    if free.gpu is None:
        yield _of_the_largest("memory", {each.stage: each.without_gpu for each in stages}, free.memory)
    else:
        yield _of_the_largest("GPU", {each.stage: each.gpu for each in stages}, free.gpu)
        yield _of_the_largest("memory", {each.stage: each.beside_gpu for each in stages}, free.memory)


def _of_the_largest(where: str, sizes: dict[str, int], free: int) -> str:
    stage = max(sizes, key=lambda stage: sizes[stage])
    return _verdict(where, stage, sizes[stage], free)


def _verdict(where: str, what: str, size: int, free: int) -> str:
    fits = "fits" if size <= free else "does not fit"
    return f"{where}: {fits}: {what} needs {decimal(size)}, {decimal(free)} free"
