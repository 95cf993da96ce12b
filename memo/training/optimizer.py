"""AdamW with MEmoBERT's decay groups, warm-up and linear decay; and a step that can be refused."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memo.config import Optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")


class GuardedAdamW(torch.optim.AdamW):
    """AdamW that clips by the global norm and skips a step whose gradients are not finite.

    At ZeRO stage 0 DeepSpeed hands the reduced gradients over as they are; at the other stages its
    own optimizers clip and guard. The two attributes have the names that those use, so that the
    engine finds them at every stage.

    Args:
        groups: parameter groups.
        settings: learning rate, betas, eps, clipping.

    Attributes:
        _global_grad_norm: of the last step, before clipping.
        overflow: whether the last step was skipped.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: Optimizer) -> None:
        super().__init__(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)
        self._clip = settings.clip
        self._global_grad_norm = 0.0
        self.overflow = False

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clip and update, unless a gradient is not finite; then nothing changes."""
        parameters = [one for group in self.param_groups for one in group["params"]]
        self._global_grad_norm = float(nn.utils.clip_grad_norm_(parameters, self._clip))
        self.overflow = not math.isfinite(self._global_grad_norm)
        if not self.overflow:
            super().step(closure)


def make_adam(model: nn.Module, settings: Optimizer, zero_stage: int) -> torch.optim.AdamW:
    """The optimizer that DeepSpeed drives at a ZeRO stage."""
    groups = decay_groups(model, settings.weight_decay)
    if zero_stage == 0:
        return GuardedAdamW(groups, settings)
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
    )


def create_moments(adam: torch.optim.AdamW, parameters: Iterable[Tensor], steps: int) -> None:
    """Zero moments after so many steps, as the first step would make them."""
    for parameter in parameters:
        adam.state[parameter] = {
            "step": torch.tensor(float(steps), device=parameter.device),
            **{key: torch.zeros_like(parameter) for key in MOMENTS},
        }


@contextmanager
def idle(adam: torch.optim.AdamW) -> Iterator[None]:
    """An optimizer that takes no step and leaves weights, moments and their count as they are."""
    adam.step = _take_no_step  # type: ignore[method-assign]
    try:
        yield
    finally:
        del adam.step  # the method of its class again


def _take_no_step(closure: Callable[[], float] | None = None) -> None:
    del closure


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, LayerNorm and other vectors do not; what is frozen is left out.

    The single rows of type and mask embeddings are matrices of one row and decay, as in BERT.
    """
    parameters = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def learning_rate(step: int, settings: Optimizer, steps: int) -> float:
    """Rate of one step: linear warm-up to the peak, then linear decay to zero.

    Args:
        step: from 0; step `warmup_steps` has the peak, step `steps` would have zero.
        settings: peak and warm-up.
        steps: in all.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / (settings.warmup_steps + 1)
    return settings.lr * (steps - step) / max(steps - settings.warmup_steps, 1)


def warm_up_note(settings: Optimizer, steps: int) -> str:
    """What to say of a warm-up that ends no sooner than the training; nothing of any other.

    Args:
        settings: peak and warm-up.
        steps: of the training.
    """
    if settings.warmup_steps < steps:
        return ""
    return (
        f"optimizer.lr is never reached: there are {steps} steps in all, and "
        f"optimizer.warmup_steps={settings.warmup_steps}"
    )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch so that dropout depends on (seed, step, rank) alone, also after a restart."""
    state = np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
