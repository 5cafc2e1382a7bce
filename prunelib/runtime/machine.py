"""What belongs to the machine and not to the experiment: threads, device, memory budgets.

These come from environment variables (``PRUNELIB_THREADS=8``), never from params.yaml: moving to another machine must
not rerun a stage. Neither threads nor budgets change a mask. A GPU makes the same best swaps as a processor; its sweeps
may end at other optima.
"""

import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from prunelib.errors import ParamsError

WAITING_BYTES = 1024**3
"""Inputs that wait on a GPU to be read for Gram matrices take no more than this, or there is one."""


def available_cores() -> int:
    """The number of processor cores that this process may use, by its affinity and its container's quota."""
    from joblib import cpu_count  # noqa: PLC0415 - takes numpy, which plans go without

    return int(cpu_count())


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor_name() -> str:
    """The processor's model as the system calls it, or its architecture where it does not say."""
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
    import torch  # noqa: PLC0415 - a heavy import that reading the settings alone must not pay for

    return "cuda" if torch.cuda.is_available() else "cpu"


def _usable_device(value: str) -> str:
    kind, _, index = value.partition(":")
    if kind not in {"cpu", "cuda"} or (index and not index.isdecimal()):
        raise ValueError("must be cpu, cuda or cuda:N")
    if kind == "cuda":
        import torch  # noqa: PLC0415 - as above

        if (count := torch.cuda.device_count()) <= int(index or 0):
            raise ValueError(
                f"this machine has {count} CUDA devices; use cpu" if not count else f"must be below cuda:{count}"
            )
    return value


class Budgets(BaseSettings):
    """Memory on the device that models run on, in plain bytes or as ``2GiB``.

    Attributes
    ----------
    gram_bytes
        What Gram matrices may take while they accumulate; with less than a block needs, its windows pass through it
        several times, with the same bits.
    state_bytes
        What the states of all windows between two blocks may take; more of them wait on the processor.
    """

    model_config = SettingsConfigDict(env_prefix="PRUNELIB_", frozen=True)

    gram_bytes: Annotated[ByteSize, Field(gt=0)] = ByteSize(2 * 1024**3)
    state_bytes: Annotated[ByteSize, Field(ge=0)] = ByteSize(4 * 1024**3)


class Machine(Budgets):
    """Settings of this machine.

    Attributes
    ----------
    threads
        Worker threads, for torch and for the compiled kernels alike.
    device
        Where models run and masks are refined: ``cpu``, ``cuda`` or ``cuda:N``.
    backend
        The inner loops of refiners: ``auto``, those compiled for the device; ``cpu``, those for processors, also where
        models run on a GPU; ``reference``, plain torch on the device. Refit swaps with ``refit: all`` are always on a
        processor.
    task_threads, task_gpus
        What each task takes of its node on Ray (:mod:`prunelib.runtime.tasks`): threads, and GPUs or a share of one;
        None: one where the nodes have any.
    """

    threads: int = Field(default_factory=available_cores, ge=1)
    device: Annotated[str, BeforeValidator(_usable_device)] = Field(default_factory=_default_device)
    backend: Literal["auto", "cpu", "reference"] = "auto"
    task_threads: int = Field(default=1, ge=1)
    task_gpus: Annotated[float, Field(ge=0)] | None = None

    @property
    def refining_device(self) -> str:
        """Where masks are refined."""
        return "cpu" if self.backend == "cpu" else self.device

    @property
    def refining_name(self) -> str:
        """What masks are refined on: ``AMD EPYC 9B14, 2 threads``, or the model of a GPU."""
        if self.refining_device == "cpu":
            return f"{processor_name()}, {self.threads} thread{'s' * (self.threads > 1)}"
        import torch  # noqa: PLC0415 - as above

        return str(torch.cuda.get_device_name(self.refining_device))


B = TypeVar("B", bound=Budgets)


@cache
def machine() -> Machine:
    """The settings of this machine, read once from the environment.

    Raises
    ------
    ParamsError
        If a variable has an unusable value; the message names it.
    """
    return _read(Machine)


@cache
def budgets() -> Budgets:
    """The budgets alone, as :func:`machine` has them, without the look for a GPU that takes torch."""
    return _read(Budgets)


def _read(settings: type[B]) -> B:
    try:
        return settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"PRUNELIB_{'_'.join(str(part) for part in first['loc']).upper()}"
        raise ParamsError(f"environment variable {name}={first['input']!r}: {first['msg']}") from None
