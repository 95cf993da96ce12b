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


class Standardise(nn.Module):
    """(x - centre) * scale, dimension by dimension; both are trained from where `fit` has set them.

    The mean of a sequence's states is nearly the same for all clips: LayerNorm gives each state a
    standard deviation of 1, of which a tenth differs between clips. An optimizer whose steps do not
    depend on the size of the gradients would need hundreds of them to make up for that.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, rows: Tensor) -> Tensor:
        """(S, D) -> (S, D)."""
        return (rows - self.centre) * self.scale

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Make the mean of some rows (S, D), S > 1, zero and their deviation 1."""
        self.centre.copy_(rows.mean(dim=0))
        self.scale.copy_(1 / rows.std(dim=0).clamp(min=1e-3))


class Classifier(Head):
    """Pooling, standardising, one linear layer; before it Linear, GELU, LayerNorm where `deep`.

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
        self.standard = Standardise(spec.hidden)

    def forward(self, states: Sequence[Tensor], batch: PackedBatch, backbone: MemoBert) -> Tensor:
        """See the base class."""
        del backbone
        pooled = self.standard(self.pooled(states, batch))
        logits: Tensor = self.output(self.dropout(self.transform(pooled)))
        return logits.float()

    def pooled(self, states: Sequence[Tensor], batch: PackedBatch) -> Tensor:
        """One state of each sequence, (S, D); arguments of `forward`."""
        hidden = states[-1] if self.mix is None else self.mix(states)  # (N, D)
        if self.pool == "mean":
            return mean_of_sequences(hidden, batch.cu_seqlens)
        return hidden.index_select(0, batch.targets[LABEL].positions)


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
