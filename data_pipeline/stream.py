"""What a trainer iterates: order -> plan -> read -> transform -> pack, ahead of time in a thread.

Every rank computes the same order and the same plan and reads only its own share. Python's threads
are enough: reading is slicing a memory map or waiting for a server, and NumPy and PyTorch release
the interpreter's lock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import BadSampleError, Clip
from data_pipeline.errors import UserError
from data_pipeline.order import Order, StreamState
from data_pipeline.packing import Example, PackedBatch, TargetSpec, pack
from data_pipeline.plan import check_budget, divide
from data_pipeline.prefetch import Prefetch
from data_pipeline.quarantine import Quarantine

Transform: TypeAlias = Callable[[Clip, int, int], Example]
"""(clip, sample number, epoch) -> example; draws only on (seed, epoch, sample)."""


class Samples(Protocol):
    """Numbered clips: a `Split` of a dataset, or a `Subset` of one."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def shard_sizes(self) -> NDArray[np.int64]:
        """int64 (K,), samples of each shard; numbers run through the shards in turn."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""

    @property
    def readers(self) -> int:
        """How many threads read best: more than one where every clip is asked for at a server."""

    def __len__(self) -> int: ...

    def read(self, sample: int) -> Clip:
        """The clip of this number, or a BadSampleError."""

    def location(self, sample: int) -> tuple[str, str]:
        """Name of the shard and key of a sample, for messages."""


class SampleLengths(Protocol):
    """How many tokens each sample has."""

    @property
    def longest(self) -> int:
        """No sequence is longer, in tokens."""

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some samples; both int64 (n,)."""


@dataclass(frozen=True)
class Placement:
    """Which of the processes this is.

    Attributes:
        rank: from 0.
        ranks: how many there are.
    """

    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True)
class BatchMaker:
    """Sample numbers -> packed micro-batches of one rank.

    Attributes:
        split: where the clips come from.
        transform: makes the examples.
        specs: form of each objective's targets.
        face_dim, speech_dim: columns of the rows.
        lengths: tokens of each sample.
        token_budget: most tokens of a micro-batch.
        placement: this rank.
        quarantine: takes the samples that cannot be used.
    """

    split: Samples
    transform: Transform
    specs: Mapping[str, TargetSpec]
    face_dim: int
    speech_dim: int
    lengths: SampleLengths
    token_budget: int
    placement: Placement
    quarantine: Quarantine

    def micro_batches(
        self, samples: NDArray[np.int64], epochs: NDArray[np.int64]
    ) -> Iterator[PackedBatch]:
        """This rank's share of a global batch, (B,) samples each in its epoch.

        All ranks get the same number of micro-batches, whatever they can read.
        """
        plan = divide(self.lengths.of(samples), self.placement.ranks, self.token_budget)
        for chosen in plan[self.placement.rank]:
            numbers = samples[chosen].tolist()
            clips = zip(self._read(numbers), numbers, epochs[chosen].tolist(), strict=True)
            examples = [self._example(clip, sample, epoch) for clip, sample, epoch in clips]
            usable = [example for example in examples if example is not None]
            yield pack(usable, self.specs, self.face_dim, self.speech_dim)

    def _read(self, samples: Sequence[int]) -> Iterator[Clip | BadSampleError]:
        """Their clips in order, or what is wrong with them."""
        if self.split.readers == 1:
            yield from map(self._read_one, samples)
            return
        with ThreadPoolExecutor(self.split.readers) as pool:
            yield from pool.map(self._read_one, samples)

    def _read_one(self, sample: int) -> Clip | BadSampleError:
        try:
            return self.split.read(sample)
        except BadSampleError as error:
            return error

    def _example(self, clip: Clip | BadSampleError, sample: int, epoch: int) -> Example | None:
        """One example; None, and a line in the quarantine, if the sample is bad."""
        try:
            if isinstance(clip, BadSampleError):
                raise clip
            example = self.transform(clip, sample, epoch)
            if not example.tokens:
                raise BadSampleError("", "has no modality")
        except BadSampleError as error:
            shard, key = self.split.location(sample)
            self.quarantine.add(shard, key, error.member, error.reason)
            return None
        return example


@dataclass(frozen=True)
class Step:
    """The data of one optimizer step.

    Attributes:
        micro_batches: this rank's, at least one; possibly empty ones.
        samples: of the global batch.
        state_after: where the stream stands when this step is done.
    """

    micro_batches: tuple[PackedBatch, ...]
    samples: int
    state_after: StreamState


class TrainStream:
    """Endless steps from a state on, prepared ahead in a thread.

    A context manager; leaving it, or `close`, ends the thread.

    Args:
        maker: makes this rank's micro-batches.
        state: where to begin.
        global_batch: samples of a step over all ranks.
        prefetch: steps prepared ahead.

    Raises:
        UserError: a state of other data, a token budget that the longest sequence does not fit
            into, a global batch smaller than the number of ranks, or fewer samples than ranks.
    """

    def __init__(
        self, maker: BatchMaker, state: StreamState, global_batch: int, prefetch: int = 4
    ) -> None:
        state.check(state.seed, maker.split.fingerprint)
        check_budget(maker.lengths.longest, maker.token_budget)
        check_ranks(maker, global_batch)
        self._steps = Prefetch(_steps(maker, state, global_batch), prefetch)

    @property
    def wait_s(self) -> float:
        """How long the last step was waited for, in seconds."""
        return self._steps.wait_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Step:
        """The next step; an exception of the thread is raised here."""
        return next(self._steps)

    def close(self) -> None:
        """End the thread and wait for it."""
        self._steps.close()


def _steps(maker: BatchMaker, state: StreamState, global_batch: int) -> Iterator[Step]:
    """All steps from a state on."""
    order = Order(state.seed, maker.split.shard_sizes)
    while True:
        first = state.position(len(order))
        positions = np.arange(first, first + global_batch)  # (B,)
        batches = maker.micro_batches(order.samples(positions), positions // len(order))
        state = state.advance(global_batch, len(order))
        yield Step(tuple(batches), global_batch, state)


def eval_batches(maker: BatchMaker, block: int = 64) -> Iterator[PackedBatch]:
    """Every sample of the split once over all ranks, in order, in epoch 0.

    Args:
        maker: makes this rank's micro-batches; all ranks get the same number of them.
        block: samples planned together for each rank.
    """
    step = block * maker.placement.ranks
    for first in range(0, len(maker.split), step):
        samples = np.arange(first, min(first + step, len(maker.split)))
        yield from maker.micro_batches(samples, np.zeros_like(samples))


def check_ranks(maker: BatchMaker, global_batch: int) -> None:
    """Make sure that every rank has work.

    Raises:
        UserError: fewer samples, or a smaller global batch, than ranks.
    """
    ranks, samples = maker.placement.ranks, len(maker.split)
    if samples < ranks:
        raise UserError(
            f"{ranks} ranks, but split {maker.split.name!r} has only {samples} samples; start "
            "fewer ranks"
        )
    if global_batch < ranks:
        raise UserError(
            f"batch.global_batch={global_batch} is less than the number of ranks, {ranks}; raise "
            "it, or start fewer ranks"
        )
