"""Scores of a classification, under the names of emotion recognition.

WA is the accuracy, in which frequent classes weigh more; UAR (UA) the mean of the classes' recalls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCORES: Mapping[str, str] = {
    "wa": "WA (accuracy)",
    "uar": "UAR (mean recall)",
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
}

REGULARISED = 0.1
"""Inverse weight of the penalty of `rows_scores`; it was not searched for."""


@dataclass(frozen=True)
class Scores:
    """How well clips were classified.

    Attributes:
        wa, uar, weighted_f1, macro_f1: in 0..1; a class that does not occur counts in none.
        recall: of each class; NaN for one that does not occur.
        confusion: int64 (C, C), row: true class, column: predicted.
    """

    wa: float
    uar: float
    weighted_f1: float
    macro_f1: float
    recall: tuple[float, ...]
    confusion: NDArray[np.int64]

    def to_json(self) -> dict[str, object]:
        """As plain values; a recall that is not defined is None."""
        return {
            **{name: getattr(self, name) for name in SCORES},
            "recall": [None if np.isnan(one) else one for one in self.recall],
            "confusion": self.confusion.tolist(),
        }


def score(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Scores:
    """Score predictions; a class without clips is left out of the means.

    Args:
        labels: int64 (n,), n > 0.
        predicted: int64 (n,).
        classes: C.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return from_confusion(confusion)


def from_confusion(confusion: NDArray[np.int64]) -> Scores:
    """Scores of a confusion matrix (C, C)."""
    right = np.diag(confusion).astype(float)  # (C,)
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = true > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = right / true
        f1 = np.where(right > 0, 2 * right / (true + predicted), 0.0)
    return Scores(
        wa=float(right.sum() / true.sum()),
        uar=float(recall[occurs].mean()),
        weighted_f1=float((f1 * true).sum() / true.sum()),
        macro_f1=float(f1[occurs].mean()),
        recall=tuple(float(one) for one in recall),
        confusion=confusion,
    )


def majority_scores(train: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Scores:
    """Scores of always answering the class that is most frequent in the training part."""
    most = int(np.bincount(train, minlength=classes).argmax())
    return score(labels, np.full_like(labels, most), classes)


def text_scores(
    train_texts: Sequence[str],
    train: NDArray[np.int64],
    texts: Sequence[str],
    labels: NDArray[np.int64],
    classes: int,
) -> Scores:
    """Scores of the plain text-only baseline: tf-idf of words and pairs, logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  (slow to import)
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), tokenizer=str.split, token_pattern=None),
        LogisticRegression(max_iter=1000, class_weight="balanced"),
    )
    predicted = model.fit(train_texts, train).predict(texts)
    return score(labels, np.asarray(predicted, dtype=np.int64), classes)


def rows_scores(
    train_rows: NDArray[np.float32],
    train: NDArray[np.int64],
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
) -> Scores:
    """Scores of logistic regression on one standardised row a clip.

    Args:
        train_rows: (m, D).
        train: int64 (m,), their classes.
        rows: (n, D).
        labels: int64 (n,).
        classes: C.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (slow to import)
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISED, max_iter=300))
    predicted = model.fit(train_rows, train).predict(rows)
    return score(labels, np.asarray(predicted, dtype=np.int64), classes)
