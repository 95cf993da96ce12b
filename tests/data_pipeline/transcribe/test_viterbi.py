from itertools import groupby, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline import cpu_torch
from data_pipeline.transcribe.viterbi import ctc_align

BLANK = 0


def log_probs_of(seed: int, frames: int, letters: int) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, letters + 1))
    normal = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.asarray(normal.astype(np.float32))


def spelled(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in groupby(path) if label != BLANK]


def best_of_all(log_probs: NDArray[np.float32], labels: list[int]) -> float:
    """Over every path there is."""
    frames, width = log_probs.shape
    return max(
        (
            sum(float(log_probs[at, label]) for at, label in enumerate(path))
            for path in product(range(width), repeat=frames)
            if spelled(path) == labels
        ),
        default=-np.inf,
    )


def path_of(
    begins: NDArray[np.int64], ends: NDArray[np.int64], labels: list[int], n: int
) -> list[int]:
    path = [BLANK] * n
    for label, begin, end in zip(labels, begins, ends, strict=True):
        assert begin < end
        assert path[begin:end] == [BLANK] * (end - begin)
        path[begin:end] = [label] * (end - begin)
    return path


@given(
    seed=st.integers(0, 10_000),
    frames=st.integers(0, 6),
    labels=st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_the_path_is_the_best_of_all_that_spell_the_labels(
    seed: int, frames: int, labels: list[int]
) -> None:
    log_probs = log_probs_of(seed, frames, 3)
    best = best_of_all(log_probs, labels)
    found = ctc_align(log_probs, np.array(labels), BLANK)
    if found is None:
        assert best == -np.inf
        return
    assert found.score == pytest.approx(best, abs=1e-5)
    path = path_of(found.begins, found.ends, labels, frames)
    assert spelled(tuple(path)) == labels
    assert sum(log_probs[at, label] for at, label in enumerate(path)) == pytest.approx(
        best, abs=1e-5
    )


def test_the_path_is_torchaudios() -> None:
    cpu_torch.install()
    from torchaudio.functional import forced_align

    log_probs, labels = log_probs_of(7, 400, 20), np.random.default_rng(7).integers(1, 21, 60)
    emission, targets = torch.from_numpy(log_probs)[None], torch.from_numpy(labels)[None]
    try:
        path, scores = forced_align(emission, targets, blank=BLANK)
    except (RuntimeError, AttributeError) as error:
        pytest.skip(f"torchaudio's forced_align needs its extension ({str(error)[:60]})")
    found = ctc_align(log_probs, labels, BLANK)
    assert found is not None
    assert found.score == pytest.approx(float(scores.sum()), rel=1e-5)
    assert path_of(found.begins, found.ends, labels.tolist(), 400) == path[0].tolist()


def test_letters_are_found_where_they_are_likely() -> None:
    log_probs = np.full((12, 3), np.log(0.05), np.float32)
    log_probs[:, BLANK] = np.log(0.9)
    log_probs[3:5] = np.log([0.05, 0.9, 0.05])
    log_probs[6:8] = np.log([0.05, 0.9, 0.05])
    log_probs[8] = np.log([0.05, 0.05, 0.9])
    found = ctc_align(log_probs, np.array([1, 1, 2]), BLANK)
    assert found is not None
    assert list(zip(found.begins, found.ends, strict=True)) == [(3, 5), (6, 8), (8, 9)]
    assert ctc_align(log_probs[:3], np.array([1, 1, 2]), BLANK) is None
