"""Progress of long loops: a bar on a terminal, otherwise one line per tenth of the loop."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINES = 10
_PERIOD = 3600.0  # the time left follows from the speed of so many last seconds


class Meter:
    """The progress of a loop over ``total`` units, with a status text; see :func:`meter`."""

    def __init__(self, title: str, total: int, unit: str, console: Console) -> None:
        self._title, self._total, self._unit, self._console = title, total, unit, console
        self._done, self._next_line, self._started = 0, total / _LINES, time.monotonic()
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
        hidden = not console.is_terminal
        self.bar = Progress(*columns, console=console, disable=hidden, speed_estimate_period=_PERIOD)
        self._task = self.bar.add_task(title, total=total, status="")

    def advance(self, amount: int = 1, status: str = "") -> None:
        """Count ``amount`` more units as done; ``status`` is shown next to the count."""
        self._done += amount
        if self._console.is_terminal:
            self.bar.update(self._task, completed=self._done, status=status)
        elif self._done >= self._next_line:
            self._next_line += self._total / _LINES
            self._print_line(status)

    def _print_line(self, status: str) -> None:
        count = f"{self._done:,} of {self._total:,} {self._unit}"
        seconds = f"{time.monotonic() - self._started:.0f} s"
        line = ", ".join(part for part in (count, status, seconds) if part)
        self._console.print(f"{self._title}: {line}", highlight=False, soft_wrap=True, markup=False, emoji=False)


def note(line: str) -> None:
    """Print one line on standard error, between progress bars."""
    Console(file=sys.stderr).print(line, highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def meter(title: str, total: int, unit: str, *, quiet: bool = False) -> Iterator[Meter]:
    """Yield a :class:`Meter` on standard error, or one that prints nothing, for the duration of a ``with`` block."""
    drawn = Meter(title, total, unit, Console(file=sys.stderr, quiet=quiet))
    with drawn.bar:
        yield drawn
