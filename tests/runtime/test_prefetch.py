"""Reading ahead: order, how far, and faults."""

import threading

import pytest

from prunelib.runtime.prefetch import read_ahead


def test_every_item_is_read_once_and_in_order():
    assert list(read_ahead(lambda item: item * item, range(5))) == [0, 1, 4, 9, 16]
    assert list(read_ahead(str, [])) == []
    assert list(read_ahead(str, [7])) == ["7"]


def test_the_next_item_is_read_while_this_one_is_worked_on():
    second = threading.Event()

    def read(item):
        if item == 1:
            second.set()
        return item

    results = read_ahead(read, range(3))
    assert next(results) == 0
    assert second.wait(timeout=60)


def test_no_more_than_one_item_is_read_ahead():
    begun = []
    results = read_ahead(begun.append, range(10))
    next(results)
    results.close()
    assert begun == [0, 1]


def test_a_fault_of_reading_comes_where_its_item_would():
    def read(item):
        if item == 2:
            raise ValueError("damaged")
        return item

    results = read_ahead(read, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="damaged"):
        next(results)
