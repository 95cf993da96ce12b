"""Fetching the shards that come next while others are trained on."""

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

from data_pipeline.order import WINDOW_SAMPLES, SampleOrder
from data_pipeline.prefetch import Prefetch

BLOCK = 1024
"""Positions that are looked at together."""

AHEAD = WINDOW_SAMPLES // 2 // BLOCK
"""Blocks that the scout is ahead: the shards of a window are fetched while half of the one before
is trained on."""


class Scout:
    """Goes through the order ahead of the training, in a thread, and has its samples fetched.

    Args:
        fetch: brings some samples, int64 (n,), near; must not refer to this object.
        order: of the samples.
        first: position to begin at.
    """

    def __init__(
        self, fetch: Callable[[NDArray[np.int64]], None], order: SampleOrder, first: int
    ) -> None:
        self._reached = first
        self._blocks = Prefetch(_fetched(fetch, order, first), AHEAD)

    def wait_for(self, position: int) -> None:
        """Until all samples before this position are near.

        Raises:
            UserError: one cannot be had.
        """
        while self._reached < position:
            self._reached = next(self._blocks)


def _fetched(
    fetch: Callable[[NDArray[np.int64]], None], order: SampleOrder, first: int
) -> Iterator[int]:
    """Fetch block by block; the position after each."""
    for begin in count(first, BLOCK):
        fetch(order.visits(np.arange(begin, begin + BLOCK)).samples)
        yield begin + BLOCK
