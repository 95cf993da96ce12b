"""Forced alignment of labels by connectionist temporal classification (Graves et al., ICML 2006).

A path names a label or the blank in every frame. It spells the labels if they are what is left of
it when repetitions are merged and blanks left out; so between two equal labels there is a blank.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class CtcAlignment(NamedTuple):
    """The most likely path that spells the labels.

    Attributes:
        begins, ends: first frame of each label, and the one after its last, (L,).
        score: log-probability of the path.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    score: float


def ctc_align(
    log_probs: NDArray[np.float32], labels: NDArray[np.int64], blank: int
) -> CtcAlignment | None:
    """Find the best path by dynamic programming, in O(T L).

    States are blank, label 0, blank, label 1, ..., blank. From one frame to the next a path stays,
    goes on to the next state, or skips a blank between different labels.

    Args:
        log_probs: (T, V), of each frame.
        labels: (L,), none of them the blank; L > 0.
        blank: its number.

    Returns:
        None if no path is possible, for there are too few frames.
    """
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    skips = np.zeros(len(states), dtype=bool)  # whether the blank before may be left out
    skips[3::2] = labels[1:] != labels[:-1]
    scores, steps = _forward(log_probs.astype(np.float64), states, skips)
    last = max((len(states) - 1, len(states) - 2), key=lambda state: scores[state])
    if not np.isfinite(scores[last]):
        return None
    path = _trace(steps, last)  # (T,)
    numbers = np.arange(1, len(states), 2)
    begins = np.searchsorted(path, numbers, side="left")
    ends = np.searchsorted(path, numbers, side="right")
    return CtcAlignment(begins, ends, float(scores[last]))


def _forward(
    log_probs: NDArray[np.float64], states: NDArray[np.int64], skips: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Best score of a path up to each state in the last frame, (S,), and the steps, (T, S)."""
    frames = len(log_probs)
    steps = np.zeros((frames, len(states)), dtype=np.int8)
    scores = np.full(len(states), -np.inf)
    if frames:
        scores[:2] = log_probs[0, states[:2]]
    for frame in range(1, frames):
        before = np.full((3, len(states)), -np.inf)  # of staying, of one step, of two
        before[0] = scores
        before[1, 1:] = scores[:-1]
        before[2, 2:] = np.where(skips[2:], scores[:-2], -np.inf)
        steps[frame] = before.argmax(axis=0)
        scores = before.max(axis=0) + log_probs[frame, states]
    return scores, steps


def _trace(steps: NDArray[np.int8], last: int) -> NDArray[np.int64]:
    """The states of the best path that ends in the last one, (T,)."""
    path = np.empty(len(steps), dtype=np.int64)
    for frame in range(len(steps) - 1, -1, -1):
        path[frame] = last
        last -= int(steps[frame, last])
    return path
