"""The predictors without a model, against numpy's interpolation and hand-made cases."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memo.objectives.baselines import interpolate, mean_of_known


@given(st.lists(st.booleans(), min_size=1, max_size=20).filter(any), st.integers(0, 100))
def test_interpolation_equals_numpy_in_every_dimension(known: list[bool], seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(len(known), 3)).astype(np.float32)
    times = np.arange(len(known))
    mask = np.array(known)
    expected = np.stack(
        [np.interp(times, times[mask], rows[mask, column]) for column in range(3)], axis=1
    )
    np.testing.assert_allclose(interpolate(rows, mask, times, otherwise=0), expected, atol=1e-6)


def test_mean_takes_known_rows_only() -> None:
    rows = np.array([[1, 2], [3, 4], [100, 100]], dtype=np.float32)
    mean = mean_of_known(rows, np.array([True, True, False]), otherwise=0)
    assert mean.tolist() == [2, 3]


def test_without_known_rows_the_given_value_is_predicted() -> None:
    rows = np.ones((2, 3), dtype=np.float32)
    nothing = np.zeros(2, dtype=bool)
    assert mean_of_known(rows, nothing, otherwise=0.25).tolist() == [0.25] * 3
    assert interpolate(rows, nothing, np.array([1]), otherwise=0.5).tolist() == [[0.5] * 3]
