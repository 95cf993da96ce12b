"""The classification head: pooled hidden state -> class logits."""

from typing import Literal

import torch
from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from memo.config import ModelSpec
from memo.heads.base import LABEL, Head
from memo.model.dropout import Dropout
from memo.model.memobert import MemoBert, initialise
from memo.objectives.heads import HeadTransform


class Classifier(Head):
    """Pooling, then one linear layer; between them Linear, GELU, LayerNorm where `deep`.

    Args:
        spec: the backbone's sizes.
        classes: C.
        pool: `mean` of all hidden states of a sequence, or `cls`, its first.
        deep: False is the linear probe.
        dropout: before the last layer.
    """

    def __init__(
        self,
        spec: ModelSpec,
        classes: int,
        pool: Literal["mean", "cls"],
        deep: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.transform = HeadTransform(spec) if deep else nn.Identity()
        self.dropout = Dropout(dropout if deep else 0.0)
        self.output = nn.Linear(spec.hidden, classes)
        initialise(self, spec.init_std)

    def forward(self, hidden: Tensor, batch: PackedBatch, backbone: MemoBert) -> Tensor:
        """See the base class."""
        del backbone
        if self.pool == "mean":
            pooled = mean_of_sequences(hidden, batch.cu_seqlens)
        else:
            pooled = hidden.index_select(0, batch.targets[LABEL].positions)
        logits: Tensor = self.output(self.dropout(self.transform(pooled)))
        return logits.float()


def mean_of_sequences(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Mean hidden state of each sequence.

    Args:
        hidden: (N, D).
        cu_seqlens: int32 (S + 1,).

    Returns:
        (S, D).
    """
    lengths = cu_seqlens.diff().long()  # (S,)
    numbers = torch.arange(len(lengths), device=hidden.device)
    sequence = torch.repeat_interleave(numbers, lengths, output_size=len(hidden))  # (N,)
    sums = hidden.new_zeros(len(lengths), hidden.shape[1], dtype=torch.float32)
    means = sums.index_add(0, sequence, hidden.float()) / lengths[:, None]
    return means.to(hidden.dtype)
