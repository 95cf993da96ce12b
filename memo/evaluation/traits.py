"""Scores of a multi-label task, e.g. the Big Five: each trait is present or not.

The public code of SoGMTL divides true positives by all *mistakes* and calls it recall; here recall
is TP / (TP + FN).
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TraitScores:
    """How well traits were told.

    Attributes:
        of_trait: accuracy of each.
        accuracy: their mean.
        precision, recall, f1: over all decisions of all traits; 0 where nothing was claimed.
        macro_f1: mean of the traits' F1.
    """

    of_trait: tuple[float, ...]
    accuracy: float
    precision: float
    recall: float
    f1: float
    macro_f1: float

    def to_json(self) -> dict[str, object]:
        """The fields by name."""
        return asdict(self)


def score_traits(labels: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> TraitScores:
    """Score predictions.

    Args:
        labels: bool (n, K), n > 0.
        predicted: bool (n, K).
    """
    right = (labels == predicted).mean(axis=0)  # (K,)
    hits = (labels & predicted).sum(axis=0)
    claimed, true = predicted.sum(axis=0), labels.sum(axis=0)
    return TraitScores(
        of_trait=tuple(float(one) for one in right),
        accuracy=float(right.mean()),
        precision=_ratio(hits.sum(), claimed.sum()),
        recall=_ratio(hits.sum(), true.sum()),
        f1=_ratio(2 * hits.sum(), claimed.sum() + true.sum()),
        macro_f1=float(
            np.mean([_ratio(2 * h, c + t) for h, c, t in zip(hits, claimed, true, strict=True)])
        ),
    )


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
