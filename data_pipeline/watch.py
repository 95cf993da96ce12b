"""What a loader is doing, so that one that stalls can say where."""

import time
from collections.abc import Callable


class Activity:
    """The stage that a loader is in, told by its thread and asked for by another.

    Args:
        clock: seconds that only grow.

    Attributes:
        bytes_read: of the clips that it has had so far.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_read = 0
        self._clock = clock
        self._now: tuple[str, int | None, float] = ("starting", None, clock())

    def begins(self, stage: str, sample: int | None = None) -> None:
        """A stage begins.

        Args:
            stage: what is done, e.g. "reading".
            sample: to this one; None to none in particular.
        """
        self._now = (stage, sample, self._clock())  # one assignment, so that it is seen whole

    def describe(self, shard_of: Callable[[int], str]) -> str:
        """The stage, its sample and shard, and since when: "reading sample 3 of a.tar (7 s)".

        Args:
            shard_of: name of the shard of a sample.
        """
        stage, sample, since = self._now
        where = "" if sample is None else f" sample {sample} of {shard_of(sample)}"
        return f"{stage}{where} ({self._clock() - since:.0f} s)"
