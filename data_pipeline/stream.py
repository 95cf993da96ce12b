"""What a trainer iterates: order -> plan -> read -> transform -> pack, ahead of time in a thread.

Every rank computes the same order and the same plan and reads only its own share. On a CPU the
thread is enough. A GPU is faster than one interpreter makes batches, and its own thread wants it
too: then processes do all that follows the plan (`BatchMaker.workers`), to the same batches.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from data_pipeline.clip import BadSampleError, Clip
from data_pipeline.errors import UserError
from data_pipeline.order import SampleOrder, StreamState, Visits
from data_pipeline.packing import Example, PackedBatch, TargetSpec, pack
from data_pipeline.plan import check_budget, divide, fill
from data_pipeline.prefetch import Prefetch
from data_pipeline.quarantine import BadSample, Notes, Quarantine
from data_pipeline.scout import Scout
from data_pipeline.shards.remote import Traffic
from data_pipeline.watch import Activity, NotedActivity, Task
from data_pipeline.workers import Workers

STALL_S = 30.0
"""Seconds of waiting for a step after which a warning says what the loader is doing."""

EVAL_AHEAD = 2
"""Micro-batches of an evaluation that are made ahead."""

DIGEST = 2**20 - 1
"""Bits of a step's digest, few enough for the sum of its squares over many ranks to be exact."""

_log = logging.getLogger(__name__)

Transform: TypeAlias = Callable[[Clip, int, int], Example]
"""(clip, sample number, epoch) -> example; draws only on (seed, epoch, sample)."""


