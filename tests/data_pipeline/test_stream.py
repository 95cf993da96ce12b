"""The stream on real shards: the same global batches on any ranks, after any restart."""

import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline import stream as stream_module
from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.order import Order, StreamState
from data_pipeline.packing import Example, PackedBatch
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import FeatureSchema, ShardInfo
from data_pipeline.shards.reader import Split
from data_pipeline.shards.shard import Shard
from data_pipeline.stream import BatchMaker, Placement, Step, StepSize, TrainStream, eval_batches
from data_pipeline.watch import Activity
from data_pipeline.workers import Workers
from tests.data_pipeline.small_dataset import FACE_DIM, SPEECH_DIM, plain, write_split

SEED, SAMPLES, BUDGET = 5, 11, 40


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return write_split(tmp_path / "data", SAMPLES)


def _maker(split: Split, tmp_path: Path, rank: int = 0, ranks: int = 1) -> BatchMaker:
    limits = LengthLimits(text=10, face=10, speech=10)
    return BatchMaker(
        split=split,
        transform=plain,
        specs={},
        face_dim=FACE_DIM,
        speech_dim=SPEECH_DIM,
        lengths=TokenLengths(split, lambda text: len(text.split()), "t", limits),
        token_budget=BUDGET,
        placement=Placement(rank, ranks),
        quarantine=Quarantine(tmp_path / "quarantine.jsonl", 3),
    )


def _start(split: Split) -> StreamState:
    return StreamState.start(SEED, split.fingerprint)


def _take(maker: BatchMaker, state: StreamState, batch: int, steps: int) -> list[Step]:
    with TrainStream(maker, state, StepSize(batch), prefetch=2) as stream:
        return list(islice(stream, steps))


def _contents(batches: Iterator[PackedBatch]) -> list[tuple[object, ...]]:
    """(sample, its text ids, its speech rows) of every sequence, sorted."""
    found: list[tuple[object, ...]] = []
    for batch in batches:
        ids, rows = batch.text_ids.tolist(), batch.speech.tolist()
        place = batch.order.tolist()
        ends = batch.cu_seqlens.tolist()
        texts, faces = len(ids), len(batch.face)
        for number, sample in enumerate(batch.samples.tolist()):
            own = place[ends[number] : ends[number + 1]]
            pieces = [ids[at] for at in own if at < texts]
            speech = [rows[at - texts - faces] for at in own if at >= texts + faces]
            found.append((sample, pieces, speech))
    return sorted(found, key=repr)


