import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.features.speech import average_rows, speech_group


@given(count=st.integers(0, 40), group=st.integers(1, 7), seed=st.integers(0, 99))
def test_average_rows_is_the_mean_of_each_group(count: int, group: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    means = [rows[at : at + group].mean(axis=0) for at in range(0, count, group)]
    averaged = average_rows(rows, group)
    assert averaged.shape == (len(means), 3)
    assert averaged.dtype == np.float32
    if means:
        np.testing.assert_allclose(averaged, np.stack(means), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows_per_s", "group"), [(50, 3), (100, 6), (25, 2), (62.5, 4), (12.5, 1), (3, 1)]
)
def test_a_row_is_as_near_to_60_ms_as_whole_rows_can_be(rows_per_s: float, group: int) -> None:
    assert speech_group(rows_per_s) == group
    lengths = np.arange(1, 20) / rows_per_s
    assert abs(group / rows_per_s - 0.06) == pytest.approx(np.abs(lengths - 0.06).min())
