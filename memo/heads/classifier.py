"""The classification head: pooled hidden state -> class logits."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from memo.config import ModelSpec
from memo.heads.base import LABEL, Head
from memo.model.dropout import Dropout
from memo.model.memobert import MemoBert, initialise
from memo.objectives.heads import HeadTransform


class LayerMix(nn.Module):
    """Learned mean of the embeddings and every layer's output (Peters et al., NAACL 2018).

    What tells the emotion need not be in the last layer, which pretraining has made good at
    guessing words and frames (docs/results.md, where the emotion is).

    Args:
        states: L + 1, how many there are.
    """

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(states))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """L + 1 times (N, D) -> (N, D)."""
        shares = self.weights.softmax(dim=0)
        return torch.stack(list(states), dim=2) @ shares.to(states[0].dtype)


class Classifier(Head):
    """Pooling, then one linear layer; between them Linear, GELU, LayerNorm where `deep`.

    Args:
        spec: the backbone's sizes.
        classes: C.
        pool: `mean` of all hidden states of a sequence, or `cls`, its first.
        layers: of the `last` layer, or of the embeddings and all layers, `mixed`.
        deep: False is the linear probe.
        dropout: before the last layer.
    """

    def __init__(
        self,
        spec: ModelSpec,
        classes: int,
        pool: Literal["mean", "cls"],
        layers: Literal["last", "mixed"],
        deep: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.transform = HeadTransform(spec) if deep else nn.Identity()
        self.dropout = Dropout(dropout if deep else 0.0)
        self.output = nn.Linear(spec.hidden, classes)
        initialise(self, spec.init_std)
        self.mix = LayerMix(spec.layers + 1) if layers == "mixed" else None

    def forward(self, states: Sequence[Tensor], batch: PackedBatch, backbone: MemoBert) -> Tensor:
        """See the base class."""
        del backbone
        hidden = states[-1] if self.mix is None else self.mix(states)  # (N, D)
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
