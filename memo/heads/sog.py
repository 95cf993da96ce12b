"""Gated multitask networks for emotion and personality (Li et al., 2022, SoGMTL).

Every task has a branch: convolutions over the words, their maxima (or means) over the text, end to
end as one dense vector, and an output layer. Behind the convolutions, the maxima and the dense
vector a gate may let the other branches in.

In the published code the other branch reads another text, whichever the batch pairs it with, so
that an answer depends on a stranger's text. Here all branches read the text in question. The
network takes a text for each branch, of any length, so that the published way can be compared in
code; no setting asks for it.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from memo.heads.gates import Gate, GateName, PublishedDenseGate, States, cosine
from memo.model.dropout import Dropout
from memo.words.encoders import Pooling, WordCnn, pool_words

Place: TypeAlias = Literal["convolution", "pooling", "dense"]
PLACES: tuple[Place, ...] = ("convolution", "pooling", "dense")


class SogOutput(NamedTuple):
    """What the network says.

    Attributes:
        logits: of each task, (B, C_k).
        behind: place -> levels -> the states of all branches behind it.
    """

    logits: list[Tensor]
    behind: dict[Place, list[list[States]]]

    def cosines(self) -> dict[Place, Tensor]:
        """Place -> mean cosine similarity of each two branches behind it, if there are two."""
        if len(self.logits) == 1:
            return {}
        return {
            place: torch.stack([_similarity(states) for states in levels]).mean()
            for place, levels in self.behind.items()
        }


class SogNetwork(nn.Module):
    """Branches, gates and output layers of K tasks.

    Args:
        width: D of the token states.
        classes: C_k of each task.
        gate: None lets nothing through; nor is there anything to let through of a single task.
        places: where the gates stand.
        published_dense: the published code's form of the gate at the dense vector.
        widths: words that a filter sees; 1 alone for a backbone's states.
        filters: of each width.
        dropout: of the dense vector.
        pooling: of the convolutions over the text.
    """

    def __init__(
        self,
        width: int,
        classes: Sequence[int],
        gate: GateName | None,
        places: Sequence[Place],
        published_dense: bool = False,
        widths: Sequence[int] = (3, 4, 5),
        filters: int = 256,
        dropout: float = 0.5,
        pooling: Pooling = "max",
    ) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        dense = len(widths) * filters
        self.branches = nn.ModuleList(WordCnn(width, widths, filters) for _ in classes)
        self.outputs = nn.ModuleList(nn.Linear(dense, count) for count in classes)
        self.dropout = Dropout(dropout)
        self.gates = nn.ModuleDict()
        if gate is None or len(classes) == 1:
            return
        for place in places:
            published = published_dense and place == "dense"
            channels = dense if place == "dense" else filters
            self.gates[place] = nn.ModuleList(
                nn.ModuleList(_gate(gate, channels, published) for _ in classes)
                for _ in (widths if place == "convolution" else (1,))
            )

    def forward(self, texts: Sequence[States]) -> SogOutput:
        """Answers of every branch.

        Args:
            texts: what each branch reads; the same for all, unless pairs are wanted as published.
        """
        lengths = [states.lengths for states in texts]
        maps = [branch(*one) for branch, one in zip(self.branches, texts, strict=True)]
        levels = [
            self._gated("convolution", number, _with_lengths(level, lengths))
            for number, level in enumerate(zip(*maps, strict=True))
        ]
        pools = [_pooled(own, self.pooling) for own in zip(*levels, strict=True)]
        pooled = self._gated("pooling", 0, pools)
        dense = self._gated("dense", 0, [_end_to_end(own) for own in pooled])
        logits = [
            output(self.dropout(own.vectors[:, 0])).float()
            for output, own in zip(self.outputs, dense, strict=True)
        ]
        return SogOutput(logits, {"convolution": levels, "pooling": [pooled], "dense": [dense]})

    def _gated(self, place: Place, level: int, states: Sequence[States]) -> list[States]:
        """The states of all tasks behind a place; every gate sees what was before all of them."""
        if place not in self.gates:
            return list(states)
        gates: nn.ModuleList = self.gates[place][level]  # type: ignore[index]
        return [
            States(gate(own, [*states[:task], *states[task + 1 :]]), own.lengths)
            for task, (gate, own) in enumerate(zip(gates, states, strict=True))
        ]


def _gate(name: GateName, channels: int, published: bool) -> nn.Module:
    return PublishedDenseGate(name) if published else Gate(name, channels)


def _with_lengths(maps: Sequence[Tensor], lengths: Sequence[Tensor]) -> list[States]:
    return [States(*one) for one in zip(maps, lengths, strict=True)]


def _pooled(levels: Sequence[States], how: Pooling) -> States:
    """A task's states of each width of filters -> one of the text each, (B, widths, C)."""
    pools = [pool_words(one.vectors, one.lengths, how) for one in levels]
    return States(torch.stack(pools, dim=1), torch.full_like(levels[0].lengths, len(levels)))


def _end_to_end(pooled: States) -> States:
    """(B, widths, C) -> the dense vector (B, 1, widths * C)."""
    return States(pooled.vectors.flatten(1)[:, None], torch.ones_like(pooled.lengths))


def _similarity(states: Sequence[States]) -> Tensor:
    """Mean cosine similarity of each two tasks' states, scalar, without gradient."""
    with torch.no_grad():
        return torch.stack([cosine(one, other) for one, other in combinations(states, 2)]).mean()
