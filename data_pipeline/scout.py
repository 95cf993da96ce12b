"""Fetching the shards that come next while others are trained on."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from data_pipeline.order import WINDOW_SAMPLES, SampleOrder
from data_pipeline.prefetch import Prefetch

BLOCK = 1024
"""Positions that are looked at together; fewer at the beginning, when the first step waits."""

FIRST_BLOCK = 64

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
        """Until all samples before this position are near, or the scout is abandoned.

        Raises:
            UserError: one cannot be had.
        """
        while self._reached < position:
            try:
                self._reached = next(self._blocks)
            except StopIteration:
                return

    def abandon(self) -> None:
        """Nobody waits any more; what is being fetched is not waited for."""
        self._blocks.abandon()


def _fetched(
    fetch: Callable[[NDArray[np.int64]], None], order: SampleOrder, first: int
) -> Iterator[int]:
    """Fetch block by block; the position after each."""
    size = min(FIRST_BLOCK, BLOCK)
    while True:
        fetch(order.visits(np.arange(first, first + size)).samples)
        first += size
        yield first
        size = min(2 * size, BLOCK)
