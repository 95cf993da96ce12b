"""Working ahead: bounded, no thread left behind, errors brought to the consumer."""

import gc
import itertools
import threading
import time
import traceback
from collections.abc import Iterator

import pytest

from data_pipeline.prefetch import Prefetch


def _threads() -> set[threading.Thread]:
    """Those of other tests as well, which may still be ending."""
    return {thread for thread in threading.enumerate() if thread.name == "prefetch"}


def _wait_until_only(before: set[threading.Thread]) -> None:
    deadline = time.monotonic() + 60
    while _threads() - before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not _threads() - before


def test_items_come_in_order_and_end() -> None:
    before = _threads()
    assert list(Prefetch(iter(range(50)), 3)) == list(range(50))
    _wait_until_only(before)


def test_no_more_than_depth_are_made_ahead() -> None:
    made: list[int] = []
    items = Prefetch((made.append(n) or n for n in itertools.count()), 3)  # type: ignore[func-returns-value]
    assert next(items) == 0
    time.sleep(0.05)
    items.close()
    assert len(made) <= 1 + 3 + 1, "one taken, three waiting, one in the hand"


def test_an_error_comes_after_the_items_with_the_threads_traceback() -> None:
    def broken() -> Iterator[int]:
        yield 7
        raise OSError("the disk is gone")

    items = Prefetch(broken(), 3)
    assert next(items) == 7
    for _ in range(2):  # and again, rather than waiting for ever
        with pytest.raises(OSError, match="the disk is gone") as caught:
            next(items)
        assert "broken" in [frame.name for frame in traceback.extract_tb(caught.tb)]


def test_closing_or_forgetting_ends_the_thread() -> None:
    before = _threads()
    closed, forgotten = Prefetch(itertools.count(), 2), Prefetch(itertools.count(), 2)
    assert len(_threads() - before) == 2
    closed.close()
    closed.close()
    assert len(_threads() - before) == 1
    with pytest.raises(StopIteration):
        next(closed)
    del forgotten
    gc.collect()
    _wait_until_only(before)


def test_the_wait_is_measured() -> None:
    waiting, ended = list[float](), list[float]()
    is_waited_for = threading.Event()

    def noted(_: float) -> None:
        waiting.append(time.perf_counter())
        is_waited_for.set()

    def slow() -> Iterator[int]:
        assert is_waited_for.wait(60)
        time.sleep(0.05)
        ended.append(time.perf_counter())
        yield 1

    items = Prefetch(slow(), 1, patience_s=0.01, stalled=noted)
    begin = time.perf_counter()
    next(items)
    assert 0.05 <= ended[0] - waiting[0] <= items.wait_s <= time.perf_counter() - begin
