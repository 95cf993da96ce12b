"""Gates through which one task's hidden states reach another's (Li et al., 2022, SoGMTL).

With h of the own task and c of the other's, both (B, T, C):

| gate | h becomes |
|---|---|
| `sig` | h + sigmoid(c) |
| `silg` | h + sigmoid(c) * c |
| `sog` | h + softmax(c over channels) * c |
| `cag` | h + A c, A = softmax(h W c^T over the other's positions) |

That is the description's form. The published code has another one for the dense vector, which is
also to be had: h * sigmoid(c), and for `silg` h + sigmoid(h) * h, through which nothing passes.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GateName: TypeAlias = Literal["sig", "silg", "sog", "cag"]


class States(NamedTuple):
    """Hidden states of B texts, T positions at most.

    Attributes:
        vectors: (B, T, C).
        lengths: int64 (B,), at least 1; what stands behind them does not count.
    """

    vectors: Tensor
    lengths: Tensor

    @property
    def inside(self) -> Tensor:
        """Which positions count, bool (B, T)."""
        places = torch.arange(self.vectors.shape[1], device=self.vectors.device)
        return places < self.lengths[:, None]


def align_length(other: States, own: States) -> Tensor:
    """Another task's states at the own task's positions.

    The published gates need texts of equal length although the two tasks' are not. Fewer positions
    are means of neighbours, more are neighbours repeated, so that beginnings and ends meet.

    Args:
        other: (B, T', C).
        own: (B, T, C).

    Returns:
        (B, T, C), zero behind the own text.
    """
    if torch.equal(other.lengths, own.lengths):
        return other.vectors * other.inside[:, :, None]
    place = torch.arange(own.vectors.shape[1], device=own.vectors.device)  # (T,)
    place = torch.minimum(place, own.lengths[:, None] - 1)  # (B, T)
    ratio = other.lengths[:, None], own.lengths[:, None]
    begin = place * ratio[0] // ratio[1]
    end = -(-(place + 1) * ratio[0] // ratio[1])
    sums = nn.functional.pad(other.vectors, (0, 0, 1, 0)).cumsum(dim=1)  # (B, T' + 1, C)
    width = sums.shape[2]
    upto, before = (sums.gather(1, one[:, :, None].expand(-1, -1, width)) for one in (end, begin))
    return (upto - before) / (end - begin)[:, :, None] * own.inside[:, :, None]


class Gate(nn.Module):
    """One of the four gates.

    Args:
        name: which.
        channels: C.
    """

    def __init__(self, name: GateName, channels: int) -> None:
        super().__init__()
        self.name = name
        if name == "cag":
            self.bilinear = nn.Linear(channels, channels, bias=False)

    def forward(self, own: States, others: Sequence[States]) -> Tensor:
        """What the own task goes on with.

        Args:
            own: (B, T, C).
            others: of each other task (B, T', C).

        Returns:
            (B, T, C).
        """
        passed = torch.stack([self._passed(own, other) for other in others])
        return own.vectors + passed.sum(dim=0)

    def _passed(self, own: States, other: States) -> Tensor:
        """What of another task comes through, (B, T, C)."""
        vectors = other.vectors
        if self.name == "cag":
            scores = self.bilinear(own.vectors) @ vectors.transpose(1, 2)  # (B, T, T')
            scores = scores.masked_fill(~other.inside[:, None], -torch.inf)
            passed: Tensor = scores.softmax(dim=2) @ vectors
            return passed
        if self.name == "sig":
            vectors = vectors.sigmoid()
        elif self.name == "silg":
            vectors = F.silu(vectors)
        else:
            vectors = vectors.softmax(dim=2) * vectors
        return align_length(States(vectors, other.lengths), own)


class PublishedDenseGate(nn.Module):
    """The form of the dense level in the published code.

    Args:
        name: which gate.
    """

    def __init__(self, name: GateName) -> None:
        super().__init__()
        self.name = name

    def forward(self, own: States, others: Sequence[States]) -> Tensor:
        """Own * sigmoid(other); of `silg` own + sigmoid(own) * own. Shapes of `Gate`, T = T'."""
        if self.name == "silg":
            return own.vectors + F.silu(own.vectors)
        return own.vectors * torch.stack([one.vectors.sigmoid() for one in others]).prod(dim=0)


def cosine(own: States, other: States) -> Tensor:
    """Mean cosine similarity of two tasks' hidden states, by which the paper watches its gates.

    Args:
        own: (B, T, C).
        other: (B, T', C).

    Returns:
        Scalar.
    """
    similar = torch.cosine_similarity(own.vectors, align_length(other, own), dim=2)  # (B, T)
    return similar[own.inside].mean()