@pytest.mark.parametrize("batch", [4, SAMPLES, 25])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_each_global_batch_of_the_order(
    split: Split, tmp_path: Path, batch: int, ranks: int
) -> None:
    """Batches shorter than the split, as long, and wrapping it more than twice."""
    shares = [
        _take(_maker(split, tmp_path, rank, ranks), _start(split), batch, 5)
        for rank in range(ranks)
    ]
    order = Order(SEED, split.shard_sizes)
    for number, steps in enumerate(zip(*shares, strict=True)):
        positions = np.arange(number * batch, (number + 1) * batch)
        expected = [
            plain(split.read(sample), sample, epoch)
            for sample, epoch in zip(
                order.visits(positions).samples.tolist(),
                (positions // SAMPLES).tolist(),
                strict=True,
            )
        ]
        found = _contents(one for step in steps for one in step.micro_batches)
        wanted = [(one.sample, one.text_ids.tolist(), one.speech.tolist()) for one in expected]
        assert found == sorted(wanted, key=repr)
        assert len({len(step.micro_batches) for step in steps}) == 1
        assert all(one.tokens <= BUDGET for step in steps for one in step.micro_batches)
        assert {len(step.samples) for step in steps} == {batch}
        assert {step.state_after.position(SAMPLES) for step in steps} == {(number + 1) * batch}


@pytest.mark.parametrize("done", [1, 2, 3, 5])
def test_going_on_elsewhere_gives_the_remaining_batches(
    split: Split, tmp_path: Path, done: int
) -> None:
    """Stopped inside an epoch, at its end (11 = 1 step of 11) and beyond; 1 rank, then 2."""
    for batch in (4, 11):
        whole = _take(_maker(split, tmp_path), _start(split), batch, done + 3)
        state = whole[done - 1].state_after
        parts = [_take(_maker(split, tmp_path, rank, 2), state, batch, 3) for rank in range(2)]
        for straight, *resumed in zip(whole[done:], *parts, strict=True):
            found = _contents(one for step in resumed for one in step.micro_batches)
            assert found == _contents(iter(straight.micro_batches))
            assert {step.state_after for step in resumed} == {straight.state_after}


@pytest.mark.parametrize("done", [0, 1, 5])
def test_full_micro_batches_are_the_same_on_any_ranks_from_any_step(
    split: Split, tmp_path: Path, done: int
) -> None:
    size = StepSize(1, micro_batches=4)
    with TrainStream(_maker(split, tmp_path), _start(split), size) as stream:
        whole = list(islice(stream, done + 3))
    state = whole[done - 1].state_after if done else _start(split)
    for ranks in (1, 2, 4):
        parts = []
        for rank in range(ranks):
            with TrainStream(_maker(split, tmp_path, rank, ranks), state, size) as stream:
                parts.append(list(islice(stream, 3)))
        for straight, *resumed in zip(whole[done:], *parts, strict=True):
            assert {len(step.micro_batches) for step in resumed} == {4 // ranks}
            found = _contents(one for step in resumed for one in step.micro_batches)
            assert found == _contents(iter(straight.micro_batches))
            assert {step.state_after for step in resumed} == {straight.state_after}
            assert all(np.array_equal(step.samples, straight.samples) for step in resumed)
    positions = np.arange(sum(len(step.samples) for step in whole))
    expected = split.order(SEED).visits(positions).samples
    assert np.concatenate([step.samples for step in whole]).tolist() == expected.tolist()
    tokens = [batch.tokens for step in whole for batch in step.micro_batches]
    assert max(tokens) <= BUDGET
    assert np.mean(tokens) > 0.75 * BUDGET  # of 40; samples have up to 24


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Split, Path]]:
    """A split for many examples, whose clips are read once, and a folder of theirs."""
    place = tmp_path_factory.mktemp("lasting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMO_CACHE", str(place / "cache"))
        split = write_split(place / "data", SAMPLES)
        patch.setattr(split, "read", cache(split.read))
        yield split, place


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32),
    before=st.integers(1, 4),
    after=st.integers(1, 4),
    cut=st.integers(0, 2),
    amount=st.integers(1, 2 * SAMPLES),
    in_micro_batches=st.booleans(),
)
def test_wherever_it_is_cut_other_ranks_go_on_with_what_one_would_have_seen(
    lasting: tuple[Split, Path],
    seed: int,
    before: int,
    after: int,
    cut: int,
    amount: int,
    in_micro_batches: bool,
) -> None:
    split, place = lasting
    size = StepSize(max(amount, before, after))
    if in_micro_batches:
        size = StepSize(1, math.lcm(before, after) * (1 + amount % 2))

    def steps(ranks: int, state: StreamState, count: int) -> list[tuple[object, StreamState, int]]:
        """Of each step what all ranks see, where the stream then stands, and the digest."""
        shares: list[list[Step]] = []
        for rank in range(ranks):
            with TrainStream(_maker(split, place, rank, ranks), state, size, 1) as stream:
                shares.append(list(islice(stream, count)))
        found: list[tuple[object, StreamState, int]] = []
        for step in zip(*shares, strict=True):
            contents = _contents(batch for share in step for batch in share.micro_batches)
            (state,), (digest,) = ({x.state_after for x in step}, {x.digest for x in step})
            found.append((contents, state, digest))
        return found

    start = StreamState.start(seed, split.fingerprint)
    whole = steps(1, start, cut + 2)
    first = steps(before, start, cut)
    assert first == whole[:cut]
    state = first[-1][1] if cut else start
    assert steps(after, state, 2) == whole[cut:]


