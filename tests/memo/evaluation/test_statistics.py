from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from memo.evaluation.statistics import interval, paired_permutation, summarise


def test_mean_and_deviation_are_those_of_all_runs() -> None:
    values = np.array([[0.5, 0.7], [0.9, np.nan]])
    found = summarise(values)
    assert found.mean == pytest.approx(0.7)
    assert found.std == pytest.approx(np.std([0.5, 0.7, 0.9], ddof=1))
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.mean <= found.high


def test_a_single_run_has_no_interval() -> None:
    found = summarise(np.array([[0.25]]))
    assert (found.mean, found.std, found.low, found.high) == (0.25, 0, None, None)
    assert interval(found.to_json()) == "–"
    assert interval(summarise(np.array([[0.25], [0.25]])).to_json()) == "0.250 to 0.250"


def test_seeds_of_one_fold_do_not_count_as_independent() -> None:
    """Ten seeds that agree tell no more than one: the interval is that of the folds."""
    folds = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    one = summarise(folds[:, None])
    many = summarise(np.repeat(folds[:, None], 10, axis=1))
    assert (one.low, one.high) == pytest.approx((many.low, many.high), abs=0.005)


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of many protocols of 12 folds and 2 seeds, about 95 % (less a little for so few folds)."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        values = rng.normal(0, 1, (12, 1)) + rng.normal(0, 0.3, (12, 2))
        found = summarise(values)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert 85 <= covered <= 99


def accuracy(labels: NDArray[np.int64]) -> Callable[[NDArray[np.int64]], float]:
    return lambda predicted: float((predicted == labels).mean())


def test_equal_systems_do_not_differ() -> None:
    labels = np.arange(20) % 3
    assert paired_permutation(accuracy(labels), labels, labels, [str(i) for i in labels]) == 1


def test_with_every_clip_a_unit_it_is_the_sign_test() -> None:
    """One system is right where the other is wrong, on 12 of 15 clips: an exact binomial."""
    labels = np.zeros(15, dtype=np.int64)
    first, second = labels.copy(), np.ones(15, dtype=np.int64)
    first[:3], second[:3] = 1, 0
    found = paired_permutation(accuracy(labels), first, second, [str(i) for i in range(15)])
    assert found == pytest.approx(binomtest(3, 15).pvalue, abs=0.01)


def test_clips_of_a_speaker_are_exchanged_together() -> None:
    """All 15 clips in favour of one system, but of two speakers: two of four exchanges match."""
    labels = np.zeros(15, dtype=np.int64)
    units = ["a"] * 8 + ["b"] * 7
    found = paired_permutation(accuracy(labels), labels, labels + 1, units)
    assert found == pytest.approx(0.5, abs=0.02)
