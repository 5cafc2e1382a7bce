"""Long runs in tests: what counts their progress, and what stops them."""

import itertools

from prunelib.runtime import atomic, store


class Bar:
    """Counts what is told."""

    def __init__(self):
        self.done = 0

    def advance(self, amount, status=""):
        self.done += amount


def stopped_at_each_write(monkeypatch, run):
    """Call ``run(number)`` again and again, stopped before its first write, its second ..., until none is left.

    Yields the number of each run that was stopped.
    """
    for last in itertools.count():
        with monkeypatch.context() as patch:
            patch.setattr(store, "replacing", _stopping(atomic.replacing, last))
            try:
                run(last)
            except KeyboardInterrupt:
                pass
            else:
                return
        yield last


def _stopping(replacing, last):
    writes = itertools.count()

    def write_or_stop(path):
        if next(writes) >= last:
            raise KeyboardInterrupt
        return replacing(path)

    return write_or_stop
