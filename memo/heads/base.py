"""The contract of a head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from memo.model.memobert import MemoBert

LABEL = "label"
"""Name of a head's targets in a batch: position of the sequence's [CLS] or [MASK], and int64 (2,):
class, -1 if unknown, and number of the clip's language among the task's."""


class Head(nn.Module, ABC):
    """Class scores of every sequence of a batch."""

    @abstractmethod
    def forward(self, states: Sequence[Tensor], batch: PackedBatch, backbone: MemoBert) -> Tensor:
        """Logits.

        Args:
            states: (N, D) each: the backbone's embeddings and the output of each layer, the last
                one last.
            batch: S sequences, each with one target of name `LABEL`.
            backbone: gives tied weights.

        Returns:
            (S, C), float32.
        """
