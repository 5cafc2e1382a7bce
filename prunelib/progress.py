"""Progress of long work: a bar on a terminal, a line per finished part otherwise."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Meter:
    """One long loop of ``total`` units. ``advance`` moves the bar, ``part_done`` ends a part of the work."""

    def __init__(self, title: str, total: int, unit: str, console: Console) -> None:
        self._title, self._unit, self._console, self._started = title, unit, console, time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self.bar.add_task(title, total=total, status="")

    def advance(self, amount: int, status: str = "") -> None:
        """Count ``amount`` more units as done; ``status`` stands beside the bar."""
        self.bar.update(self._task, advance=amount, status=status)

    def part_done(self, text: str) -> None:
        """Where there is no terminal to draw on, print one line that the part described by ``text`` is done."""
        if not self._console.is_terminal:
            task = self.bar.tasks[self._task]
            seconds = time.monotonic() - self._started
            done = f"{task.completed:,.0f}/{task.total:,.0f} {self._unit}"
            self._console.print(f"{self._title}: {text}, {done}, {seconds:.0f} s", highlight=False, soft_wrap=True)


@contextmanager
def meter(title: str, total: int, unit: str) -> Iterator[Meter]:
    """A :class:`Meter` on standard error for the length of a ``with`` block."""
    drawn = Meter(title, total, unit, Console(file=sys.stderr))
    with drawn.bar:
        yield drawn
