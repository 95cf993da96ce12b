"""Shared-private multitask networks for text (Liu, Qiu and Huang, ACL 2017, ASP-MTL).

- `fs`: one shared encoder, an output layer a task.
- `sp`: a private encoder a task beside it; shared and private states stand end to end.
- `asp`: `sp`, with a discriminator that the shared encoder must not satisfy, and shared and private
  states that must not say the same.

A batch is of one task, or unlabelled text of it, which enters the two adversarial losses alone.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memo.heads.adversary import Discriminator, orthogonality
from memo.heads.gates import States
from memo.model.dropout import Dropout
from memo.objectives.base import LossSum

Sharing: TypeAlias = Literal["fs", "sp", "asp"]


class Encoder(Protocol):
    """What makes one state of a text; `memo.words.encoders.WordLstm` is one.

    Attributes:
        width: d, of the state.
    """

    width: int

    def __call__(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), int64 (B,) -> (B, d)."""
        ...


class AspStates(NamedTuple):
    """What the encoders say of B texts of one task.

    Attributes:
        shared: (B, d).
        private: (B, d); None where nothing is private.
    """

    shared: Tensor
    private: Tensor | None


class AspNetwork(nn.Module):
    """Encoders, output layers and the discriminator of K tasks.

    Args:
        encoder: makes a new one, a module.
        classes: C_k of each task.
        sharing: which network.
        normalised: form of the orthogonality (see `orthogonality`).
        dropout: of the states, before the output layer.
    """

    def __init__(
        self,
        encoder: Callable[[], nn.Module],
        classes: Sequence[int],
        sharing: Sharing,
        normalised: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.sharing = sharing
        self.normalised = normalised
        self.shared = encoder()
        alone = sharing == "fs"
        self.private = nn.ModuleList(encoder() for _ in classes if not alone)
        width = cast("Encoder", self.shared).width
        self.dropout = Dropout(dropout)
        self.outputs = nn.ModuleList(
            nn.Linear(width if alone else 2 * width, count) for count in classes
        )
        if sharing == "asp":
            self.discriminator = Discriminator(width, len(classes))

    def encode(self, texts: States, task: int) -> AspStates:
        """The states of texts of one task."""
        private = self.private[task](*texts) if len(self.private) else None
        return AspStates(self.shared(*texts), private)

    def logits(self, states: AspStates, task: int) -> Tensor:
        """(B, C_k)."""
        parts = [one for one in states if one is not None]
        logits: Tensor = self.outputs[task](self.dropout(torch.cat(parts, dim=1)))
        return logits

    def forward(
        self, texts: States, task: int, labels: Tensor | None, weight: float
    ) -> dict[str, LossSum]:
        """Losses of a batch of one task.

        Args:
            texts: B word or token states.
            task: its number.
            labels: int64 (B,); None of unlabelled text.
            weight: of the gradient reversal.

        Returns:
            `label`, with the right answers as its metric; of `asp` also `adversary`, with the
            texts whose task is recognised, and `difference`, a sum over batches.
        """
        states, losses = self.encode(texts, task), {}
        if labels is not None:
            logits = self.logits(states, task)
            right = (logits.detach().argmax(dim=1) == labels).sum().float()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            losses["label"] = LossSum(loss, loss.new_tensor(float(len(labels))), right)
        if self.sharing == "asp":
            numbers = torch.full_like(texts.lengths, task)
            losses["adversary"] = self.discriminator(states.shared, numbers, weight)
            assert states.private is not None, "asp has private encoders"
            apart = orthogonality(states.shared, states.private, self.normalised)
            losses["difference"] = LossSum(apart, apart.new_ones(()), apart.detach())
        return losses


class Transfer(nn.Module):
    """A new task on the frozen shared encoder of others (section 5.4 of the paper).

    Args:
        shared: trained on the other tasks; it is frozen.
        classes: C.
        private: a new encoder beside it (bi-channel); None for the shared one alone.
    """

    def __init__(self, shared: nn.Module, classes: int, private: nn.Module | None) -> None:
        super().__init__()
        self.shared = shared.requires_grad_(requires_grad=False)
        self.private = private
        width = cast("Encoder", shared).width
        self.output = nn.Linear(width if private is None else 2 * width, classes)

    def forward(self, texts: States) -> Tensor:
        """(B, C)."""
        parts = [self.shared(*texts)]
        if self.private is not None:
            parts.append(self.private(*texts))
        logits: Tensor = self.output(torch.cat(parts, dim=1))
        return logits
