"""The adversarial side of ASP-MTL (Liu, Qiu and Huang, ACL 2017).

The paper writes the weight lambda twice, inside the adversarial loss (equation 13) and before it in
the total (equation 15). Here it stands once, in the gradient reversal: the discriminator learns at
full rate, and what reaches the encoder is -lambda times the discriminator's gradient. The
discriminator is one affine map from the shared state to the tasks, (d, K); the paper's d x d cannot
be.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from memo.objectives.base import LossSum


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, weight: float) -> Tensor:
        ctx.weight = weight  # type: ignore[attr-defined]
        return values.view_as(values)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None  # type: ignore[attr-defined]


def reverse_gradient(values: Tensor, weight: float) -> Tensor:
    """The values; their gradient comes back times -weight (Ganin and Lempitsky, ICML 2015)."""
    reversed_: Tensor = _Reversal.apply(values, weight)  # type: ignore[no-untyped-call]
    return reversed_


def reversal_weight(progress: float, largest: float, steepness: float) -> float:
    """Weight of the reversal, which grows from 0 to `largest` (Ganin et al., JMLR 2016, 5.2.2).

    Args:
        progress: share of the training that is done, 0 to 1.
        largest: lambda.
        steepness: 10 in that paper; 0 keeps it at `largest` from the beginning, as ASP-MTL does.
    """
    if steepness == 0:
        return largest
    return largest * (2 / (1 + math.exp(-steepness * progress)) - 1)


class Discriminator(nn.Module):
    """Which task a shared state comes from.

    Args:
        width: d.
        tasks: K.
    """

    def __init__(self, width: int, tasks: int) -> None:
        super().__init__()
        self.output = nn.Linear(width, tasks)

    def forward(self, shared: Tensor, task: Tensor, weight: float) -> LossSum:
        """Cross entropy, through the reversal, and how often the task is recognised.

        Args:
            shared: (B, d).
            task: int64 (B,).
            weight: of the reversal.
        """
        logits = self.output(reverse_gradient(shared, weight))  # (B, K)
        right = (logits.detach().argmax(dim=1) == task).sum().float()
        loss = F.cross_entropy(logits, task, reduction="sum")
        return LossSum(loss, loss.new_tensor(float(len(task))), right)


def orthogonality(shared: Tensor, private: Tensor, normalised: bool) -> Tensor:
    """How much shared and private states of one task's batch say the same, ||S^T H||_F^2.

    Args:
        shared: S, (B, d).
        private: H, (B, d').
        normalised: rows less the batch's mean and of length 1, as in the public code, so that the
            value lies in 0..B^2 and does not reward small states; else equation 14 as it is.

    Returns:
        Scalar.
    """
    if normalised:
        shared, private = (
            F.normalize(one - one.mean(dim=0, keepdim=True), dim=1) for one in (shared, private)
        )
    return (shared.T @ private).square().sum()
