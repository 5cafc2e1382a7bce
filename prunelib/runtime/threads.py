"""Work whose bits do not depend on the number of threads: each item runs on one thread, results come in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's operations on one thread each while the context is open."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Workers:
    """Threads that run torch's operations on one thread each; a context.

    Parameters
    ----------
    threads
        Their number; 1 runs everything in the thread that asks for it.
    """

    def __init__(self, threads: int) -> None:
        self._threads, self._open = threads, ExitStack()

    def __enter__(self) -> "Workers":
        self._open.enter_context(one_thread())  # first: threads take over the number when they start
        self._pool = ThreadPoolExecutor(self._threads)
        self._open.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *_failure: object) -> None:
        self._open.close()

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results for all items in order; at most two items a thread are begun and not yet yielded."""
        if self._threads == 1:
            yield from map(work, items)
            return
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(self._pool.submit(work, item))
            if len(waiting) == 2 * self._threads:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