def test_a_split_of_broken_samples_alone_ends_the_look_ahead(tmp_path: Path) -> None:
    """What cannot be read has no length and fills nothing."""
    split = write_split(tmp_path / "bad", 4, bad=(0, 1, 2, 3))
    maker = replace(_maker(split, tmp_path), lengths=_Nothing())
    with TrainStream(maker, _start(split), StepSize(1, micro_batches=1)) as stream:
        step = next(stream)
    assert step.micro_batches[0].tokens == 0
    assert len(step.samples) > BUDGET


class _Nothing:
    longest = 1

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.zeros_like(samples)


def test_a_bad_sample_leaves_the_batch_smaller_on_its_rank_alone(tmp_path: Path) -> None:
    split = write_split(tmp_path / "bad", 6, bad=(2,))
    shares = [_take(_maker(split, tmp_path, rank, 2), _start(split), 6, 3) for rank in range(2)]
    for steps in zip(*shares, strict=True):
        assert len({len(step.micro_batches) for step in steps}) == 1
        batches = [one for step in steps for one in step.micro_batches]
        assert sorted(n for one in batches for n in one.samples.tolist()) == [0, 1, 3, 4, 5]
    lines = (tmp_path / "quarantine.jsonl").read_text("utf8").splitlines()
    assert len(lines) == 1
    assert "k2" in lines[0]
    assert "speech.npy" in lines[0]


def test_too_many_bad_samples_stop_the_run(tmp_path: Path) -> None:
    split = write_split(tmp_path / "bad", 6, bad=(0, 1, 2, 4))
    maker = _maker(split, tmp_path)
    _take(maker, _start(split), 6, 1)
    with pytest.raises(UserError, match="more than 3 bad samples"):
        maker.quarantine.check()


def test_an_error_in_the_thread_reaches_the_trainer(split: Split, tmp_path: Path) -> None:
    def broken(clip: Clip, sample: int, epoch: int) -> Example:
        if epoch == 1:
            raise ZeroDivisionError("defect")
        return plain(clip, sample, epoch)

    maker = replace(_maker(split, tmp_path), transform=broken)
    with TrainStream(maker, _start(split), StepSize(SAMPLES)) as stream:
        next(stream)
        with pytest.raises(ZeroDivisionError, match="defect"):
            next(stream)


