"""Sums over a split, against figures worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from memo.config import ModelSpec, ObjectiveSettings
from memo.evaluation.metrics import RowTally, WordTally
from memo.model.memobert import MemoBert
from memo.objectives import Objective, build_objectives
from memo.objectives.base import PositionScores
from memo.objectives.masking import MaskedClip


def _text(sample: int, words: list[int], targets: list[int], masked: list[int]) -> MaskedClip:
    nothing = np.zeros((0, 4), dtype=np.float16)
    ids = np.array(targets)
    return MaskedClip(
        sample=sample,
        key=str(sample),
        hidden="text",
        text_ids=ids,
        text_targets=ids,
        words=np.array(words),
        text_masked=np.isin(np.arange(len(ids)), masked),
        face=nothing,
        expression=nothing.astype(np.float32),
        face_masked=np.zeros(0, dtype=bool),
        speech=nothing,
        speech_masked=np.zeros(0, dtype=bool),
    )


def _scores(loss: list[float], metric: list[float]) -> PositionScores:
    return PositionScores(torch.tensor(loss), torch.tensor(metric))


def test_a_word_is_right_if_all_its_pieces_are() -> None:
    tally = WordTally()
    # Words (7 8), (9), (7 8) are hidden: the first is half right, the others right.
    first = _text(0, [-1, 0, 0, 1, 2, -1], [2, 7, 8, 5, 9, 3], masked=[1, 2, 4])
    second = _text(1, [-1, 0, 0, -1], [2, 7, 8, 3], masked=[1, 2])
    tally.add(_scores([0.5, 1.5, 1.0, 0.0, 0.0], [1, 0, 1, 1, 1]), [first, second])
    result = tally.condition(("text",))
    assert (result.clips, result.positions) == (2, 3)
    assert result.figures == {
        "accuracy": pytest.approx(2 / 3),
        "perplexity": pytest.approx(np.exp(3 / 5)),
    }
    assert result.baselines == {"most frequent word": pytest.approx(2 / 3)}  # always "7 8"


def test_adjacent_words_are_told_apart_and_repetitions_are_one_clip() -> None:
    tally = WordTally()
    clip = _text(4, [-1, 0, 1, -1], [2, 7, 7, 3], masked=[1, 2])
    for right in (1.0, 0.0):
        tally.add(_scores([0.0, 0.0], [1.0, right]), [clip])
    result = tally.condition(("text",))
    assert (result.clips, result.positions) == (1, 4)
    assert result.figures["accuracy"] == 3 / 4
    assert result.baselines["most frequent word"] == 1


def test_nothing_added_gives_no_figures() -> None:
    assert WordTally().condition(("text",)).figures == {}


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(
        hidden=8, heads=2, vocab_size=9, face_dim=2, face_classes=3, speech_dim=2, layers=1
    )


def test_rows_are_averaged_beside_the_baselines_at_the_same_rows(spec: ModelSpec) -> None:
    backbone = MemoBert(spec)  # statistics: mean 0, variance 1
    objective = build_objectives({"span_mvfr": ObjectiveSettings()}, spec)["span_mvfr"]
    assert isinstance(objective, Objective)
    face = np.array([[1, 1], [3, 1], [2, 5], [4, 1]], dtype=np.float16)
    clip = replace(
        _text(0, [], [], []),
        hidden="face",
        face=face,
        expression=np.zeros((4, 3), dtype=np.float32),
        face_masked=np.array([False, False, True, False]),
    )
    tally = RowTally(objective, backbone)
    tally.add(_scores([0.5], [0.5]), [clip])
    tally.add(_scores([0.1], [0.9]), [replace(clip, sample=1)])
    result = tally.condition(("face",))
    assert (result.clips, result.positions) == (2, 2)
    assert result.figures == {"mse": pytest.approx(0.3), "r2": pytest.approx(0.7)}
    mean = ((8 / 3 - 2) ** 2 + (1 - 5) ** 2) / 2
    line = ((3.5 - 2) ** 2 + (1 - 5) ** 2) / 2
    assert result.baselines == {
        "clip mean": pytest.approx(mean),
        "interpolation": pytest.approx(line),
    }
