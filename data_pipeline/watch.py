"""What a loader is doing, so that one that stalls can say where."""

import mmap
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_pipeline.shards.remote import Traffic

NOTE = np.dtype([("stage", "S32"), ("sample", np.int64), ("since", np.float64)])
"""What a process says that it does; sample -1 is none in particular."""


class Activity:
    """The stage that a loader is in, told by its thread and asked for by another.

    Args:
        clock: seconds that only grow.

    Attributes:
        bytes_read: of the clips that it has had so far.
        traffic: of processes that read for it.
        notes: `NOTE`s that such processes write.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_read = 0
        self.traffic = Traffic()
        self.notes: NDArray[np.void] = np.zeros(0, dtype=NOTE)
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
        told = [self._tell(*self._now, shard_of)]
        for stage, sample, since in self.notes.tolist():
            told.append(self._tell(stage.decode(), None if sample < 0 else sample, since, shard_of))
        return "; a process is ".join(told)

    def _tell(
        self, stage: str, sample: int | None, since: float, shard_of: Callable[[int], str]
    ) -> str:
        where = "" if sample is None else f" sample {sample} of {shard_of(sample)}"
        return f"{stage}{where} ({self._clock() - since:.0f} s)"

    def share_notes(self, count: int) -> None:
        """Let so many processes that are forked from now on write notes that are seen here."""
        memory = mmap.mmap(-1, count * NOTE.itemsize)
        self.notes = np.frombuffer(memory, dtype=NOTE)
        self.notes[:] = [("starting", -1, self._clock())] * count


class NotedActivity(Activity):
    """The activity of a process, which another one sees.

    Args:
        notes: of all processes, in shared memory.
        number: of this one.
    """

    def __init__(self, notes: NDArray[np.void], number: int) -> None:
        super().__init__()
        self._notes = notes
        self._number = number

    def begins(self, stage: str, sample: int | None = None) -> None:
        """A stage begins; see the base class."""
        self._notes[self._number] = (stage, -1 if sample is None else sample, self._clock())
