"""Independent tasks: one after the other in this process, or on Ray, where ``RAY_ADDRESS`` says that there is one.

Tasks exchange names of files and small values, never tensors: each maps what it needs from disk, and writes what it
makes into the scratch folder, whole or not at all. So a run that was stopped goes on, wherever it goes on.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from prunelib.errors import StageError
from prunelib.runtime.load import Load, OnDone

T = TypeVar("T")
R = TypeVar("R")


def distributed() -> bool:
    """Whether tasks run on Ray: ``RAY_ADDRESS`` is that of a cluster, or ``local`` for one on this machine alone."""
    return bool(os.environ.get("RAY_ADDRESS"))


def run_tasks(
    function: Callable[[T], R],
    items: Sequence[T],
    cost: Callable[[T], float],
    shared: Path,
    on_done: OnDone[R] = lambda _result, _load: None,
    here: Callable[[T], R] | None = None,
) -> list[R]:
    """What a function gives for each item, in their order.

    Parameters
    ----------
    function
        On Ray it is copied to other processes, and may be called again for an item whose worker was lost.
    cost
        Of an item, in any unit: on several workers the dearest begin first.
    shared
        A folder that tasks read and write; every node must see it.
    here
        The same function for this process, where it tells of its progress itself: ``on_done`` is then told nothing.

    Raises
    ------
    StageError
        If Ray is asked for and not installed or not reached, or a node does not see the folder.
    Exception
        What the function raised; on Ray, three times for one item. Tasks that had finished are kept.
    """
    if distributed() and items:
        found: list[R] = _ray().run(function, items, cost, shared, on_done)
        return found
    if here:
        return [here(item) for item in items]
    results = []
    for item in items:
        results.append(function(item))
        on_done(results[-1], Load(0, len(items) - len(results)))
    return results


def _ray() -> ModuleType:
    if os.environ["RAY_ADDRESS"] == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # without clusters, Ray keeps to the loopback
    try:
        from prunelib.runtime import ray_backend  # noqa: PLC0415 - an extra, which few need
    except ImportError:
        raise StageError(
            f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: Ray is not installed; pip install 'prunelib[ray]'"
        ) from None
    return ray_backend