class Samples(Protocol):
    """Numbered clips: a `Split` of a dataset, or a `Subset` of one."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""

    @property
    def readers(self) -> int:
        """How many threads read best: more than one where every clip is asked for at a server."""

    @property
    def is_remote(self) -> bool:
        """Whether some of them lie on a server."""

    @property
    def traffic(self) -> Traffic:
        """What reading them has cost so far, where they lie on a server."""

    @property
    def oldest_work(self) -> Task | None:
        """What fetching or opening a shard, or counting its texts, has gone on for longest."""

    def __len__(self) -> int: ...

    def order(self, seed: int) -> SampleOrder:
        """In which they are trained on."""

    def fetch(self, samples: NDArray[np.int64]) -> None:
        """Have what is needed to read some samples on this machine, as far as it is kept there."""

    def read(self, sample: int) -> Clip:
        """The clip of this number, or a BadSampleError."""

    def shard_of(self, sample: int) -> str:
        """Name of the shard of a sample; nothing is read for it."""

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
        workers: processes that make the micro-batches of a `TrainStream`; 0: its thread does.
        activity: is told what is being done.
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
    workers: int = 0
    activity: Activity = field(default_factory=Activity)

    @property
    def traffic(self) -> Traffic:
        """What reading has cost so far, in all processes of this rank."""
        return self.split.traffic + self.activity.traffic

    def divided(self, visits: Visits) -> Iterator[PackedBatch]:
        """This rank's share of a global batch.

        All ranks get the same number of micro-batches, whatever they can read.
        """
        self.activity.begins("planning a batch")
        plan = divide(self.lengths.of(visits.samples), self.placement.ranks, self.token_budget)
        return self.packed(visits, plan[self.placement.rank])

    def packed(self, visits: Visits, share: Sequence[NDArray[np.int64]]) -> Iterator[PackedBatch]:
        """The micro-batches of a share of a global batch, indices into it each."""
        for chosen in share:
            yield self.make(Visits(visits.samples[chosen], visits.epochs[chosen]))

    def make(self, visits: Visits) -> PackedBatch:
        """The micro-batch of these samples, without the bad ones."""
        self.activity.begins("making a micro-batch")
        numbers = visits.samples.tolist()
        clips = zip(self._read(numbers), numbers, visits.epochs.tolist(), strict=True)
        examples = [self._example(clip, sample, epoch) for clip, sample, epoch in clips]
        usable = [example for example in examples if example is not None]
        self.activity.begins("packing")
        return pack(usable, self.specs, self.face_dim, self.speech_dim)

    def _read(self, samples: Sequence[int]) -> Iterator[Clip | BadSampleError]:
        """Their clips in order, or what is wrong with them."""
        if self.split.readers == 1:
            yield from map(self._read_one, samples)
            return
        with ThreadPoolExecutor(self.split.readers) as pool:
            yield from pool.map(self._read_one, samples)

    def _read_one(self, sample: int) -> Clip | BadSampleError:
        try:
            with self.activity.on("reading", sample):
                return self.split.read(sample)
        except BadSampleError as error:
            return error

    def _example(self, clip: Clip | BadSampleError, sample: int, epoch: int) -> Example | None:
        """One example; None, and a line in the quarantine, if the sample is bad."""
        try:
            if isinstance(clip, BadSampleError):
                raise clip
            self.activity.bytes_read += clip.nbytes
            with self.activity.on("transforming", sample):
                example = self.transform(clip, sample, epoch)
            if not example.tokens:
                raise BadSampleError("", "has no modality")
        except BadSampleError as error:
            shard, key = self.split.location(sample)
            self.quarantine.add(shard, key, error.member, error.reason)
            return None
        return example


@dataclass(frozen=True)
class StepSize:
    """What a step sees, over all ranks; the same whatever their number.

    Attributes:
        samples: so many; not heeded where micro-batches are asked for.
        micro_batches: as many samples as fill so many micro-batches, a multiple of the number of
            ranks; 0: `samples`.
    """

    samples: int
    micro_batches: int = 0


@dataclass(frozen=True)
class Step:
    """The data of one optimizer step.

    Attributes:
        micro_batches: this rank's, at least one; possibly empty ones.
        samples: int64 (B,), numbers of the global batch's.
        state_after: where the stream stands when this step is done.
        digest: of 20 bits, of the samples and their lengths: other ones on a rank mean other data.
    """

    micro_batches: tuple[PackedBatch, ...]
    samples: NDArray[np.int64]
    state_after: StreamState
    digest: int


class TrainStream:
    """Endless steps from a state on, prepared ahead in a thread.

    A context manager; leaving it, or `close`, ends the thread.

    Args:
        maker: makes this rank's micro-batches.
        state: where to begin.
        size: of a step.
        prefetch: steps prepared ahead.

    Raises:
        UserError: a state of other data, a token budget that the longest sequence does not fit
            into, a size that the ranks cannot share, or fewer samples than ranks.
    """

    def __init__(
        self, maker: BatchMaker, state: StreamState, size: StepSize, prefetch: int = 4
    ) -> None:
        state.check(state.seed, maker.split.fingerprint)
        check_budget(maker.lengths.longest, maker.token_budget)
        check_ranks(maker, size)
        order = maker.split.order(state.seed)
        first = state.position(len(maker.split))
        self._workers = _fork(maker) if maker.workers else None  # before there are other threads
        self._scout = Scout(maker.split.fetch, order, first) if maker.split.is_remote else None
        plans = _plans(maker, order, state, size, self._scout)
        steps = _steps_by(self._workers, maker, plans) if self._workers else _steps(maker, plans)
        stalled = partial(_say_where, maker.activity, maker.split)
        self._steps = Prefetch(steps, prefetch, STALL_S, stalled)

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
        if self._scout is not None:
            self._scout.abandon()
        if self._workers is not None:
            self._workers.end()  # the thread may be waiting for them
        self._steps.close()
        if self._workers is not None:
            self._workers.close()


def _say_where(activity: Activity, split: Samples, waited_s: float) -> None:
    """Warn of a loader that stalls; by its parts, so that the stream itself can be forgotten."""
    doing = activity.describe(split.shard_of, split.oldest_work)
    _log.warning("waited %.0f s for data of %s; the loader is %s", waited_s, split.name, doing)


class _Plan(NamedTuple):
    """A step before its micro-batches are made; see `Step`.

    Attributes:
        visits: of the global batch.
        share: this rank's micro-batches, indices into it each.
    """

    visits: Visits
    share: Sequence[NDArray[np.int64]]
    state_after: StreamState
    digest: int

    def step(self, batches: Iterable[PackedBatch]) -> Step:
        """The step with its micro-batches."""
        return Step(tuple(batches), self.visits.samples, self.state_after, self.digest)


def _plans(
    maker: BatchMaker, order: SampleOrder, state: StreamState, size: StepSize, scout: Scout | None
) -> Iterator[_Plan]:
    """Of all steps from a state on."""
    total = len(maker.split)
    take = _filled if size.micro_batches else _divided
    while True:
        first = state.position(total)
        if scout is not None:
            maker.activity.begins("waiting for shards")
            scout.wait_for(first + 1)
        maker.activity.begins("planning a step")
        visits, lengths, share = take(maker, order, first, size)
        state = state.advance(len(visits.samples), total)
        digest = crc32(np.concatenate([visits.samples, lengths]).tobytes()) & DIGEST
        yield _Plan(visits, share, state, digest)


def _steps(maker: BatchMaker, plans: Iterable[_Plan]) -> Iterator[Step]:
    """The steps of some plans, made here."""
    for plan in plans:
        yield plan.step(maker.packed(plan.visits, plan.share))


class _Made(NamedTuple):
    """A micro-batch from another process, and what making it has met with and cost.

    Attributes:
        batch: the micro-batch.
        bad: the samples that it lacks.
        bytes_read: of its clips.
        traffic: that it took; see `Traffic.amounts`. What it finds in the cache is no hit, for it
            may have been fetched ahead for it.
    """

    batch: PackedBatch
    bad: Sequence[BadSample]
    bytes_read: int
    traffic: Mapping[str, float]


def _fork(maker: BatchMaker) -> Workers[Visits, _Made]:
    """The processes that make micro-batches as this maker does."""
    maker.activity.share_notes(maker.workers)

    def make(visits: Visits, number: int) -> _Made:
        notes, activity = Notes(), NotedActivity(maker.activity.notes, number)
        before = maker.split.traffic.amounts()
        batch = replace(maker, quarantine=notes, activity=activity).make(visits)
        activity.begins("waiting for work")
        after = maker.split.traffic.amounts()
        traffic = {name: after[name] - before[name] for name in after if name != "hits"}
        return _Made(batch, notes.noted, activity.bytes_read, traffic)

    return Workers(make, maker.workers)


def _steps_by(
    workers: Workers[Visits, _Made], maker: BatchMaker, plans: Iterable[_Plan]
) -> Iterator[Step]:
    """The steps of some plans, made by processes."""
    begun: deque[_Plan] = deque()

    def tasks() -> Iterator[Visits]:
        for plan in plans:
            begun.append(plan)
            for chosen in plan.share:
                yield Visits(plan.visits.samples[chosen], plan.visits.epochs[chosen])
            maker.activity.begins("waiting for its processes")

    batches = (_received(maker, one) for one in workers.map(tasks()))
    for first in batches:
        plan = begun.popleft()
        yield plan.step([first, *islice(batches, len(plan.share) - 1)])


def _received(maker: BatchMaker, made: _Made) -> PackedBatch:
    for one in made.bad:
        maker.quarantine.add(*one)
    maker.activity.bytes_read += made.bytes_read
    maker.activity.traffic.count(**made.traffic)
    return made.batch


_Taken: TypeAlias = tuple[Visits, NDArray[np.int64], list[NDArray[np.int64]]]
"""Samples of a step, their lengths, and this rank's micro-batches of them."""


