"""Dropout keeps the expectation, follows torch's seed and differentiates."""

import pytest
import torch

from memo.model.dropout import Dropout, keep_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
def test_mask_has_the_rate_and_the_scale(probability: float) -> None:
    torch.manual_seed(0)
    mask = keep_mask(200_001, probability, torch.float64, CPU)
    assert mask.shape == (200_001,)
    assert (mask == 0).double().mean().item() == pytest.approx(probability, abs=0.004)
    assert sorted(set(mask.tolist())) == pytest.approx([0, 1 / (1 - probability)], rel=1e-3)


def test_neighbouring_draws_are_independent() -> None:
    """Four draws come from one random number; none may predict another."""
    torch.manual_seed(0)
    kept = (keep_mask(400_000, 0.5, torch.float64, CPU) > 0).double().view(-1, 4)
    correlation = torch.corrcoef(kept.t()) - torch.eye(4)
    assert correlation.abs().max() < 0.01


def test_same_seed_same_mask() -> None:
    dropout, values = Dropout(0.3), torch.ones(50, 7)
    torch.manual_seed(3)
    first = dropout(values)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(values))
    assert not torch.equal(first, dropout(values))


def test_nothing_is_dropped_outside_of_training() -> None:
    values = torch.randn(9, 4)
    assert torch.equal(Dropout(0.5).eval()(values), values)


def test_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(0)
    values = torch.ones(30, 5, requires_grad=True)
    output = Dropout(0.4)(values)
    output.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, output.detach())
