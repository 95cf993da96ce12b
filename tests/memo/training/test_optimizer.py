import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from memo.config import Optimizer
from memo.training.optimizer import (
    GuardedAdamW,
    decay_groups,
    learning_rate,
    seed_step,
    warm_up_note,
)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_matrices_decay_and_vectors_do_not() -> None:
    net = model()
    decayed, plain = decay_groups(net, 0.1)
    assert [one.ndim for one in decayed["params"]] == [2, 2]
    assert [one.ndim for one in plain["params"]] == [1, 1, 1, 1]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


@given(steps=st.integers(1, 500), warm_up=st.integers(0, 500), peak=st.floats(1e-6, 1.0))
def test_rate_rises_to_the_peak_then_falls_to_zero(steps: int, warm_up: int, peak: float) -> None:
    settings = Optimizer(lr=peak, warmup_steps=warm_up)
    rates = [learning_rate(step, settings, steps) for step in range(steps)]
    assert all(0 < rate <= peak * (1 + 1e-9) for rate in rates)
    top = min(warm_up, steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if warm_up < steps:
        assert rates[warm_up] == pytest.approx(peak)
        assert learning_rate(steps, settings, steps) == 0


@given(steps=st.integers(1, 9), warm_up=st.integers(0, 9))
def test_a_warm_up_is_told_of_where_no_step_has_the_peak(steps: int, warm_up: int) -> None:
    settings = Optimizer(lr=0.5, warmup_steps=warm_up)
    reached = max(learning_rate(step, settings, steps) for step in range(steps)) == settings.lr
    assert bool(warm_up_note(settings, steps)) != reached


def test_a_step_is_adamw_after_clipping() -> None:
    settings = Optimizer(lr=0.1, clip=0.5)
    ours, theirs = model(), model()
    guarded = GuardedAdamW(decay_groups(ours, 0.1), settings)
    plain = torch.optim.AdamW(
        decay_groups(theirs, 0.1), lr=0.1, betas=settings.betas, eps=settings.eps
    )
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        ours(inputs).pow(2).sum().backward()
        guarded.step()
        guarded.zero_grad()
        theirs(inputs).pow(2).sum().backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        plain.step()
        plain.zero_grad()
        assert guarded._global_grad_norm == pytest.approx(float(norm))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(value: float) -> None:
    net = model()
    guarded = GuardedAdamW(decay_groups(net, 0.1), Optimizer())
    before = [one.clone() for one in net.parameters()]
    net(torch.ones(1, 3)).sum().backward()
    gradient = next(net.parameters()).grad
    assert gradient is not None
    gradient[0, 0] = value
    guarded.step()
    assert guarded.overflow
    assert not guarded.state
    assert all(torch.equal(one, other) for one, other in zip(net.parameters(), before, strict=True))


def test_dropout_depends_on_seed_step_and_rank_alone() -> None:
    def draw(*place: int) -> float:
        seed_step(*place)
        return torch.rand(()).item()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(*place) for place in [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)]}) == 4