def _same(one: object, other: object) -> bool:
    """Whether two batches, or parts of them, are equal to the bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, PackedBatch) and isinstance(other, PackedBatch):
        return all(
            _same(ours, theirs) for ours, theirs in zip(*map(_values, (one, other)), strict=True)
        )
    return one == other


def _values(batch: PackedBatch) -> list[object]:
    return [getattr(batch, field.name) for field in fields(batch)]


@pytest.mark.parametrize("size", [StepSize(7), StepSize(0, micro_batches=3)])
@pytest.mark.parametrize("workers", [1, 3])
def test_processes_make_the_same_steps(tmp_path: Path, workers: int, size: StepSize) -> None:
    split = write_split(tmp_path / "bad", SAMPLES, bad=(2,))
    found = []
    for count in (0, workers):
        maker = replace(_maker(split, tmp_path / str(count)), workers=count, activity=Activity())
        with TrainStream(maker, _start(split), size, prefetch=1) as stream:
            found.append(list(islice(stream, 6)))
        assert maker.activity.bytes_read > 0
        lines = (tmp_path / str(count) / "quarantine.jsonl").read_text("utf8").splitlines()
        assert [json.loads(line)["key"] for line in lines] == ["k2"]
    for one, other in zip(*found, strict=True):
        assert (one.state_after, one.digest) == (other.state_after, other.digest)
        assert one.samples.tolist() == other.samples.tolist()
        pairs = zip(one.micro_batches, other.micro_batches, strict=True)
        assert all(_same(*pair) for pair in pairs)


def test_what_a_process_meets_is_raised_to_the_trainer(split: Split, tmp_path: Path) -> None:
    def broken(clip: Clip, sample: int, epoch: int) -> Example:
        assert 1 // 0, "raises"
        return plain(clip, sample, epoch)

    maker = replace(_maker(split, tmp_path), transform=broken, workers=1)
    with (
        TrainStream(maker, _start(split), StepSize(4)) as stream,
        pytest.raises(RuntimeError, match=r"in broken\n(.*\n)*ZeroDivisionError"),
    ):
        next(stream)


def test_pipes_are_open_as_long_as_the_thread_may_read_them(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that is closed under it may be another file's by the time it reads on."""
    reading, before = list[bool](), threading.enumerate()
    lost, close = Workers._lost, Connection.close

    def slowly(workers: Workers[Any, Any], number: int) -> UserError:
        time.sleep(0.2)
        return lost(workers, number)

    def noted(pipe: "Connection[Any, Any]") -> None:
        since = set(threading.enumerate()).difference(before)
        reading.append(any(one.name == "prefetch" for one in since))
        close(pipe)

    def hang(clip: Clip, sample: int, epoch: int) -> Example:
        time.sleep(60)
        return plain(clip, sample, epoch)

    maker = replace(_maker(split, tmp_path), transform=hang, workers=2)
    with TrainStream(maker, _start(split), StepSize(4)):
        monkeypatch.setattr(Workers, "_lost", slowly)
        monkeypatch.setattr(Connection, "close", noted)
    assert reading == [False, False]


class Stall:
    """Stands in for something that takes long: it ends as soon as a warning says what it should."""

    def __init__(self) -> None:
        self._pattern: re.Pattern[str] | None = None
        self._go_on = threading.Event()
        self.warnings: list[str] = []

    def wait(self, pattern: str) -> None:
        """Only once."""
        if not self._go_on.is_set():
            self._pattern = re.compile(pattern)
            assert self._go_on.wait(60), f"none of {self.warnings} says {pattern}"

    def told(self, record: logging.LogRecord) -> bool:
        """As a filter of the log."""
        self.warnings.append(record.getMessage())
        if self._pattern is not None and self._pattern.search(record.getMessage()):
            self._go_on.set()
        return True


@pytest.fixture
def stall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stall]:
    monkeypatch.setattr(stream_module, "STALL_S", 0.01)
    one, log = Stall(), logging.getLogger(stream_module.__name__)
    log.addFilter(one.told)
    yield one
    log.removeFilter(one.told)


def _stalls_at(
    stall: Stall, split: Split, wanted: int | None = None
) -> Callable[[Clip, int, int], Example]:
    """A transform that takes long at a sample, or at the first one."""

    def transform(clip: Clip, sample: int, epoch: int) -> Example:
        if wanted in (None, sample):
            stall.wait(rf"is transforming sample {sample} of {split.shard_of(sample)} \(\d+ s")
        return plain(clip, sample, epoch)

    return transform


def test_a_loader_that_stalls_says_where(split: Split, tmp_path: Path, stall: Stall) -> None:
    maker = replace(_maker(split, tmp_path), transform=_stalls_at(stall, split))
    with TrainStream(maker, _start(split), StepSize(4)) as stream:
        next(stream)
    said = r"waited \d+ s for data of valid; the loader is transf"
    assert any(re.match(said, one) for one in stall.warnings)


def test_an_evaluation_that_stalls_says_where(split: Split, tmp_path: Path, stall: Stall) -> None:
    maker = replace(_maker(split, tmp_path), transform=_stalls_at(stall, split, 7))
    assert len(_contents(eval_batches(maker))) == SAMPLES
    assert any("transforming sample 7 of valid-000001.tar" in one for one in stall.warnings)


