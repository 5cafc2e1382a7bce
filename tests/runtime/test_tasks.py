"""Tasks in this process and on Ray: the same results, in order, and what becomes of those that fail."""

import importlib.util
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from prunelib import runtime
from prunelib.errors import NumericalError, StageError
from prunelib.runtime import tasks as backend
from prunelib.runtime.load import Load
from prunelib.runtime.tasks import run_tasks

WITH_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not WITH_RAY, reason="ray is not installed: pip install -e '.[ray]'")
ITEMS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def cluster():
    """Ray with two workers on loopback, without a dashboard."""
    ray = pytest.importorskip("ray")
    pickled_by_value(ray)
    ray.init(address="local", num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    yield
    ray.shutdown()


def pickled_by_value(ray):
    """Workers cannot import the modules of tests."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(params=["in process", pytest.param("ray", marks=needs_ray)])
def somewhere(request, monkeypatch):
    """In this process, or on Ray."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if request.param == "ray":
        request.getfixturevalue("cluster")
        monkeypatch.setenv("RAY_ADDRESS", "local")
    return request.param


@pytest.fixture
def on_ray(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")


def square(item):
    return item * item


def nothing(_item):
    return 0.0


def test_results_come_in_the_order_of_the_items(somewhere, tmp_path):
    told = []
    results = run_tasks(square, ITEMS, float, tmp_path, lambda result, load: told.append((result, load)))
    assert results == [item * item for item in ITEMS]
    assert sorted(result for result, _ in told) == sorted(results)
    assert [load.running + load.waiting for _, load in told] == list(range(len(ITEMS)))[::-1]
    assert list(tmp_path.iterdir()) == []


def test_no_items_are_no_work(somewhere, tmp_path):
    assert run_tasks(square, [], float, tmp_path) == []


def test_items_run_in_order_here(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    seen = []
    run_tasks(seen.append, ITEMS, float, tmp_path)
    assert seen == ITEMS


def test_a_load_is_read_by_people():
    assert str(Load(3, 5)) == "3 running, 5 waiting"


def test_without_ray_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.delattr(runtime, "ray_backend", raising=False)
    monkeypatch.setitem(sys.modules, "prunelib.runtime.ray_backend", None)
    with pytest.raises(
        StageError, match=r"^RAY_ADDRESS=local: Ray is not installed; pip install -e '\.\[ray\]' in the checkout$"
    ):
        run_tasks(square, ITEMS, float, tmp_path)


def fail_at(folder, bad, item):
    (folder / f"{item}-{time.monotonic_ns()}").touch()
    if item == bad:
        raise NumericalError(f"item {item} is bad")
    return item


def test_a_fault_of_a_task_is_the_fault_of_all(somewhere, tmp_path):
    with pytest.raises(NumericalError, match=r"^item 9 is bad$"):
        run_tasks(partial(fail_at, tmp_path, 9), ITEMS, float, tmp_path)


def test_on_ray_a_task_has_three_attempts(on_ray, tmp_path):
    with pytest.raises(NumericalError):
        run_tasks(partial(fail_at, tmp_path, 9), [9], float, tmp_path)
    assert len(list(tmp_path.glob("9-*"))) == 3


def die_once(folder, item):
    try:
        (folder / f"{item}").touch(exist_ok=False)
    except FileExistsError:
        return item
    if item == ITEMS[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_task_whose_worker_is_killed_runs_again(on_ray, tmp_path):
    assert run_tasks(partial(die_once, tmp_path), ITEMS[2:5], float, tmp_path) == ITEMS[2:5]


def die(_item):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_task_that_kills_every_worker_stops_the_work(on_ray, tmp_path):
    with pytest.raises(StageError, match=r"^a task was lost 3 times, with its worker or node: "):
        run_tasks(die, [1], float, tmp_path)


def started(folder, item):
    (folder / f"{time.monotonic_ns()}-{item}").touch()


def test_on_ray_the_dearest_begin_first(on_ray, tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNELIB_TASK_THREADS", "2")  # one at a time
    run_tasks(partial(started, tmp_path), [1, 2, 9, 8], float, tmp_path)
    assert [int(path.name.partition("-")[2]) for path in sorted(tmp_path.iterdir())] == [9, 8, 2, 1]


def surroundings(_item):
    import torch

    names = ("PRUNELIB_DEVICE", "PRUNELIB_THREADS", "OMP_NUM_THREADS", "PRUNELIB_BACKEND")
    return Path.cwd(), torch.get_num_threads(), *(os.environ.get(name) for name in names)


def test_a_task_has_the_folder_and_the_settings_of_the_project(on_ray, tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNELIB_BACKEND", "reference")
    monkeypatch.chdir(tmp_path)
    assert run_tasks(surroundings, [1], float, tmp_path) == [(tmp_path, 1, "cpu", "1", "1", "reference")]


def test_a_node_that_does_not_see_the_folder_is_named_before_any_work(on_ray, tmp_path, monkeypatch):
    from prunelib.runtime import ray_backend

    monkeypatch.setattr(ray_backend, "_sees", lambda _look: False)
    with pytest.raises(StageError, match=r"not visible on 127\.0\.0\.1"):
        run_tasks(partial(fail_at, tmp_path, None), ITEMS, float, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_does_not_answer_is_not_said_to_be_blind(on_ray, tmp_path, monkeypatch):
    from prunelib.runtime import ray_backend

    monkeypatch.setattr(ray_backend, "_ANSWER", 1.0)
    monkeypatch.setattr(Path, "exists", lambda _path: time.sleep(3600))
    with pytest.raises(StageError, match=r": no answer from 127\.0\.0\.1 in 1 s$"):
        run_tasks(square, ITEMS, float, tmp_path)


@needs_ray
def test_an_address_without_ray_is_one_line(tmp_path, monkeypatch):
    import ray

    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(StageError, match=r"^RAY_ADDRESS=127\.0\.0\.1:1: no Ray cluster \([^\n]*\)$"):
        run_tasks(square, ITEMS, float, tmp_path)


@pytest.fixture
def no_cluster(monkeypatch, tmp_path):
    """No connection to Ray, whatever ran before; one that is asked for is an error of its own."""
    import ray

    from prunelib.runtime import ray_backend

    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setattr(ray_backend, "_CONNECTION", 5.0)
    monkeypatch.setattr(ray, "init", None)


@needs_ray
@pytest.mark.usefixtures("no_cluster")
def test_another_server_is_not_taken_for_ray(tmp_path, monkeypatch):
    server = socket.create_server(("127.0.0.1", 0))  # its queue takes connections; nobody answers
    address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with server, pytest.raises(StageError, match=rf"^RAY_ADDRESS={address}: no Ray cluster \([^\n]* 5 s\)[^\n]*$"):
        run_tasks(square, ITEMS, float, tmp_path)


@needs_ray
@pytest.mark.usefixtures("no_cluster")
def test_a_cluster_that_is_gone_is_not_waited_for(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")  # as a killed head node leaves it
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(StageError, match=r"^RAY_ADDRESS=auto: no Ray cluster \([^\n]*$"):
        run_tasks(square, ITEMS, float, tmp_path)


@pytest.mark.parametrize(("threads", "gpus"), [("4096", "0"), ("3", "0"), ("1", "1"), ("1", "0.5")])
def test_what_no_node_has_is_not_waited_for(on_ray, tmp_path, monkeypatch, threads, gpus):
    monkeypatch.setenv("PRUNELIB_TASK_THREADS", threads)
    monkeypatch.setenv("PRUNELIB_TASK_GPUS", gpus)
    facts = f"PRUNELIB_TASK_THREADS={threads}, PRUNELIB_TASK_GPUS={gpus}: "
    with pytest.raises(StageError, match=rf"^{facts}.* 2 threads and 0 GPUs$"):
        run_tasks(partial(fail_at, tmp_path, None), ITEMS, float, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("nodes", "largest"),
    [
        ([{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0}], "2 threads and 1 GPUs"),  # neither has both
        ([{"CPU": 8.0}, {"CPU": 2.0}, {}], "8 threads and 0 GPUs"),
    ],
)
@needs_ray
def test_the_largest_node_that_is_near_is_named(monkeypatch, nodes, largest):
    from prunelib.runtime import ray_backend

    gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    known = [gone, *({"Alive": True, "Resources": node} for node in nodes)]
    monkeypatch.setattr(ray_backend.ray, "nodes", lambda: known)
    with pytest.raises(StageError, match=rf"=4, .*=1: .* {largest}$"):
        ray_backend._require_resources(4, 1.0)
    ray_backend._require_resources(2, 0.0)


def test_only_the_address_decides(monkeypatch):
    for value, expected in (("", False), ("local", True), ("auto", True)):
        monkeypatch.setenv("RAY_ADDRESS", value)
        assert backend.distributed() is expected
