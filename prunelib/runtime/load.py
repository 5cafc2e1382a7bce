"""How many tasks are running and waiting, and the callback that receives it."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

R = TypeVar("R")


class Load(NamedTuple):
    """Number of running and of waiting tasks, over all nodes."""

    running: int
    waiting: int

    def __str__(self) -> str:
        """Return ``3 running, 5 waiting``."""
        return f"{self.running} running, {self.waiting} waiting"


OnDone = Callable[[R, Load], None]
"""Callback: receives each task's result as it completes, and the load."""
