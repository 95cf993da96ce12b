"""Reversal against finite differences; losses against formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from memo.heads.adversary import Discriminator, orthogonality, reversal_weight, reverse_gradient


def test_the_gradient_comes_back_reversed() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 2, dtype=torch.float64)

    def loss(one: torch.Tensor) -> torch.Tensor:
        return (one @ weights).tanh().square().sum()

    reversed_ = reverse_gradient(values, 0.3)
    torch.testing.assert_close(reversed_, values)
    (gradient,) = torch.autograd.grad(loss(reversed_), values)
    step = 1e-6
    for at in range(values.numel()):
        up, down = (values.detach().clone() for _ in range(2))
        up.view(-1)[at] += step
        down.view(-1)[at] -= step
        slope = (loss(up) - loss(down)).item() / (2 * step)
        assert gradient.view(-1)[at].item() == pytest.approx(-0.3 * slope, rel=1e-5, abs=1e-8)


def test_the_discriminator_learns_at_full_rate_while_the_encoder_is_pushed_back() -> None:
    torch.manual_seed(0)
    model = Discriminator(4, 3)
    shared, task = torch.randn(5, 4, requires_grad=True), torch.tensor([0, 1, 2, 0, 1])
    found = model(shared, task, 0.05)
    found.sum.backward()
    plain = F.cross_entropy(model.output(shared), task, reduction="sum")
    of_weights, of_shared = torch.autograd.grad(plain, [model.output.weight, shared])
    assert found.sum.item() == pytest.approx(plain.item())
    assert found.count.item() == 5
    torch.testing.assert_close(model.output.weight.grad, of_weights)
    torch.testing.assert_close(shared.grad, -0.05 * of_shared)


def test_the_schedule_grows_to_lambda() -> None:
    assert reversal_weight(0.0, 0.05, 10) == 0
    assert reversal_weight(0.3, 0.05, 10) == pytest.approx(0.05 * math.tanh(1.5))
    assert reversal_weight(1.0, 0.05, 10) == pytest.approx(0.05, rel=1e-3)
    assert reversal_weight(0.0, 0.05, 0) == 0.05


def by_rows(shared: torch.Tensor, private: torch.Tensor) -> float:
    """||S^T H||^2 is the sum over pairs of rows of the products of their cosines."""
    units: list[list[torch.Tensor]] = []
    for one in (shared, private):
        rows = [row - sum(one) / len(one) for row in one]
        units.append([row / math.sqrt((row * row).sum()) for row in rows])
    cosines = [[float(one @ other) for one in rows for other in rows] for rows in units]
    products: list[float] = [one * other for one, other in zip(*cosines, strict=True)]
    return sum(products)


def test_orthogonality_is_the_squared_norm_of_all_products() -> None:
    torch.manual_seed(0)
    shared, private = torch.randn(6, 3), torch.randn(6, 4)
    by_hand = sum(
        sum(shared[row, i].item() * private[row, j].item() for row in range(6)) ** 2
        for i in range(3)
        for j in range(4)
    )
    assert orthogonality(shared, private, normalised=False).item() == pytest.approx(
        by_hand, rel=1e-5
    )
    found = orthogonality(shared, private, normalised=True)
    assert found.item() == pytest.approx(by_rows(shared, private), rel=1e-4)
    assert 0 <= found.item() <= 36
    torch.testing.assert_close(found, orthogonality(9 * shared, private / 7, normalised=True))
    apart = torch.eye(4)[:, :2], torch.eye(4)[:, 2:]
    assert orthogonality(*apart, normalised=False).item() == 0
