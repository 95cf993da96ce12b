"""What a loader is doing, so that one that stalls can say where.

Two of these are told for every sample that is read, so that telling must cost a microsecond: names
of shards are looked up when somebody asks.
"""

import mmap
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.shards.remote import Traffic

NOTE = np.dtype([("what", "S64"), ("since", np.float64), ("sample", np.int64)])
"""What a process says that it does, cut off at so many bytes; see `Task`."""


class Task(NamedTuple):
    """Something that is done.

    Attributes:
        what: e.g. "reading".
        since: when it began, in seconds of the clock.
        sample: to this one; -1 to none in particular.
    """

    what: str
    since: float
    sample: int = -1


class Work:
    """What threads are at, told by each of them and asked for by another.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # In the order in which they began. Single operations on a dict need no lock.
        self._tasks: dict[int, Task] = {}

    def on(self, what: str, sample: int = -1) -> "_Doing":
        """This thread is at something as long as the context lasts."""
        return _Doing(self._tasks, Task(what, self._clock(), sample))

    def oldest(self) -> Task | None:
        """What has gone on for longest; None if nothing goes on."""
        return next(iter(list(self._tasks.values())), None)


class _Doing:
    """A context, without a generator, which would cost five times as much."""

    __slots__ = ("_task", "_tasks")

    def __init__(self, tasks: dict[int, Task], task: Task) -> None:
        self._tasks = tasks
        self._task = task

    def __enter__(self) -> None:
        self._tasks[id(self)] = self._task

    def __exit__(self, *error: object) -> None:
        del self._tasks[id(self)]


class Activity:
    """What a loader is at: its stage, and the work of its threads on single samples.

    Args:
        clock: seconds that only grow.

    Attributes:
        bytes_read: of the clips' rows and images that came, by the thread that makes examples.
        traffic: of processes that read for it.
        notes: what each of those does, `NOTE` (processes,); written by them, read here.
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

    def on(self, what: str, sample: int) -> _Doing:
        """A thread of the loader is at something with a sample; see `Work`."""
        return self._work.on(what, sample)

    def describe(self, shard_of: Callable[[int], str], also: Task | None = None) -> str:
        """What is done, and since when: "reading sample 3 of a.tar (7 s); fetching b.tar (2 s)".

        The stage is told only if no work is under way in it.

        Args:
            shard_of: name of the shard of a sample.
            also: done for the loader by others.
        """
        told = [self._tell(self._work.oldest() or self._stage, shard_of)]
        if also is not None:
            told.append(self._tell(also, shard_of))
        for what, since, sample in self.notes.tolist():
            task = Task(what.decode(errors="replace"), since, sample)
            told.append(f"a process is {self._tell(task, shard_of)}")
        return "; ".join(told)

    def _tell(self, task: Task, shard_of: Callable[[int], str]) -> str:
        where = "" if task.sample < 0 else f" sample {task.sample} of {shard_of(task.sample)}"
        return f"{task.what}{where} ({self._clock() - task.since:.0f} s)"

    def share_notes(self, count: int) -> None:
        """Let so many processes that are forked from now on write notes that are seen here."""
        memory = mmap.mmap(-1, count * NOTE.itemsize)
        self.notes = np.frombuffer(memory, dtype=NOTE)
        self.notes[:] = [(b"starting", self._clock(), -1)] * count


class NotedActivity(Activity):
    """That of a process, told to the one it works for: what it has begun last.

    Args:
        notes: `Activity.notes` of that process.
        number: of this process among its siblings.
    """

    def __init__(self, notes: NDArray[np.void], number: int) -> None:
        super().__init__()
        self._notes = notes
        self._number = number

    def begins(self, stage: str) -> None:
        """A stage begins; see the base class."""
        self._notes[self._number] = (stage.encode(), self._clock(), -1)

    def on(self, what: str, sample: int) -> _Doing:
        """A thread is at something; see the base class."""
        self._notes[self._number] = (what.encode(), self._clock(), sample)
        return super().on(what, sample)
