import builtins
import io

import pytest

from prunelib.errors import ParamsError
from prunelib.runtime.machine import available_cores, machine, processor_name


def test_the_defaults_are_this_machines():
    assert machine().threads == available_cores() >= 1
    assert machine().gram_bytes == 2 * 1024**3


def test_a_containers_quota_of_processor_time_counts(monkeypatch):
    real = builtins.open
    quotas = {"/sys/fs/cgroup/cpu.max": "250000 100000\n"}
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(48), raising=False)
    monkeypatch.setattr("os.path.exists", lambda path: path in quotas)
    monkeypatch.setattr(
        "builtins.open",
        lambda path, *rest, **named: io.StringIO(quotas[path]) if path in quotas else real(path, *rest, **named),
    )
    assert available_cores() == 3
    quotas["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    assert available_cores() == 48
    quotas.clear()
    quotas |= {
        f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us": value for name, value in (("quota", "150000"), ("period", "100000"))
    }
    assert available_cores() == 2


def test_the_processor_has_a_name():
    assert processor_name()
    assert machine().refining_name.startswith(processor_name())


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("PRUNELIB_THREADS", "3")
    monkeypatch.setenv("PRUNELIB_GRAM_BYTES", "1.5GiB")
    monkeypatch.setenv("PRUNELIB_DEVICE", "cuda:1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert (machine().threads, machine().gram_bytes, machine().device) == (3, 3 * 2**29, "cuda:1")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("THREADS", "0", "PRUNELIB_THREADS='0': .*greater than or equal to 1"),
        ("THREADS", "many", "PRUNELIB_THREADS='many': .*valid integer"),
        ("DEVICE", "tpu", "PRUNELIB_DEVICE='tpu': .*must be cpu, cuda or cuda:N"),
        ("DEVICE", "cpu:", "PRUNELIB_DEVICE='cpu:': .*must be cpu, cuda or cuda:N"),
        ("DEVICE", "cpu:0", "PRUNELIB_DEVICE='cpu:0': .*must be cpu, cuda or cuda:N"),
        ("DEVICE", "cuda:2", "PRUNELIB_DEVICE='cuda:2': .*must be below cuda:2"),
        ("BACKEND", "gpu", "PRUNELIB_BACKEND='gpu': .*'auto', 'cpu' or 'reference'"),
        ("GRAM_BYTES", "lots", "PRUNELIB_GRAM_BYTES='lots': "),
    ],
)
def test_an_unusable_value_names_the_variable(monkeypatch, name, value, line):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv(f"PRUNELIB_{name}", value)
    with pytest.raises(ParamsError, match=line):
        machine()


@pytest.mark.parametrize(("backend", "where"), [("auto", "cuda:1"), ("reference", "cuda:1"), ("cpu", "cpu")])
def test_masks_are_refined_where_models_run_but_for_the_backend_of_processors(monkeypatch, backend, where):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("PRUNELIB_DEVICE", "cuda:1")
    monkeypatch.setenv("PRUNELIB_BACKEND", backend)
    assert machine().refining_device == where
    assert machine().kernels == {"auto": "cuda"}.get(backend, backend)
