"""Settings of the machine rather than the experiment: threads, device, memory budgets.

They are environment variables (``PRUNELIB_THREADS=8``), never part of params.yaml: changing machines must not rerun a
stage. Neither threads nor budgets change a mask that is made from the same Gram matrices; in bfloat16, the forward pass
of calibration rounds differently by thread. Best swaps are the same on a GPU as on the CPU; sweeps on a GPU may
end at other optima.
"""

import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from prunelib.errors import ParamsError
from prunelib.runtime.compute import Compute

GRAM_BYTES, STATE_BYTES = 2 * 1024**3, 4 * 1024**3
"""Defaults of :class:`Budgets`."""

MOST_THREADS = 4096
"""More than any machine runs at once: a process with so many more may not start."""

WAITING_BYTES = 1024**3
"""Limit of the inputs queued on a GPU for accumulation into Gram matrices; a single larger input is still queued."""


def available_cores() -> int:
    """Return the number of CPU cores that this process may use, by its affinity and its container's quota."""
    from joblib import cpu_count  # noqa: PLC0415 - imports numpy, which the command plan does not need

    return int(cpu_count())


def peak_memory() -> int:
    """Return the peak resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor_name() -> str:
    """Return the CPU model reported by the system, or the CPU architecture if there is none."""
    try:
        if sys.platform == "darwin":
            words = ("sysctl", "-n", "machdep.cpu.brand_string")
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, subprocess.SubprocessError):
        return platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _default_device() -> str:
    import torch  # noqa: PLC0415 - a heavy import, not needed to read the settings alone

    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(value: str) -> str:
    """Return the name of a device of this machine; raise ValueError with what it must be if it is not there."""
    kind, colon, index = value.partition(":")
    if kind not in {"cpu", "cuda"} or (colon and (kind == "cpu" or not index.isdecimal())):
        raise ValueError("must be cpu, cuda or cuda:N")
    if kind == "cuda":
        import torch  # noqa: PLC0415 - as above

        if (count := torch.cuda.device_count()) <= int(index or 0):
            raise ValueError(
                f"this machine has {count} CUDA devices; use cpu" if not count else f"must be below cuda:{count}"
            )
    return value


def _whole_above_one(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError("must be a whole number, or below 1 a share of one")
    return value


class Budgets(BaseSettings):
    """Threads, and memory budgets on the device that runs the model, in plain bytes or as ``2GiB``.

    Attributes
    ----------
    threads
        Worker threads of torch and of the compiled kernels.
    gram_bytes
        Limit of the Gram matrices during accumulation; if a block needs more, its windows run through it several
        times, with bit-identical results.
    state_bytes
        Limit of the hidden states of all windows between two blocks; above it they are kept on the CPU.
    """

    model_config = SettingsConfigDict(env_prefix="PRUNELIB_", frozen=True)

    threads: int = Field(default_factory=available_cores, ge=1, le=MOST_THREADS)
    gram_bytes: Annotated[ByteSize, Field(gt=0)] = ByteSize(GRAM_BYTES)
    state_bytes: Annotated[ByteSize, Field(ge=0)] = ByteSize(STATE_BYTES)


class Machine(Budgets):
    """Settings of this machine.

    Attributes
    ----------
    device
        Where models run and masks are refined: ``cpu``, ``cuda`` or ``cuda:N``.
    backend
        The inner loops of refiners: ``auto``, the kernels compiled for the device; ``cpu``, the CPU backend, even if
        models run on a GPU; ``reference``, plain torch on the device. Refit swaps with ``refit: all`` always run on
        the CPU.
    task_threads, task_gpus
        Resources of each task on Ray (:mod:`prunelib.runtime.tasks`): threads, and GPUs or a fraction of one;
        None: one GPU if the cluster has any.
    """

    device: Annotated[str, BeforeValidator(usable_device)] = Field(default_factory=_default_device)
    backend: Literal["auto", "cpu", "reference"] = "auto"
    task_threads: int = Field(default=1, ge=1, le=MOST_THREADS)
    task_gpus: Annotated[float, Field(ge=0, le=1000), AfterValidator(_whole_above_one)] | None = None

    @property
    def refining_device(self) -> str:
        """The device on which masks are refined."""
        return "cpu" if self.backend == "cpu" else self.device

    @property
    def compute(self) -> Compute:
        """Threads and kernels of the refiners."""
        return Compute(self.threads, reference=self.backend == "reference")

    @property
    def kernels(self) -> str:
        """The kernels that refine masks, which may decide their bits: ``cpu``, ``cuda`` or ``reference``."""
        return "reference" if self.backend == "reference" else self.refining_device.partition(":")[0]

    @property
    def refining_name(self) -> str:
        """Name of the hardware that refines masks: ``AMD EPYC 9B14, 2 threads``, or the model of a GPU."""
        if self.refining_device == "cpu":
            return f"{processor_name()}, {self.threads} thread{'s' * (self.threads > 1)}"
        import torch  # noqa: PLC0415 - as above

        return str(torch.cuda.get_device_name(self.refining_device))


B = TypeVar("B", bound=Budgets)


@cache
def machine() -> Machine:
    """Return the settings of this machine, read once from the environment.

    Raises
    ------
    ParamsError
        If a variable has an invalid value; the message names the variable.
    """
    return _read(Machine)


@cache
def budgets() -> Budgets:
    """Return only the threads and budgets of :func:`machine`, without the GPU detection that imports torch."""
    return _read(Budgets)


def _read(settings: type[B]) -> B:
    try:
        return settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"PRUNELIB_{'_'.join(str(part) for part in first['loc']).upper()}"
        raise ParamsError(f"environment variable {name}={first['input']!r}: {first['msg']}") from None
