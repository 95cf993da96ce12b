"""The scout: everything before a position is fetched, in order, and not much more."""

from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline import scout as module
from data_pipeline.errors import UserError
from data_pipeline.order import Order
from data_pipeline.scout import Scout

ORDER = Order(3, np.array([4, 5, 6]))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "AHEAD", 2)


def test_what_comes_before_a_position_is_there_and_little_more() -> None:
    fetched: list[int] = []
    far = Event()

    def fetch(samples: NDArray[np.int64]) -> None:
        fetched.extend(samples.tolist())
        if len(fetched) > 5 + 8:
            far.set()

    scout = Scout(fetch, ORDER, 7)
    scout.wait_for(12)
    assert len(fetched) >= 12 - 7
    assert far.wait(60)
    so_far = fetched.copy()  # the scout may still be going on
    expected = ORDER.visits(np.arange(7, 7 + len(so_far))).samples
    assert so_far == expected.tolist()
    assert len(so_far) <= 4 * (2 + 2 + 1)  # taken, waiting to be taken, and in the making


def test_what_cannot_be_fetched_is_said_when_it_is_wanted() -> None:
    def fetch(samples: NDArray[np.int64]) -> None:
        if 2 in samples:
            raise UserError("no such shard")

    scout = Scout(fetch, ORDER, 0)
    with pytest.raises(UserError, match="no such shard"):
        scout.wait_for(15)


def test_an_abandoned_scout_is_not_waited_for() -> None:
    begun, go_on = Event(), Event()

    def fetch(_: NDArray[np.int64]) -> None:
        begun.set()
        go_on.wait(60)

    scout = Scout(fetch, ORDER, 0)
    assert begun.wait(60)
    scout.abandon()
    scout.wait_for(1)  # comes back, though nothing was fetched
    go_on.set()
