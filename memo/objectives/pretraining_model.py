"""The backbone with the heads of all objectives: what the training engine wraps."""

from typing import cast

from torch import nn

from data_pipeline.packing import PackedBatch
from memo.model.memobert import MemoBert
from memo.objectives.base import LossSum, Objective


class PretrainingModel(nn.Module):
    """One forward pass of the backbone serves every objective.

    Each head runs in every step, with zero rows if a micro-batch has no target for it, so that
    with ZeRO-3 no rank waits for another to gather a head's weights.

    Args:
        backbone: gives hidden states (N, D).
        objectives: name -> `Objective`, from `build_objectives`.
    """

    def __init__(self, backbone: MemoBert, objectives: nn.ModuleDict) -> None:
        super().__init__()
        self.backbone = backbone
        self.objectives = objectives

    @property
    def by_name(self) -> dict[str, Objective]:
        """The objectives, in the order of the settings."""
        return {name: cast(Objective, module) for name, module in self.objectives.items()}

    def forward(self, batch: PackedBatch) -> dict[str, LossSum]:
        """Loss, count and metric sums of every objective in a micro-batch."""
        hidden = self.backbone(batch)  # (N, D)
        losses = {}
        for name, objective in self.by_name.items():
            targets = batch.targets[name]
            losses[name] = objective(
                hidden.index_select(0, targets.positions), targets.values, self.backbone
            )
        return losses
