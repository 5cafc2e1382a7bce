"""How far tasks are, as those who run them report it."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

R = TypeVar("R")


class Load(NamedTuple):
    """How many tasks run, and how many wait, over all nodes."""

    running: int
    waiting: int

    def __str__(self) -> str:
        """``3 running, 5 waiting``."""
        return f"{self.running} running, {self.waiting} waiting"


OnDone = Callable[[R, Load], None]
"""Told what each task gave, as they finish."""