def _divided(maker: BatchMaker, order: SampleOrder, first: int, size: StepSize) -> _Taken:
    """So many samples from a position on."""
    visits = order.visits(np.arange(first, first + size.samples))
    lengths = maker.lengths.of(visits.samples)
    plan = divide(lengths, maker.placement.ranks, maker.token_budget)
    return visits, lengths, plan[maker.placement.rank]


def _filled(maker: BatchMaker, order: SampleOrder, first: int, size: StepSize) -> _Taken:
    """As many samples from a position on as fill so many micro-batches."""
    count, budget, placement = size.micro_batches, maker.token_budget, maker.placement
    ahead = count * budget // maker.lengths.longest
    while True:
        visits = order.visits(np.arange(first, first + ahead))
        lengths = maker.lengths.of(visits.samples)
        # Broken samples have no length: a look-ahead of them alone would have no end.
        if lengths.sum() > count * budget or ahead > count * budget:
            break
        ahead *= 2
    taken, plan = fill(lengths, placement.ranks, count, budget)
    visits = Visits(visits.samples[:taken], visits.epochs[:taken])
    return visits, lengths[:taken], plan[placement.rank]


def eval_batches(maker: BatchMaker, block: int = 64) -> Iterator[PackedBatch]:
    """Every sample of the split once over all ranks, in order, in epoch 0; some ahead in a thread.

    Args:
        maker: makes this rank's micro-batches; all ranks get the same number of them.
        block: samples planned together for each rank.
    """
    stalled = partial(_say_where, maker.activity, maker.split)
    yield from Prefetch(_eval_batches(maker, block), EVAL_AHEAD, STALL_S, stalled)


def _eval_batches(maker: BatchMaker, block: int) -> Iterator[PackedBatch]:
    """See `eval_batches`."""
    step = block * maker.placement.ranks
    for first in range(0, len(maker.split), step):
        samples = np.arange(first, min(first + step, len(maker.split)))
        yield from maker.divided(Visits(samples, np.zeros_like(samples)))


def check_ranks(maker: BatchMaker, size: StepSize) -> None:
    """Make sure that every rank has work.

    Raises:
        UserError: fewer samples than ranks, or a step that they cannot share.
    """
    ranks, samples = maker.placement.ranks, len(maker.split)
    if samples < ranks:
        raise UserError(
            f"{ranks} ranks, but split {maker.split.name!r} has only {samples} samples; start "
            "fewer ranks"
        )
    check_size(size, ranks)


def check_size(size: StepSize, ranks: int) -> None:
    """Make sure that so many ranks can share a step.

    Raises:
        UserError: they cannot.
    """
    if size.micro_batches % ranks:
        raise UserError(
            f"batch.micro_batches={size.micro_batches} is no multiple of the number of ranks, "
            f"{ranks}"
        )
    if not size.micro_batches and size.samples < ranks:
        raise UserError(
            f"batch.global_batch={size.samples} is less than the number of ranks, {ranks}; raise "
            "it, or start fewer ranks"
        )
