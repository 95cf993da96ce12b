"""Calibration of class posteriors by one temperature (Guo et al., ICML 2017)."""

from torch import Tensor
from torch.nn import functional as F

BINS = 15
"""Of equal width, as in the paper."""
COLDEST, HOTTEST = 1e-3, 1e3
"""Between them lies the temperature."""
HALVINGS = 60
"""Of that range; far below what float64 tells apart."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T for which softmax(z / T) gives held-out labels the greatest likelihood.

    The negative log likelihood is convex in 1 / T, and its slope, the mean of (expected - given
    logit), is bisected.

    Args:
        logits: z, float (n, K), n > 0.
        labels: class numbers, int64 (n,).

    Returns:
        T; the end of `COLDEST`..`HOTTEST` where the best lies beyond it.
    """
    logits = logits.double()
    given = logits.gather(1, labels[:, None]).mean()
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        expected = ((logits * middle).softmax(dim=1) * logits).sum(dim=1).mean()
        low, high = (middle, high) if expected < given else (low, middle)
    return float((low * high) ** -0.5)


def calibration_error(posteriors: Tensor, labels: Tensor) -> float:
    """Expected calibration error (equation 3): how far confidence and accuracy lie apart.

    Args:
        posteriors: float (n, K), rows of which sum to 1, n > 0.
        labels: class numbers, int64 (n,).

    Returns:
        Mean over all rows of |accuracy - mean confidence| of their bin of confidences.
    """
    confidences, chosen = posteriors.double().max(dim=1)
    right = (chosen == labels).double()
    bins = (confidences * BINS).ceil().long().clamp(1, BINS) - 1  # (a, b] as in the paper
    member = F.one_hot(bins, BINS).double()  # (n, BINS)
    return float(((right - confidences) @ member).abs().sum() / len(labels))
