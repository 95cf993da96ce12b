"""Sums over a split, from which an objective's figures under one set of modalities follow."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memo.model.memobert import MemoBert
from memo.objectives.base import Objective, PositionScores
from memo.objectives.masking import MaskedClip

BASELINE_OF_WORDS = "most frequent word"


@dataclass(frozen=True)
class Condition:
    """An objective's figures under one set of visible modalities.

    Attributes:
        visible: the modalities in the sequence; of the hidden one, what is not masked.
        clips: clips that have all of these modalities and something to predict.
        positions: words or rows that were predicted, over all repetitions.
        figures: name -> value, e.g. `{"accuracy": 0.9, "perplexity": 1.4}`; empty if nothing was
            predicted.
        baselines: simple predictor -> the same figure as the first of `figures`, at the same
            positions.
    """

    visible: tuple[str, ...]
    clips: int
    positions: int
    figures: Mapping[str, float]
    baselines: Mapping[str, float]


class Tally(Protocol):
    """Collects the scores of one objective under one set of visible modalities."""

    def add(self, scores: PositionScores, clips: Sequence[MaskedClip]) -> None:
        """Add the scores (M,) of the targets of these clips, in order."""

    def condition(self, visible: tuple[str, ...]) -> Condition:
        """The figures of all that was added."""


@dataclass
class WordTally:
    """Accuracy of whole words and perplexity of pieces.

    A word is right if all its pieces are. Perplexity is exp(mean cross entropy), the mean taken
    over pieces, as is usual for masked language models. The baseline answers with the most
    frequent of the hidden words, always: no other constant answer is right as often.
    """

    samples: set[int] = field(default_factory=set)
    right: int = 0
    pieces: int = 0
    loss: float = 0.0
    words: Counter[tuple[int, ...]] = field(default_factory=Counter)

    def add(self, scores: PositionScores, clips: Sequence[MaskedClip]) -> None:
        """Add the scores (M,) of the hidden pieces of these clips, in order."""
        correct = scores.metric.cpu().numpy() > 0
        self.loss += float(scores.loss.double().sum())
        self.pieces += len(correct)
        self.samples.update(clip.sample for clip in clips)
        begin = 0
        for clip in clips:
            for word in _hidden_words(clip):
                self.words[tuple(word.tolist())] += 1
                self.right += bool(correct[begin : begin + len(word)].all())
                begin += len(word)
        assert begin == len(correct), "the scores are not those of these clips"

    def condition(self, visible: tuple[str, ...]) -> Condition:
        """The figures of all that was added."""
        words = self.words.total()
        if not words:
            return Condition(visible, 0, 0, {}, {})
        figures = {
            "accuracy": self.right / words,
            "perplexity": math.exp(self.loss / self.pieces),
        }
        baseline = {BASELINE_OF_WORDS: self.words.most_common(1)[0][1] / words}
        return Condition(visible, len(self.samples), words, figures, baseline)


@dataclass
class RowTally:
    """Mean loss and metric of frame rows, beside the objective's baselines at the same rows.

    Attributes:
        objective: names the figures and knows the baselines.
        backbone: gives the baselines the feature normalisation.
    """

    objective: Objective
    backbone: MemoBert
    samples: set[int] = field(default_factory=set)
    rows: int = 0
    loss: float = 0.0
    metric: float = 0.0
    baselines: dict[str, float] = field(default_factory=dict)

    def add(self, scores: PositionScores, clips: Sequence[MaskedClip]) -> None:
        """Add the scores (M,) of the hidden rows of these clips, in order."""
        self.rows += len(scores.loss)
        self.loss += float(scores.loss.double().sum())
        self.metric += float(scores.metric.double().sum())
        for clip in clips:
            if self.objective.targets(clip) is not None:
                self.samples.add(clip.sample)
                for name, loss in self.objective.baselines(clip, self.backbone).items():
                    self.baselines[name] = self.baselines.get(name, 0.0) + loss

    def condition(self, visible: tuple[str, ...]) -> Condition:
        """The figures of all that was added."""
        if not self.rows:
            return Condition(visible, 0, 0, {}, {})
        figures = {
            self.objective.loss_name: self.loss / self.rows,
            self.objective.metric: self.metric / self.rows,
        }
        baselines = {name: loss / self.rows for name, loss in self.baselines.items()}
        return Condition(visible, len(self.samples), self.rows, figures, baselines)


def new_tally(objective: Objective, backbone: MemoBert) -> Tally:
    """Words are counted for an objective that hides text, rows for the others."""
    return WordTally() if objective.modality == "text" else RowTally(objective, backbone)


def _hidden_words(clip: MaskedClip) -> list[NDArray[np.int64]]:
    """The pieces of each hidden word, in order."""
    pieces = clip.text_targets[clip.text_masked]
    ends = np.flatnonzero(np.diff(clip.words[clip.text_masked])) + 1
    return np.split(pieces, ends) if len(pieces) else []