def test_a_stalled_fetch_says_the_shard(
    split: Split, tmp_path: Path, stall: Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(shard: ShardInfo) -> None:
        if shard.name == "valid-000001.tar":
            stall.wait(r"loader is waiting for shards \(\d+ s\); fetching valid-000001\.tar \(")

    monkeypatch.setattr(split, "is_remote", True)
    monkeypatch.setattr(split._store, "fetch", fetch)
    _take(_maker(split, tmp_path), _start(split), 4, 1)


def test_a_shard_whose_opening_stalls_is_said(
    split: Split, tmp_path: Path, stall: Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_shard = split._store.open

    def slow(shard: ShardInfo, features: FeatureSchema) -> Shard:
        stall.wait(rf"the loader is planning a step \(\d+ s\); opening {shard.name} \(")
        return open_shard(shard, features)

    monkeypatch.setattr(split._store, "open", slow)
    _take(_maker(split, tmp_path), _start(split), 1, 1)


def test_a_stalled_count_of_a_text_says_the_shard(
    split: Split, tmp_path: Path, stall: Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = split.read_text

    def slow(sample: int) -> str | None:
        if split.shard_of(sample) == "valid-000002.tar":
            stall.wait(r"is planning a step \(\d+ s\); counting the texts of valid-000002\.tar")
        return read(sample)

    monkeypatch.setattr(split, "read_text", slow)
    _take(_maker(split, tmp_path), _start(split), SAMPLES, 1)


def test_of_several_readers_the_one_that_is_stuck_is_said(
    split: Split, tmp_path: Path, stall: Stall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others were begun after it, and are done."""
    monkeypatch.setattr(split, "readers", 2)
    read, others, done = split.read, list[int](), threading.Event()

    def slow(sample: int) -> Clip:
        if sample == 1:
            assert done.wait(60)
            stall.wait(r"is reading sample 1 of valid-000000\.tar \(")
            return read(sample)
        others.append(sample)
        if len(others) == SAMPLES - 1:
            done.set()
        return read(sample)

    monkeypatch.setattr(split, "read", slow)
    (batch,) = eval_batches(replace(_maker(split, tmp_path), token_budget=32 * SAMPLES))
    assert sorted(batch.samples.tolist()) == list(range(SAMPLES))


@pytest.mark.parametrize("samples", [1, 5, 11])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_takes_each_sample_once(tmp_path: Path, samples: int, ranks: int) -> None:
    split = write_split(tmp_path / "data", samples)
    shares = [list(eval_batches(_maker(split, tmp_path, rank, ranks), 2)) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    seen = [n for share in shares for batch in share for n in batch.samples.tolist()]
    assert sorted(seen) == list(range(samples))


def test_what_cannot_be_trained_on_is_refused(split: Split, tmp_path: Path) -> None:
    maker, state = _maker(split, tmp_path), _start(split)
    with pytest.raises(UserError, match=r"fingerprint other.* has " + split.fingerprint):
        TrainStream(maker, replace(state, fingerprint="other"), StepSize(4))
    with pytest.raises(UserError, match=r"token_budget=31.*32 tokens"):
        TrainStream(replace(maker, token_budget=31), state, StepSize(4))
    with pytest.raises(UserError, match=r"12 ranks.*only 11 samples"):
        TrainStream(replace(maker, placement=Placement(0, 12)), state, StepSize(12))
    with pytest.raises(UserError, match=r"micro_batches=4 is no multiple of .*ranks, 3"):
        TrainStream(replace(maker, placement=Placement(0, 3)), state, StepSize(4, micro_batches=4))
    with pytest.raises(UserError, match=r"global_batch=2 .*ranks, 3"):
        TrainStream(replace(maker, placement=Placement(0, 3)), state, StepSize(2))
