"""Temperature and calibration error against their definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from data_pipeline.features.calibration import BINS, COLDEST, calibration_error, fit_temperature


@given(seed=st.integers(0, 10_000), true=st.floats(0.3, 5.0), classes=st.integers(2, 7))
def test_the_temperature_is_the_most_likely_one(seed: int, true: float, classes: int) -> None:
    generator = torch.manual_seed(seed)
    logits = torch.randn(200, classes, generator=generator, dtype=torch.float64) * 4
    labels = (logits / true).softmax(1).multinomial(1, generator=generator)[:, 0]
    found = minimize_scalar(
        lambda log: F.cross_entropy(logits / math.exp(log), labels).item(),
        bounds=(-6, 6),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(found.x), rel=1e-4)


def test_what_is_always_right_is_made_as_sure_as_may_be() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    temperature = fit_temperature(logits, torch.tensor([0, 1]))
    assert temperature >= COLDEST
    assert (logits / temperature).softmax(1).max(1).values.min() == pytest.approx(1, abs=1e-9)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 40))
def test_the_error_is_that_of_a_loop_over_bins(seed: int, rows: int) -> None:
    generator = torch.manual_seed(seed)
    posteriors = (3 * torch.randn(rows, 3, generator=generator)).softmax(1)
    labels = torch.randint(3, (rows,), generator=generator)
    expected = 0.0
    for number in range(BINS):
        inside = [
            (row.max().item(), int(row.argmax() == label))
            for row, label in zip(posteriors, labels, strict=True)
            if number / BINS < row.max().item() <= (number + 1) / BINS
        ]
        if inside:
            sure, right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            expected += len(inside) / rows * abs(right - sure)
    assert calibration_error(posteriors, labels) == pytest.approx(expected, abs=1e-6)


def test_a_temperature_mends_what_is_too_sure() -> None:
    generator = torch.manual_seed(0)
    logits = torch.randn(5000, 4, generator=generator)
    labels = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    too_sure = 3 * logits
    temperature = fit_temperature(too_sure[:2500], labels[:2500])
    before, after = (
        calibration_error((too_sure[2500:] / t).softmax(1), labels[2500:]) for t in (1, temperature)
    )
    assert temperature == pytest.approx(3, rel=0.1)
    assert before > 0.2
    assert after < 0.03
