"""Prefetching: read from disk while the device computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield ``read(item)`` for each item, in order; a thread reads the next item while the caller uses this one."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1) as reader:
        for item in items:
            waiting.append(reader.submit(read, item))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        for last in waiting:
            yield last.result()
