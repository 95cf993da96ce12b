"""The order against its promises: permutations, no memory of ranks or restarts."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.order import Order, StreamState, sample_at

seeds = st.integers(0, 2**32)
shards = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
windows = st.integers(1, 40)


def _sizes(counts: list[int]) -> NDArray[np.int64]:
    return np.array(counts, dtype=np.int64)


@given(seeds, shards, windows, st.integers(0, 5))
def test_each_epoch_is_a_permutation(seed: int, counts: list[int], window: int, epoch: int) -> None:
    total = sum(counts)
    positions = epoch * total + np.arange(total)
    samples = sample_at(seed, _sizes(counts), positions, window)
    assert sorted(samples.tolist()) == list(range(total))


@given(seeds, shards, windows, st.data())
def test_any_position_is_found_directly(
    seed: int, counts: list[int], window: int, data: st.DataObject
) -> None:
    total = sum(counts)
    all_positions = np.arange(3 * total)
    whole = sample_at(seed, _sizes(counts), all_positions, window)
    some = np.array(data.draw(st.lists(st.integers(0, 3 * total - 1), min_size=1)), dtype=np.int64)
    np.testing.assert_array_equal(sample_at(seed, _sizes(counts), some, window), whole[some])


@given(seeds, shards, windows)
def test_a_window_is_whole_neighbouring_shards(seed: int, counts: list[int], window: int) -> None:
    """Along an epoch a shard's samples stay within its window: nothing else lies outside."""
    sizes, total = _sizes(counts), sum(counts)
    samples = sample_at(seed, sizes, np.arange(total), window)
    owner = np.repeat(np.arange(len(sizes)), sizes)[samples]  # (N,) the shard at each place
    for shard in np.unique(owner):
        places = np.flatnonzero(owner == shard)
        assert places[-1] - places[0] < window + sizes.max()


@given(seeds, seeds)
def test_epochs_and_seeds_differ(seed: int, other: int) -> None:
    sizes = _sizes([10, 10, 10])
    epochs = Order(seed, sizes).visits(np.arange(90)).samples.reshape(3, 30)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    if other != seed:
        assert (Order(other, sizes).visits(np.arange(30)).samples != epochs[0]).any()


def test_the_order_never_changes() -> None:
    """Fixed for all time: a run must continue under another NumPy."""
    assert Order(1234, _sizes([3, 4, 5])).visits(np.arange(24)).samples.tolist() == GOLDEN


GOLDEN = [1, 10, 6, 3, 5, 7, 9, 8, 4, 2, 0, 11, 6, 11, 7, 3, 10, 1, 0, 2, 5, 9, 4, 8]


@given(seeds, st.lists(st.integers(1, 70), max_size=20), st.integers(1, 50))
def test_state_advances_like_positions(seed: int, steps: list[int], total: int) -> None:
    state = StreamState.start(seed, "f")
    for seen in steps:
        state = StreamState.from_json(json.loads(json.dumps(state.advance(seen, total).to_json())))
    assert state.position(total) == sum(steps)
    assert state.samples_consumed < total


@given(seeds, shards, st.integers(1, 40), st.integers(0, 20))
def test_resuming_gives_the_same_batches(
    seed: int, counts: list[int], batch: int, done: int
) -> None:
    """A batch may be larger than the split, so that it wraps several epochs."""
    order, total = Order(seed, _sizes(counts)), sum(counts)
    state = StreamState.start(seed, "f")
    for _ in range(done):
        state = state.advance(batch, total)
    resumed = order.visits(state.position(total) + np.arange(batch))
    straight = order.visits(np.arange((done + 1) * batch))
    np.testing.assert_array_equal(resumed.samples, straight.samples[done * batch :])
    np.testing.assert_array_equal(resumed.epochs, straight.epochs[done * batch :])


def test_another_seed_or_dataset_is_refused_naming_both() -> None:
    state = StreamState(7, 1, 2, "aaa")
    state.check(7, "aaa")
    with pytest.raises(UserError, match=r"seed=7.*seed=8"):
        state.check(8, "aaa")
    with pytest.raises(UserError, match=r"aaa.*bbb"):
        state.check(7, "bbb")


@pytest.mark.parametrize("change", [{"epoch": -1}, {"seed": "1"}, {"fingerprint": None}])
def test_a_damaged_state_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="not a stream state"):
        StreamState.from_json({**StreamState(1, 0, 0, "f").to_json(), **change})
