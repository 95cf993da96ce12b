"""What a loader is doing, so that one that stalls can say where."""

import mmap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.shards.remote import Traffic

NOTE = np.dtype([("what", "S300"), ("since", np.float64)])
"""What a process says that it does, with the name of a shard, cut off at so many bytes."""


class Task(NamedTuple):
    """Something that is done, e.g. "reading sample 3 of a.tar", and since when."""

    what: str
    since: float


class Work:
    """What threads are at, told by each of them and asked for by another.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tasks: dict[int, Task] = {}  # in the order in which they began

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """This thread is at something as long as the context lasts."""
        task = Task(what, self._clock())
        with self._lock:
            self._tasks[id(task)] = task
        try:
            yield
        finally:
            with self._lock:
                del self._tasks[id(task)]

    def oldest(self) -> Task | None:
        """What has gone on for longest; None if nothing goes on."""
        with self._lock:
            return next(iter(self._tasks.values()), None)


class Activity:
    """What a loader is at: its stage, and the work of its threads on single samples.

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
        self._work = Work(clock)
        self._stage = Task("starting", clock())

    def begins(self, stage: str) -> None:
        """A stage of the loader begins, e.g. "planning a step", and the one before is over."""
        self._stage = Task(stage, self._clock())  # one assignment, so that it is seen whole

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """A thread of the loader is at something; see `Work`."""
        with self._work.on(what):
            yield

    def describe(self, also: Task | None = None) -> str:
        """What is done, and since when: "reading sample 3 of a.tar (7 s); fetching b.tar (2 s)".

        The stage is told only if no work is under way in it.

        Args:
            also: done for the loader by others.
        """
        told = [self._tell(self._now())]
        if also is not None:
            told.append(self._tell(also))
        for what, since in self.notes.tolist():
            told.append("a process is " + self._tell(Task(what.decode(errors="replace"), since)))
        return "; ".join(told)

    def _now(self) -> Task:
        """The oldest work that goes on, or the stage."""
        return self._work.oldest() or self._stage

    def _tell(self, task: Task) -> str:
        return f"{task.what} ({self._clock() - task.since:.0f} s)"

    def share_notes(self, count: int) -> None:
        """Let so many processes that are forked from now on write notes that are seen here."""
        memory = mmap.mmap(-1, count * NOTE.itemsize)
        self.notes = np.frombuffer(memory, dtype=NOTE)
        self.notes[:] = [(b"starting", self._clock())] * count


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

    def begins(self, stage: str) -> None:
        """A stage begins; see the base class."""
        super().begins(stage)
        self._note()

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """A thread is at something; see the base class."""
        with super().on(what):
            self._note()
            yield
        self._note()

    def _note(self) -> None:
        what, since = self._now()
        self._notes[self._number] = (what.encode(), since)
