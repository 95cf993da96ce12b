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

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GateName: TypeAlias = Literal["sig", "silg", "sog", "cag"]


def align_length(other: Tensor, length: int) -> Tensor:
    """Another task's positions at the own task's number of positions.

    The published gates need texts of equal length although the two tasks' are not. Fewer positions
    are means of neighbours, more are neighbours repeated, so that beginnings and ends meet.

    Args:
        other: (B, T', C).
        length: T.

    Returns:
        (B, T, C).
    """
    if other.shape[1] == length:
        return other
    return F.adaptive_avg_pool1d(other.transpose(1, 2), length).transpose(1, 2)


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

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """What the own task goes on with.

        Args:
            own: (B, T, C).
            other: (B, T', C); T' = 1 reaches every position.

        Returns:
            (B, T, C).
        """
        if self.name == "cag":
            scores: Tensor = self.bilinear(own) @ other.transpose(1, 2)  # (B, T, T')
            return own + scores.softmax(dim=2) @ other
        if self.name == "sig":
            passed = other.sigmoid()
        elif self.name == "silg":
            passed = F.silu(other)
        else:
            passed = other.softmax(dim=2) * other
        return own + align_length(passed, own.shape[1])


class PublishedDenseGate(nn.Module):
    """The form of the dense level in the published code.

    Args:
        name: which gate.
    """

    def __init__(self, name: GateName) -> None:
        super().__init__()
        self.name = name

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """Own * sigmoid(other); of `silg` own + sigmoid(own) * own. Shapes of `Gate`, T = T'."""
        return own + F.silu(own) if self.name == "silg" else own * other.sigmoid()


def cosine(own: Tensor, other: Tensor) -> Tensor:
    """Mean cosine similarity of two tasks' hidden states, by which the paper watches its gates.

    Args:
        own: (B, T, C).
        other: (B, T', C).

    Returns:
        Scalar.
    """
    return torch.cosine_similarity(own, align_length(other, own.shape[1]), dim=2).mean()
