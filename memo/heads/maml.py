"""The MAML-like training of SoGMTL: one task's step is judged by the other task's loss.

theta' = theta - rate * gradient of the first task's loss at theta; what is minimised is the first
task's loss at theta plus `weight` times the mean of the second task's losses at theta' (the public
code: k = 1 batch, weight 3). As one scalar it can be handed to any optimizer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

Loss: TypeAlias = Callable[[Callable[..., object]], Tensor]
"""Model, as a function of its inputs -> mean loss of a batch, a scalar."""


def maml_loss(
    model: nn.Module,
    inner: Loss,
    outer: Sequence[Loss],
    rate: float,
    weight: float,
    first_order: bool,
) -> Tensor:
    """The loss of a step, a scalar.

    Args:
        model: with parameters theta.
        inner: the first task's.
        outer: the second task's, of k batches.
        rate: of the inner step.
        weight: of the second task's losses.
        first_order: take the inner gradient for a constant (FOMAML; Finn et al., ICML 2017, 5.2).
    """
    first = inner(model)
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    gradients = torch.autograd.grad(
        first, list(parameters.values()), create_graph=not first_order, retain_graph=True,
        allow_unused=True,
    )  # fmt: skip
    stepped = {
        name: one if gradient is None else one - rate * gradient
        for (name, one), gradient in zip(parameters.items(), gradients, strict=True)
    }
    at_step = _with_parameters(model, stepped)
    second = torch.stack([one(at_step) for one in outer]).mean()
    return first + weight * second


def _with_parameters(model: nn.Module, parameters: Mapping[str, Tensor]) -> Callable[..., object]:
    """The model as a function of its inputs, with other parameters."""

    def run(*inputs: object) -> object:
        found: object = functional_call(model, dict(parameters), inputs)
        return found

    return run


def conflict(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> float:
    """Cosine between two tasks' gradients of the same parameters; below 0 they pull apart.

    Args:
        first: of each parameter; None where the task does not reach it.
        second: likewise.
    """
    dot, one_norm, other_norm = 0.0, 0.0, 0.0
    for one, other in zip(first, second, strict=True):
        if one is not None and other is not None:
            dot += float((one * other).sum())
            one_norm += float(one.square().sum())
            other_norm += float(other.square().sum())
    return dot / (one_norm * other_norm) ** 0.5 if one_norm and other_norm else 0.0
