"""How the numbers of a layer are computed: an argument of every method, which changes no result on one device."""

from typing import NamedTuple


class Compute(NamedTuple):
    """Threads and kernels.

    Attributes
    ----------
    threads
        Worker threads on the CPU; None: as many as torch has.
    reference
        Run the plain torch reference instead of the kernels compiled for the device.
    """

    threads: int | None = None
    reference: bool = False

    @property
    def workers(self) -> int:
        """The number of worker threads on the CPU."""
        import torch  # noqa: PLC0415 - a heavy import, not needed to read the settings alone

        return self.threads or torch.get_num_threads()


AUTO = Compute()
