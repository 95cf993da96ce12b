"""A task that was left out, learned on what the others share (section 5.4 of ASP-MTL)."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from data_pipeline.packing import PackedBatch
from memo.heads.asp_mtl import AspNetwork, Transfer
from memo.multitask.base import System, TaskKind, TextSystem, task_loss
from memo.multitask.batches import TaskBatch
from memo.multitask.encoders import AdapterEncoder, WordEncoder
from memo.multitask.setup import Blueprint, Recipe
from memo.objectives.base import LossSum

CHANNELS: Mapping[str, bool] = {"single channel": False, "bi-channel": True}
"""Name of the view -> whether a private encoder stands beside the shared one."""


class TransferSystem(TextSystem):
    """A new task on the frozen shared encoder of others.

    Args:
        kind: the task.
        trained: on the others, with a shared encoder, which is frozen.
        both: with a private encoder beside it.
    """

    def __init__(self, kind: TaskKind, trained: AspNetwork, both: bool) -> None:
        super().__init__([kind])
        self.weights = {kind.name: 1.0}
        shared = trained.shared
        assert isinstance(shared, WordEncoder | AdapterEncoder), "the encoders there are"
        private = shared.fresh() if both else None
        dropout = trained.dropout.probability
        self.network = Transfer(trained.reader, shared, kind.outputs, private, dropout)

    def logits(self, texts: PackedBatch, task: int) -> Tensor:
        """See the base class."""
        del task
        logits: Tensor = self.network(texts)
        return logits

    def forward(self, batch: TaskBatch) -> dict[str, LossSum]:
        """See the base class."""
        found = task_loss(self.logits(batch.texts, 0), batch.texts, multi_label=False)
        return self.all_losses({self.tasks[0].name: found}, found.sum)


class Learner(Recipe):
    """Samples and training of a transfer; it builds no model, for that one needs another's."""

    name: ClassVar[str] = "transfer"

    def build(self, blueprint: Blueprint) -> System:
        """It is given to the training by `AspMtl.then`."""
        raise NotImplementedError
