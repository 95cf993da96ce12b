"""What a system is to its trainer: losses of a task's batch, and answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.packing import PackedBatch
from memo.heads.base import LABEL
from memo.multitask.batches import TaskBatch
from memo.objectives.base import LossSum


@dataclass(frozen=True)
class TaskKind:
    """What a task asks.

    Attributes:
        name: of the task, and of its loss.
        outputs: C classes, or K traits.
        multi_label: each output is told on its own.
    """

    name: str
    outputs: int
    multi_label: bool


class System(nn.Module, ABC):
    """A model of several tasks.

    Args:
        tasks: in the order of their numbers.

    Attributes:
        weights: loss -> its factor.
        progress: share of the training that is done, 0 to 1.
    """

    weights: Mapping[str, float]

    def __init__(self, tasks: Sequence[TaskKind]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.progress = 0.0

    @abstractmethod
    def forward(self, batch: TaskBatch) -> dict[str, LossSum]:
        """Every loss of `weights`; those that the batch has no part in are zero."""

    def counts(self, task: int, texts: PackedBatch, labelled: bool) -> dict[str, int]:
        """What the sums of a batch's losses are to be divided by."""
        return {self.tasks[task].name: len(texts.seqlens)} if labelled else {}

    @abstractmethod
    def answers(self, texts: PackedBatch, task: int) -> dict[str, Tensor]:
        """Probabilities float32 (S, C) or (S, K) by the name of the view.

        A row of NaN means that the text cannot be answered.
        """

    def calibrate(
        self, batches: Iterable[PackedBatch], over_ranks: Callable[[Tensor], Tensor]
    ) -> None:
        """Measure what is to be known of the first task's training texts.

        It is called before the first step, after every epoch, and before the test.

        Args:
            batches: this rank's share of them.
            over_ranks: the sum of the ranks' values.
        """
        del batches, over_ranks

    def traces(self, texts: PackedBatch, task: int) -> dict[str, Tensor]:
        """What is watched during training: name -> scalar, a mean over the texts."""
        del texts, task
        return {}

    def all_losses(self, found: Mapping[str, LossSum], anchor: Tensor) -> dict[str, LossSum]:
        """The losses that were found, and zeros for the others.

        Args:
            found: some of them.
            anchor: any tensor of the right device.
        """
        zero = anchor.detach().new_zeros(())
        return {name: found.get(name, LossSum(zero, zero, zero)) for name in self.weights}


class TextSystem(System):
    """A system whose views are its tasks."""

    @abstractmethod
    def logits(self, texts: PackedBatch, task: int) -> Tensor:
        """Of S texts of a task, (S, C) or (S, K)."""

    def answers(self, texts: PackedBatch, task: int) -> dict[str, Tensor]:
        """See the base class."""
        kind = self.tasks[task]
        return {kind.name: probabilities(self.logits(texts, task).float(), kind.multi_label)}


def task_loss(logits: Tensor, texts: PackedBatch, multi_label: bool) -> LossSum:
    """Cross entropy, or the soft margin of every trait (mean over traits), and right answers.

    Args:
        logits: (S, C) or (S, K).
        texts: S of them, with their targets.
        multi_label: which of the two.
    """
    targets = texts.targets[LABEL].values  # (S, 1) or (S, K)
    if multi_label:
        loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
        loss = loss / logits.shape[1]
        right = ((logits.detach() > 0) == targets.bool()).float().mean(dim=1).sum()
    else:
        loss = F.cross_entropy(logits, targets[:, 0], reduction="sum")
        right = (logits.detach().argmax(dim=1) == targets[:, 0]).sum().float()
    return LossSum(loss, loss.new_tensor(float(len(targets))), right)


def probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    """Of every class, or of every trait; shape of the logits."""
    return logits.sigmoid() if multi_label else logits.softmax(dim=1)
