"""The plan against its promises: everything once, within the budget, even, deterministic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.plan import divide, fill

lengths_lists = st.lists(st.integers(0, 50), min_size=1, max_size=60)


@given(lengths_lists, st.integers(1, 5), st.integers(50, 200))
def test_everything_once_within_the_budget(lengths: list[int], ranks: int, budget: int) -> None:
    tokens = np.array(lengths, dtype=np.int64)
    plan = divide(tokens, ranks, budget)
    everything = np.concatenate([batch for share in plan for batch in share])
    assert sorted(everything.tolist()) == list(range(len(tokens)))
    counts = {len(share) for share in plan}
    assert len(plan) == ranks
    assert len(counts) == 1
    for share in plan:
        for batch in share:
            assert tokens[batch].sum() <= budget
            assert (np.diff(batch) > 0).all()
    if len(tokens) >= ranks * counts.pop():
        assert all(len(batch) for share in plan for batch in share)


lengths_that_fit_exactly = st.lists(st.sets(st.integers(1, 11), max_size=4), min_size=1).map(
    lambda bins: [part for cuts in bins for part in np.diff([0, *sorted(cuts), 12]).tolist()]
)
"""Pieces of 12: bins of 12 that are all full, which evening out overfills."""


@given(st.one_of(lengths_that_fit_exactly, lengths_lists), st.integers(1, 4), st.integers(12, 14))
def test_the_plan_is_that_of_samples_dealt_one_by_one(
    lengths: list[int], ranks: int, budget: int
) -> None:
    budget = max(budget, *lengths, 1)
    plan = divide(np.array(lengths, dtype=np.int64), ranks, budget)
    assert [[one.tolist() for one in share] for share in plan] == one_by_one(lengths, ranks, budget)


@given(lengths_lists, st.integers(1, 9), st.integers(1, 3), st.integers(50, 200))
def test_a_filled_plan_is_that_of_samples_dealt_one_by_one(
    lengths: list[int], ranks: int, each: int, budget: int
) -> None:
    taken, plan = fill(np.array(lengths, dtype=np.int64), ranks, ranks * each, budget)
    bins = evened(lengths[:taken], ranks * each)
    assert [[one.tolist() for one in share] for share in plan] == dealt(lengths, bins, ranks)


def one_by_one(lengths: list[int], ranks: int, budget: int) -> list[list[list[int]]]:
    """What `divide` promises, sample by sample."""
    packed = best_fit(lengths, budget)
    count = ranks * max(-(-len(packed) // ranks), 1)
    bins = evened(lengths, count)
    if max(load(one, lengths) for one in bins) > budget:
        bins = packed
        while len(bins) < count:
            bins.append([max(bins, key=len).pop()])
    return dealt(lengths, bins, ranks)


def best_fit(lengths: list[int], budget: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for sample in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        fitting = [one for one in bins if load(one, lengths) + lengths[sample] <= budget]
        if not fitting:
            bins.append([sample])
        else:
            max(fitting, key=lambda one: load(one, lengths)).append(sample)
    return bins


def evened(lengths: list[int], count: int) -> list[list[int]]:
    bins: list[list[int]] = [[] for _ in range(count)]
    for sample in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        min(bins, key=lambda one: (load(one, lengths), len(one))).append(sample)
    return bins


def dealt(lengths: list[int], bins: list[list[int]], ranks: int) -> list[list[list[int]]]:
    falling = sorted(bins, key=lambda one: -load(one, lengths))
    shares: list[list[list[int]]] = [[] for _ in range(ranks)]
    for begin in range(0, len(falling), ranks):
        emptiest = sorted(shares, key=lambda share: sum(load(one, lengths) for one in share))
        for share, one in zip(emptiest, falling[begin : begin + ranks], strict=True):
            share.append(sorted(one))
    return shares


def load(one: list[int], lengths: list[int]) -> int:
    return sum(lengths[sample] for sample in one)


@given(lengths_lists, st.integers(1, 5), st.integers(50, 200))
def test_no_more_micro_batches_than_half_full_ones(
    lengths: list[int], ranks: int, budget: int
) -> None:
    """No two bins of a best-fit packing would fit into one, so all but one are half full."""
    plan = divide(np.array(lengths, dtype=np.int64), ranks, budget)
    packed = 2 * sum(lengths) // budget + 1
    assert len(plan[0]) <= -(-packed // ranks)


def _grid_lengths(rng: np.random.Generator) -> NDArray[np.int64]:
    """Text 8-15 pieces with [CLS] and [SEP], 30 frames, 50 speech rows."""
    return rng.integers(8, 16, 64) + rng.integers(28, 31, 64) + rng.integers(45, 51, 64)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("budget", [1024, 4096])
def test_ranks_carry_the_same_tokens(ranks: int, budget: int) -> None:
    for seed in range(20):
        tokens = _grid_lengths(np.random.default_rng(seed))
        plan = divide(tokens, ranks, budget)
        loads = [sum(int(tokens[batch].sum()) for batch in share) for share in plan]
        assert max(loads) <= 1.05 * np.mean(loads)


def test_a_tight_budget_is_filled() -> None:
    """Evening out overfills one of two bins (5 + 3 + 3 in one); the packing is exact."""
    tokens = np.array([5, 5, 4, 3, 3], dtype=np.int64)
    plan = divide(tokens, 1, 10)
    assert sorted(int(tokens[batch].sum()) for batch in plan[0]) == [10, 10]


def test_a_sample_longer_than_the_budget_is_refused() -> None:
    with pytest.raises(UserError, match=r"token_budget=99.*100 tokens"):
        divide(np.array([3, 100], dtype=np.int64), 1, 99)


@given(lengths_lists, st.integers(1, 3), st.integers(1, 3), st.integers(50, 200))
def test_a_look_ahead_fills_micro_batches_with_its_first_samples(
    lengths: list[int], ranks: int, each: int, budget: int
) -> None:
    tokens = np.array(lengths, dtype=np.int64)
    taken, plan = fill(tokens, ranks, ranks * each, budget)
    assert 1 <= taken <= len(tokens)
    assert [len(share) for share in plan] == [each] * ranks
    batches = [batch for share in plan for batch in share]
    assert sorted(np.concatenate(batches).tolist()) == list(range(taken))
    assert max(tokens[batch].sum() for batch in batches) <= budget


def test_no_sample_is_left_for_later_that_would_have_fitted() -> None:
    """One micro-batch: the longest run of samples within the budget."""
    tokens = np.array([5, 3, 2, 4, 1], dtype=np.int64)
    for budget, expected in ((5, 1), (9, 2), (10, 3), (13, 3), (14, 4), (99, 5)):
        assert fill(tokens, 1, 1, budget)[0] == expected


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_full_micro_batches_are_full_and_even(ranks: int) -> None:
    """At least 0.97 of the budget is used, and ranks differ by at most 3 %."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        tokens = np.concatenate([_grid_lengths(rng) for _ in range(12)])
        _, plan = fill(tokens, ranks, 8, 4096)
        loads = [sum(int(tokens[batch].sum()) for batch in share) for share in plan]
        assert sum(loads) >= 0.97 * 8 * 4096
        assert max(loads) <= 1.03 * min(loads)


def test_a_sample_longer_than_the_budget_is_refused_ahead() -> None:
    with pytest.raises(UserError, match="less than the longest sequence, 51 tokens"):
        fill(np.array([3, 51], dtype=np.int64), 1, 1, 50)
