"""Seven classifiers over three modalities (Page Fortin and Chaib-draa, ICPRAM 2019).

Each modality's encoder gives one state of a post or clip. There is a classifier for every non-empty
subset of the modalities, and the loss is the sum of theirs; one that needs a modality which a
sample lacks says nothing about that sample. An answer is given by the classifier that needs exactly
what is there.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memo.objectives.base import LossSum
from memo.words.encoders import WordCnn, pool_words


def subsets(count: int) -> list[tuple[int, ...]]:
    """All non-empty subsets of so many modalities, the smallest first."""
    return [one for size in range(1, count + 1) for one in combinations(range(count), size)]


class TrimodalNetwork(nn.Module):
    """A classifier for every subset: Linear 256, ReLU, Linear 128, ReLU, Linear C.

    Args:
        modalities: their names.
        width: of each modality's state.
        classes: C.
        chosen: subsets that have a classifier; None for all.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        classes: int,
        chosen: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.subsets = subsets(len(modalities)) if chosen is None else list(chosen)
        self.classifiers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(len(subset) * width, 256),
                nn.ReLU(),
                nn.Linear(256, 128),
                nn.ReLU(),
                nn.Linear(128, classes),
            )
            for subset in self.subsets
        )

    def name(self, subset: Sequence[int]) -> str:
        """E.g. `image+text`."""
        return "+".join(self.modalities[one] for one in subset)

    def logits(self, states: Tensor) -> Tensor:
        """Of every classifier for every sample, whatever it has: (7, B, C), or fewer than 7.

        Args:
            states: (B, modalities, width); what a sample lacks may hold anything finite.
        """
        answers = [
            classifier(states[:, list(subset)].flatten(1))
            for classifier, subset in zip(self.classifiers, self.subsets, strict=True)
        ]
        return torch.stack(answers).float()

    def forward(self, states: Tensor, present: Tensor, labels: Tensor) -> dict[str, LossSum]:
        """Loss and right answers of each classifier on the samples that have what it needs.

        Args:
            states: (B, modalities, width).
            present: bool (B, modalities).
            labels: int64 (B,).
        """
        logits = self.logits(states)
        losses = {}
        for subset, own in zip(self.subsets, logits, strict=True):
            counts = present[:, list(subset)].all(dim=1).float()  # (B,)
            loss = (F.cross_entropy(own, labels, reduction="none") * counts).sum()
            right = ((own.detach().argmax(dim=1) == labels) * counts).sum()
            losses[self.name(subset)] = LossSum(loss, counts.sum(), right)
        return losses

    def predict(self, states: Tensor, present: Tensor) -> Tensor:
        """Probabilities (B, C), by the classifier of exactly what is there, if all have one.

        Args:
            states: (B, modalities, width).
            present: bool (B, modalities), at least one of each sample.
        """
        logits = self.logits(states)  # (7, B, C)
        places = torch.arange(present.shape[1], device=present.device)
        needs = torch.stack([torch.isin(places, places[list(one)]) for one in self.subsets])
        fits = (needs[:, None] == present[None]).all(dim=2)  # (7, B)
        chosen = fits.int().argmax(dim=0)  # (B,)
        samples = torch.arange(len(chosen), device=chosen.device)
        return logits[chosen, samples].softmax(dim=1)


class PooledText(nn.Module):
    """Text: convolutions, their maxima, means and minima, one layer.

    Args:
        width: D of the word vectors.
        filters: of each of the widths 3, 4 and 5.
        out: width of the state.
        dropout: of the word vectors.
    """

    def __init__(
        self, width: int, filters: int = 100, out: int = 300, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.cnn = WordCnn(width, (3, 4, 5), filters)
        self.output = nn.Linear(9 * filters, out)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), int64 (B,) -> (B, out)."""
        maps = self.cnn(self.dropout(vectors), lengths)
        pooled = [pool_words(one, lengths, how) for one in maps for how in ("max", "mean", "min")]
        state: Tensor = self.output(torch.cat(pooled, dim=1))
        return state


class PooledTags(nn.Module):
    """Tags, whose order says nothing: a vector each, one layer, ReLU, maxima.

    Args:
        width: D of the tags' vectors.
        out: width of the state.
    """

    def __init__(self, width: int = 250, out: int = 300) -> None:
        super().__init__()
        self.output = nn.Linear(width, out)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D), int64 (B,) -> (B, out)."""
        return pool_words(self.output(vectors).relu(), lengths, "max")
