"""The MAML-like loss against torch.func, and gradient conflict against its formula."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional as F

from memo.heads.maml import Loss, conflict, maml_loss


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    return inputs, torch.randint(0, 2, (4,), generator=rng)


def loss_of(seed: int) -> Loss:
    inputs, labels = batch(seed)

    def loss(run: Callable[..., object]) -> Tensor:
        return F.cross_entropy(cast("Tensor", run(inputs)), labels)

    return loss


def by_functions(first_order: bool, k: int) -> dict[str, Tensor]:
    """Gradients by torch.func: of the whole for second order, put together for first."""
    net = model()
    theta = {name: one.detach() for name, one in net.named_parameters()}

    def task(parameters: dict[str, Tensor], seed: int) -> Tensor:
        return loss_of(seed)(lambda *inputs: functional_call(net, parameters, inputs))

    def step(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        slopes = grad(task)(parameters, 0)
        return {name: one - 0.1 * slopes[name] for name, one in parameters.items()}

    def second(parameters: dict[str, Tensor]) -> Tensor:
        return torch.stack([task(parameters, 1 + at) for at in range(k)]).mean()

    if first_order:
        inner, outer = grad(task)(theta, 0), grad(second)(step(theta))
        return {name: inner[name] + 3 * outer[name] for name in theta}
    whole: dict[str, Tensor] = grad(lambda theta: task(theta, 0) + 3 * second(step(theta)))(theta)
    return whole


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_gradients_are_those_of_torch_func(first_order: bool, k: int) -> None:
    net = model()
    outer = [loss_of(1 + at) for at in range(k)]
    maml_loss(net, loss_of(0), outer, 0.1, 3.0, first_order).backward()
    expected = by_functions(first_order, k)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_first_and_second_order_differ() -> None:
    one, other = by_functions(first_order=True, k=1), by_functions(first_order=False, k=1)
    assert not torch.allclose(one["0.weight"], other["0.weight"])


def test_a_parameter_of_one_task_alone_is_trained() -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)})

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = net

        def forward(self, inputs: Tensor, task: str) -> Tensor:
            answer: Tensor = self.heads[task](inputs)
            return answer

    inputs = torch.randn(4, 3)
    losses: list[Loss] = [
        lambda run, task=task: cast("Tensor", run(inputs, task)).square().mean()  # type: ignore[misc]
        for task in ("a", "b")
    ]
    two = Two()
    maml_loss(two, losses[0], losses[1:], 0.1, 3.0, first_order=False).backward()
    assert all(one.grad is not None and one.grad.any() for one in two.parameters())


def test_conflict_is_the_cosine_of_shared_gradients() -> None:
    first = [torch.tensor([1.0, 2.0]), None, torch.tensor([[3.0]])]
    second = [torch.tensor([-2.0, 1.0]), torch.ones(3), torch.tensor([[-1.0]])]
    expected = torch.cosine_similarity(
        torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-2.0, 1.0, -1.0]), dim=0
    )
    assert conflict(first, second) == pytest.approx(expected.item())
    assert conflict([None], [torch.ones(2)]) == 0
