"""The model of a tuning run: backbone, head, and what of them is trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.packing import PackedBatch
from memo.heads.base import LABEL, Head
from memo.heads.classifier import Classifier
from memo.model.memobert import MemoBert
from memo.objectives.base import LossSum
from memo.tuning.base import Parts, TuningMode, stays_pretrained

Penalty: TypeAlias = Callable[[nn.Module], Tensor]
"""Model -> scalar."""


class TaskModel(nn.Module):
    """Class logits, or their loss, of packed batches.

    Args:
        backbone: gives hidden states.
        head: makes logits (S, C) of them.
        class_weights: float32 (C,), factor of each class's loss.

    Attributes:
        penalty: added to the mean loss of a step, if any.
    """

    class_weights: Tensor
    penalty: "Penalty | None" = None

    def __init__(self, backbone: MemoBert, head: Head, class_weights: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, batch: PackedBatch) -> dict[str, LossSum]:
        """Sums of cross entropy and of right answers; every sequence must have a class."""
        logits = self.logits(batch)  # (S, C)
        labels = batch.targets[LABEL].values[:, 0]  # (S,)
        loss = F.cross_entropy(logits, labels, self.class_weights, reduction="sum")
        if self.penalty is not None:  # the sum is divided by the number of clips in the end
            loss = loss + len(labels) * self.penalty(self)
        right = (logits.detach().argmax(dim=1) == labels).sum().float()
        return {LABEL: LossSum(loss, loss.new_tensor(float(len(labels))), right)}

    @torch.no_grad()
    def standardise(self, batches: Iterable[PackedBatch]) -> None:
        """Let a new classifier see states whose mean over some clips is 0 and deviation 1."""
        if not isinstance(self.head, Classifier):
            return
        training = self.training
        self.eval()
        rows = [self.head.pooled(self.backbone.states(batch), batch) for batch in batches]
        self.train(training)
        self.head.standard.fit(torch.cat(rows))

    def logits(self, batch: PackedBatch) -> Tensor:
        """float32 (S, C)."""
        logits: Tensor = self.head(self.backbone.states(batch), batch, self.backbone)
        return logits


def build_task_model(modes: Sequence[TuningMode], parts: Parts, class_weights: Tensor) -> TaskModel:
    """Put a model together and freeze what its modes do not train.

    Raises:
        UserError: a mode lacks something.
    """
    heads = [head for mode in modes if (head := mode.head(parts)) is not None]
    settings = parts.config.head
    head = (
        heads[0]
        if heads
        else Classifier(
            parts.backbone.spec,
            parts.classes,
            settings.pool,
            settings.layers,
            deep=True,
            dropout=settings.dropout,
        )
    )
    for mode in modes:
        mode.extend(parts)
    model = TaskModel(parts.backbone, head, class_weights)
    frozen = parts.config.frozen_layers
    for name, parameter in model.named_parameters():
        trained = any(mode.trains(name) for mode in modes)
        parameter.requires_grad_(trained and not stays_pretrained(name, frozen))
    return model


def balanced_weights(counts: Tensor) -> Tensor:
    """Weights n / (C n_c), so that every class weighs the same in all.

    Args:
        counts: int64 (C,), clips of each class; one that has none does not count in C.

    Returns:
        float32 (C,).
    """
    present = int((counts > 0).sum())
    return (counts.sum() / (present * counts.clamp(min=1))).float()


@torch.no_grad()
def load_trained(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put trained parameters back; some may be left as they are, none may be unknown."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)
