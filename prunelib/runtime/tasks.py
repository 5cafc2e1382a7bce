"""Independent tasks: one after the other in this process, or on Ray if ``RAY_ADDRESS`` is set.

Tasks exchange file names and small values, never tensors: each memory-maps its inputs from disk, and writes its
outputs atomically into the scratch folder. So a stopped run can resume, on any machine that shares the folder.
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
    """Return whether tasks run on Ray: ``RAY_ADDRESS`` is a cluster's address, or ``local`` for one on this machine."""
    return bool(os.environ.get("RAY_ADDRESS"))


def run_tasks(
    function: Callable[[T], R],
    items: Sequence[T],
    cost: Callable[[T], float],
    shared: Path,
    on_done: OnDone[R] = lambda _result, _load: None,
    here: Callable[[T], R] | None = None,
) -> list[R]:
    """Map ``function`` over ``items``; results in input order.

    Parameters
    ----------
    function
        On Ray it is copied to other processes, and may be called again for an item whose worker was lost.
    cost
        Cost of an item, in any unit: on Ray, the most expensive items start first.
    shared
        A folder that tasks read and write; every node must have access to it.
    on_done
        Callback: receives each task's result as it completes.
    here
        Variant of ``function`` for this process that reports its own progress: ``on_done`` is then not called.

    Raises
    ------
    StageError
        If Ray is requested but not installed or not reachable, no node has what a task asks for, or one cannot access
        the folder.
    Exception
        Raised by the function; on Ray, after three attempts at one item. Finished tasks are kept.
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
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # without clusters, Ray uses only the loopback
    try:
        from prunelib.runtime import ray_backend  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise StageError(
            f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: Ray is not installed; pip install -e '.[ray]' in the checkout"
        ) from None
    return ray_backend
