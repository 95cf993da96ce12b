"""Which test texts systems answer rightly, and how sure a difference between two runs is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from memo.evaluation.records import finished_records

BOOTSTRAPS = 2_000
SEED = 0


class Right(NamedTuple):
    """How well each test text of a task was answered.

    Attributes:
        keys: of the texts, in order; one that several folds test stands there for each.
        shares: float64 (texts, seeds), share of right answers: 0 or 1, or over the traits.
    """

    keys: tuple[str, ...]
    shares: NDArray[np.float64]


def right_answers(run: Path, results: Mapping[str, Any], names: Sequence[str]) -> dict[str, Right]:
    """Of each view of a run that is done, read from its folds.

    Args:
        run: its folder.
        results: the content of its `results.json`.
        names: of the views.

    Raises:
        UserError: see `finished_records`.
    """
    found: dict[str, dict[tuple[str, int], list[float]]] = {name: {} for name in names}
    for record in finished_records(run, results):  # of each fold all seeds, in their order
        for name in names:
            answers = record["tasks"][name]["answers"]
            for key, share in zip(answers["keys"], _shares(answers), strict=True):
                found[name].setdefault((key, record["fold"]), []).append(share)
    return {name: _by_text(of) for name, of in found.items()}


def _by_text(shares: Mapping[tuple[str, int], list[float]]) -> Right:
    """Of the shares of each text in each fold, seed by seed."""
    texts = sorted(shares)
    keys = tuple(key for key, _ in texts)
    return Right(keys, np.array([shares[text] for text in texts], dtype=np.float64))


def _shares(answers: Mapping[str, Any]) -> list[float]:
    """Share of right answers to each text."""
    targets = np.array(answers["targets"])  # (n, T)
    probabilities = np.array(answers["probabilities"])  # (n, C) or (n, K)
    if targets.shape[1] == probabilities.shape[1]:
        shares: NDArray[np.float64] = ((probabilities > 0.5) == targets).mean(axis=1)
    else:
        shares = (probabilities.argmax(axis=1) == targets[:, 0]).astype(float)
    return list(shares.tolist())


def average(right: Mapping[str, Right]) -> float:
    """Mean over tasks of the share of right answers."""
    return float(np.mean([one.shares.mean() for one in right.values()]))


def difference(
    first: Mapping[str, Right], second: Mapping[str, Right], run: Path
) -> tuple[float, float, float]:
    """Of the average accuracies, second less first, with a 95 % bootstrap interval.

    The texts of each task are drawn, the same for both; and the seeds of each run, for another one
    would have given another model (percentile interval; Efron and Tibshirani 1993).

    Args:
        first: of each task.
        second: of the same tasks and texts.
        run: the second one's folder, for messages.

    Raises:
        UserError: they were not tested on the same texts.
    """
    if any(first[name].keys != second[name].keys for name in first):
        raise UserError(f"{run} has other folds or test texts than the first run")
    rng = np.random.default_rng(SEED)
    drawn = np.zeros(BOOTSTRAPS)
    seeds = [_draws(rng, next(iter(one.values())).shares.shape[1]) for one in (first, second)]
    for name in first:
        texts = first[name].shares, second[name].shares
        for number in range(BOOTSTRAPS):
            count = len(texts[0])
            chosen = np.bincount(rng.integers(count, size=count), minlength=count) / count
            old, new = (
                chosen @ one @ of[number] for one, of in zip(texts, seeds, strict=True)
            )  # scalars: (n,) @ (n, S) @ (S,)
            drawn[number] += (new - old) / len(first)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return average(second) - average(first), float(low), float(high)


def difference_cell(first: Mapping[str, Right], second: Mapping[str, Right], run: Path) -> str:
    """The difference and its interval, for tables; see `difference`."""
    mean, low, high = difference(first, second, run)
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _draws(rng: np.random.Generator, seeds: int) -> NDArray[np.float64]:
    """Share of each seed in each bootstrap sample, (BOOTSTRAPS, seeds)."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=BOOTSTRAPS) / seeds
