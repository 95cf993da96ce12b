"""What a step of a system sees: micro-batches of one task each, from a stream a task."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch

from data_pipeline.order import StreamState
from data_pipeline.packing import PackedBatch
from data_pipeline.stream import DIGEST, BatchMaker, StepSize, TrainStream

Sampling = Literal["all", "alternating", "uniform", "proportional", "episodes"]


@dataclass(frozen=True)
class TaskBatch:
    """Texts of one task.

    Attributes:
        task: its number.
        texts: S of them.
        labelled: whether their labels are known.
        counts: loss -> what its sum is to be divided by.
    """

    task: int
    texts: PackedBatch
    labelled: bool
    counts: Mapping[str, int]

    @property
    def tokens(self) -> int:
        """Words or pieces."""
        return self.texts.tokens

    def count(self, name: str) -> int:
        """Of a loss that this batch has no part in, 0."""
        return self.counts.get(name, 0)

    def to(self, device: torch.device) -> Self:
        """The batch with every tensor on a device."""
        return replace(self, texts=self.texts.to(device))


@dataclass(frozen=True)
class JointBatch:
    """Batches of several tasks that are read at once.

    Attributes:
        parts: one or more.
    """

    parts: tuple[TaskBatch, ...]

    @property
    def tokens(self) -> int:
        """Words or pieces."""
        return sum(one.tokens for one in self.parts)

    def count(self, name: str) -> int:
        """Of a loss, over all parts."""
        return sum(one.count(name) for one in self.parts)

    def to(self, device: torch.device) -> Self:
        """The batches with every tensor on a device."""
        return replace(self, parts=tuple(one.to(device) for one in self.parts))


def join_batches(
    batches: Sequence[TaskBatch], largest: Sequence[int], token_budget: int
) -> list[JointBatch]:
    """Neighbours that fit into a token budget together; as many joint batches on all ranks.

    Args:
        batches: of a step, on this rank.
        largest: of each task, the most tokens that a batch of it has on any rank.
        token_budget: of a joint batch of several.
    """
    joined: list[list[TaskBatch]] = []
    room = 0
    for one in batches:
        if not joined or largest[one.task] > room:
            joined.append([])
            room = token_budget
        joined[-1].append(one)
        room -= largest[one.task]
    return [JointBatch(tuple(parts)) for parts in joined]


@dataclass(frozen=True)
class Drawn:
    """A task's share of a step.

    Attributes:
        task: its number.
        batches: this rank's micro-batches; all ranks have the same number of them.
        labelled: whether their labels are known.
        digest: of the share, see `Step`.
    """

    task: int
    batches: tuple[PackedBatch, ...]
    labelled: bool
    digest: int


def digest_of(drawn: Sequence[Drawn]) -> int:
    """Of a whole step, in as many bits as that of a share."""
    return sum(one.digest for one in drawn) & DIGEST


def steps_of_epoch(sizes: Sequence[int], global_batch: int, sampling: Sampling) -> int:
    """Steps in which the largest task, or, where a step is of one task, all are seen once.

    Args:
        sizes: of each task, how many texts are trained on.
        global_batch: see `TaskStreams`.
        sampling: likewise.
    """
    texts = max(sizes) if sampling in ("all", "episodes") else sum(sizes)
    return max(round(texts / global_batch), 1)


class TaskStreams:
    """Endless steps over several tasks; a context manager.

    Every task has a stream of its own, so that its order is that of its own clips, whatever the
    others are.

    Args:
        labelled: of each task, what makes its batches.
        unlabelled: of each task, likewise, or None; they come along with the labelled ones.
        global_batch: texts of a task's share of a step, over all ranks.
        sampling: `all`: a share of every task; else of one: `alternating` in turn, `uniform` and
            `proportional` (to the number of texts) drawn; `episodes`: a share of one task, in turn,
            and then `outer` shares of each other one.
        seed: of order and draw.
        outer: see `episodes`.
        begin: the step to begin at.

    Raises:
        UserError: see `TrainStream`.
    """

    def __init__(
        self,
        labelled: Sequence[BatchMaker],
        unlabelled: Sequence[BatchMaker | None],
        global_batch: int,
        sampling: Sampling,
        seed: int,
        outer: int = 1,
        begin: int = 0,
    ) -> None:
        self._sampling = sampling
        self._outer = outer
        self._seed = seed
        self._sizes = [len(maker.split) for maker in labelled]
        self._batch = global_batch
        taken = Counter(task for step in range(begin) for task in self._tasks(step))
        self._open = ExitStack()
        with ExitStack() as opening:
            self._labelled = [
                opening.enter_context(self._stream(maker, taken[task]))
                for task, maker in enumerate(labelled)
            ]
            self._unlabelled = [
                None if maker is None else opening.enter_context(self._stream(maker, taken[task]))
                for task, maker in enumerate(unlabelled)
            ]
            self._open = opening.pop_all()

    def _stream(self, maker: BatchMaker, taken: int) -> TrainStream:
        """A task's texts, behind the shares of so many steps."""
        start = StreamState.start(self._seed, maker.split.fingerprint)
        state = start.advance(taken * self._batch, len(maker.split))
        return TrainStream(maker, state, StepSize(self._batch), prefetch=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def step(self, number: int) -> list[Drawn]:
        """The shares of a step, from 0; they are to be taken in turn."""
        drawn = []
        for task in self._tasks(number):
            own, others = next(self._labelled[task]), self._unlabelled[task]
            drawn.append(Drawn(task, own.micro_batches, labelled=True, digest=own.digest))
            if others is not None:
                more = next(others)
                drawn.append(Drawn(task, more.micro_batches, labelled=False, digest=more.digest))
        return drawn

    def _tasks(self, number: int) -> list[int]:
        tasks = len(self._sizes)
        if self._sampling == "all":
            return list(range(tasks))
        turn = number % tasks
        if self._sampling == "alternating":
            return [turn]
        if self._sampling == "episodes":
            others = [task for task in range(tasks) if task != turn]
            return [turn, *others * self._outer]
        rng = np.random.default_rng((self._seed, number))
        shares = np.array(self._sizes, dtype=np.float64)
        even = self._sampling == "uniform"
        return [int(rng.choice(tasks, p=None if even else shares / shares.sum()))]
