"""The next item is made while one is used, in order, and with its errors."""

import threading

import pytest

from sgmse.common.ahead import ahead


def test_the_next_item_is_made_while_one_is_used():
    made, second = [], threading.Event()

    def items():
        for i in range(3):
            made.append(i)
            if i == 1:
                second.set()
            yield i

    taken = ahead(items())
    assert next(taken) == 0
    assert second.wait(timeout=10), "nobody has asked for the second one yet"
    assert made == [0, 1]
    assert list(taken) == [1, 2]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("gone")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(OSError, match="gone"):
        next(taken)


def test_whoever_stops_early_leaves_no_thread():
    taken = ahead(iter(range(10)))
    next(taken)
    taken.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
