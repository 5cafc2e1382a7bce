"""The Ray backend of :mod:`prunelib.runtime.tasks`; Ray does the scheduling, retries and transport."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import prunelib
from prunelib.errors import StageError, first_line
from prunelib.runtime.load import Load, OnDone
from prunelib.runtime.machine import machine

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 3
_CONNECTION = 30.0  # timeout of a connection attempt, and of a cluster's first answer, seconds
_ANSWER = 600.0  # timeout of a node's answer, seconds; Ray's workers have low priority and start late on a busy machine


def run(
    function: Callable[[T], R], items: Sequence[T], cost: Callable[[T], float], shared: Path, on_done: OnDone[R]
) -> list[R]:
    """Run tasks as :func:`prunelib.runtime.tasks.run_tasks` does, on Ray."""
    with _connected():
        share = _share()
        _require_resources(share["num_cpus"], share["num_gpus"])
        _require_shared(shared.absolute())
        task = ray.remote(_call).options(**share, max_retries=ATTEMPTS - 1, retry_exceptions=True)
        project = Path.cwd()
        dearest_first = sorted(range(len(items)), key=lambda number: -cost(items[number]))
        numbers = {task.remote(function, items[number], project): number for number in dearest_first}
        results: dict[int, R] = {}
        waiting = list(numbers)
        with _cancelling(waiting):
            while waiting:
                (done,), waiting[:] = ray.wait(waiting, num_returns=1)
                results[numbers[done]] = _result(done)
                on_done(results[numbers[done]], _load(len(waiting)))
    return [results[number] for number in range(len(items))]


def _call(function: Callable[[T], R], item: T, project: Path) -> R:
    """Call the function on an item, in a worker process, from the project folder so that relative paths resolve."""
    os.chdir(project)
    torch.set_num_threads(machine().threads)
    return function(item)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Connect to Ray for the duration of a ``with`` block; an existing connection is used and left open."""
    if ray.is_initialized():
        yield
        return
    address = os.environ["RAY_ADDRESS"]
    _require_cluster(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        try:
            ray.init(address=address, logging_level=logging.ERROR, **local)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise StageError(f"RAY_ADDRESS={address}: {_why_not(error)}") from None
        yield
    finally:
        ray.shutdown()


def _why_not(error: Exception) -> str:
    """Explain a failed connection: a missing or wrong token, or no cluster."""
    if "RAY_AUTH_TOKEN" in f"{error} {error.__cause__}":  # in all of Ray's messages about tokens
        return (
            "the cluster's token is missing or refused; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token or "
            "RAY_AUTH_TOKEN_PATH to its file (~/.ray/auth_token by default)"
        )
    return f"no Ray cluster ({first_line(error)})"


def _require_cluster(address: str) -> None:
    """Raise StageError if no Ray cluster answers at an address: Ray itself would retry for minutes or without an end.

    ``auto`` may be the address of a cluster that is gone, and at ``host:port`` something else may listen: Ray's own
    command asks, in a process that can be stopped. The errors of a cluster that answers are those of the connection
    that follows.
    """
    if address == "local":
        return
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECTION).close()
        except OSError as error:
            raise StageError(f"RAY_ADDRESS={address}: no Ray cluster ({error.strerror or error})") from None
    words = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_CONNECTION, check=False)
    except subprocess.TimeoutExpired:
        raise StageError(
            f"RAY_ADDRESS={address}: no Ray cluster (nothing there answers as Ray does in {_CONNECTION:.0f} s); "
            "expected the host and port of a head node, or local"
        ) from None


def _share() -> dict[str, Any]:
    """Return each task's resources, and the environment variables that limit the task to them."""
    threads, gpus = machine().task_threads, machine().task_gpus
    if gpus is None:
        gpus = float("GPU" in ray.cluster_resources())
    folders = [str(Path(prunelib.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith("PRUNELIB_")},
        "PYTHONPATH": os.pathsep.join(folders),  # the library of this process, wherever it has been installed
        "PRUNELIB_DEVICE": "cuda" if gpus else "cpu",  # Ray makes only the task's own GPUs visible
        "PRUNELIB_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
    }
    return {"num_cpus": threads, "num_gpus": gpus, "runtime_env": {"env_vars": environment}}


def _require_resources(threads: float, gpus: float) -> None:
    """Raise StageError if no node has what a task asks for: Ray would wait for such a node without an end."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [(node.get("GPU", 0.0), node.get("CPU", 0.0)) for node in resources]
    if not any(node[0] >= gpus and node[1] >= threads for node in nodes):
        most_gpus, most_threads = max(nodes, key=lambda node: (node[0] >= gpus, node[1]))
        raise StageError(
            f"PRUNELIB_TASK_THREADS={threads}, PRUNELIB_TASK_GPUS={gpus:g}: more than any node of the Ray cluster has, "
            f"the largest has {most_threads:g} threads and {most_gpus:g} GPUs"
        )


def _require_shared(folder: Path) -> None:
    """Raise StageError if a node cannot access a folder of this node."""
    token = folder / f"{uuid.uuid4().hex}.token"
    token.touch()
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        on = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        looks = [ray.remote(Path.exists).options(num_cpus=0, scheduling_strategy=each).remote(token) for each in on]
        addresses = {look: node["NodeManagerAddress"] for node, look in zip(nodes, looks, strict=True)}
        answered, late = ray.wait(looks, num_returns=len(looks), timeout=_ANSWER)
        blind = [addresses[look] for look in answered if not _sees(look)]
    finally:
        token.unlink()
    if late:
        raise StageError(f"{folder}: no answer from {', '.join(addresses[look] for look in late)} in {_ANSWER:.0f} s")
    if blind:
        raise StageError(
            f"{folder}: not visible on {', '.join(blind)}; all nodes need a shared file system, with the "
            "project at the same path"
        )


def _sees(look: "ray.ObjectRef[bool]") -> bool:
    try:
        return bool(ray.get(look))
    except RayError:
        return False


@contextlib.contextmanager
def _cancelling(waiting: list[Any]) -> Iterator[None]:
    """Cancel all waiting and running tasks on an exception (Ctrl-C too); Ray may abort if a task has just ended.

    https://github.com/ray-project/ray/pull/54798
    """
    try:
        yield
    except BaseException:
        running = ray.wait(waiting, num_returns=len(waiting), timeout=0)[1] if waiting else []
        for task in running:
            ray.cancel(task, force=True)
        raise


def _result(done: Any) -> Any:
    try:
        return ray.get(done)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise StageError(f"a task was lost {ATTEMPTS} times, with its worker or node: {first_line(error)}") from error


def _load(unfinished: int) -> Load:
    """Estimate how many of the unfinished tasks are running, from the CPUs in use in the cluster."""
    total, free = ray.cluster_resources(), ray.available_resources()
    taken = total.get("CPU", 0.0) - free.get("CPU", 0.0)
    running = min(unfinished, round(taken / machine().task_threads))
    return Load(running, unfinished - running)
