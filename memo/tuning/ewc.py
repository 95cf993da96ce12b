"""Elastic weight consolidation (Kirkpatrick et al., PNAS 2017): earlier tasks' weights hold on.

The penalty is lambda / 2 * sum over earlier tasks k of F_k (theta - theta_k)^2 (equation 3). F_k is
the diagonal of the Fisher information on task k's own training clips, at the weights that it ended
with: the mean over clips of the expected squared gradient of each clip's log-likelihood. The
public code that this departs from took it on the new task in one direction, and squared the mean
gradient of ten clips.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from memo.tuning.model import TaskModel


@dataclass(frozen=True)
class Memory:
    """What is kept of an earlier task; all by parameter name.

    Attributes:
        fisher: diagonal of the Fisher information.
        weights: where the task ended.
    """

    fisher: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class ElasticPenalty:
    """The penalty of all earlier tasks.

    Attributes:
        memories: one for each.
        strength: lambda.
    """

    memories: Sequence[Memory]
    strength: float

    def __call__(self, model: nn.Module) -> Tensor:
        """The penalty of a model, a scalar."""
        total: Tensor | float = 0.0
        for name in self.memories[0].fisher:
            place, _, leaf = name.rpartition(".")
            # Through its module, so that ZeRO-3 gathers it.
            parameter: Tensor = getattr(model.get_submodule(place), leaf)
            for memory in self.memories:
                fisher = memory.fisher[name].to(parameter.device)
                # Rounded as the parameter is: in bf16 a weight that stays feels no force.
                start = memory.weights[name].to(parameter.device, parameter.dtype)
                moved = parameter.float() - start.float()
                total = total + (fisher * moved.square()).sum()
        assert isinstance(total, Tensor), "something is trained"
        return self.strength / 2 * total


class FisherSum(NamedTuple):
    """Diagonals of the Fisher information, summed over clips; those of several ranks add up.

    Attributes:
        sums: parameter name -> float32, for those that are trained.
        clips: how many.
    """

    sums: Mapping[str, Tensor]
    clips: int


def diagonal_fisher(model: TaskModel, batches: Iterable[PackedBatch]) -> FisherSum:
    """Diagonal of each clip's Fisher information, summed.

    The expectation over the classes is taken under the model itself, class by class: the labels
    play no part (Kunstner et al., NeurIPS 2019, on why the "empirical" Fisher is another thing).

    Args:
        model: plain, with the weights of the task; dropout is switched off.
        batches: of one clip each.
    """
    model.eval()
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    parameters = [one for _, one in named]
    sums = [torch.zeros_like(one) for one in parameters]
    clips = 0
    for batch in batches:
        assert len(batch.seqlens) == 1, "one clip at a time"
        logs = model.logits(batch).log_softmax(dim=1)[0]  # (C,)
        clips += 1
        for log in logs:
            gradients = torch.autograd.grad(log, parameters, retain_graph=True, allow_unused=True)
            for at, gradient in enumerate(gradients):
                if gradient is not None:
                    sums[at] += log.detach().exp() * gradient.square()
    model.train()
    return FisherSum({name: one for (name, _), one in zip(named, sums, strict=True)}, clips)
