"""What simple models give on the same folds: without them a score says little.

The most frequent class; tf-idf of the text; and for face and speech the mean of a clip's rows as
they come from the frozen encoders. A tuned model that is no better than the last has added nothing
to its features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import BadSampleError
from memo.evaluation.folds import Fold
from memo.evaluation.scores import SCORES, Scores, majority_scores, rows_scores, text_scores
from memo.objectives.base import Modality
from memo.tuning.task import LabelledCorpus


def baselines(data: LabelledCorpus, folds: Sequence[Fold]) -> dict[str, dict[str, float]]:
    """Mean scores over some folds of every baseline that the task's modalities allow."""
    classes = len(data.task.classes)
    found = {
        "majority": [
            majority_scores(data.labels[fold.train], data.labels[fold.test], classes)
            for fold in folds
        ]
    }
    texts = np.array(_texts(data), dtype=object)
    if all(any(texts[fold.train]) for fold in folds):
        found["tf-idf of the text"] = _fit(text_scores, texts, data, folds)
    for modality in data.task.modalities:
        if modality != "text":
            rows = _mean_rows(data, modality)
            found[f"mean of the {modality} rows"] = _fit(rows_scores, rows, data, folds)
    return {name: _means(scores) for name, scores in found.items()}


def _fit(
    model: Callable[..., Scores],
    inputs: NDArray[Any],
    data: LabelledCorpus,
    folds: Sequence[Fold],
) -> list[Scores]:
    """Scores on every fold of a model that is fitted on its training part."""
    return [
        model(
            inputs[fold.train],
            data.labels[fold.train],
            inputs[fold.test],
            data.labels[fold.test],
            len(data.task.classes),
        )
        for fold in folds
    ]


def _means(scores: Sequence[Scores]) -> dict[str, float]:
    return {name: float(np.mean([getattr(one, name) for one in scores])) for name in SCORES}


def _texts(data: LabelledCorpus) -> list[str]:
    """Every clip's transcript, "" where there is none or the task does not use it."""
    if "text" not in data.task.modalities:
        return [""] * len(data.samples)
    return [_text(data, sample) for sample in range(len(data.samples))]


def _text(data: LabelledCorpus, sample: int) -> str:
    try:
        return (data.split.read_text(sample) or "").strip()
    except BadSampleError:
        return ""


def _mean_rows(data: LabelledCorpus, modality: Modality) -> NDArray[np.float32]:
    """The mean of each clip's rows, (n, D); zeros where it has none."""
    schema = getattr(data.features, modality)
    means = np.zeros((len(data.samples), schema.dim), np.float32)
    for sample in np.flatnonzero(data.labels >= 0).tolist():
        try:
            rows = getattr(data.split.read(sample), modality)
        except BadSampleError:
            continue
        if rows is not None and len(rows):
            means[sample] = rows.mean(axis=0, dtype=np.float32)
    return means
