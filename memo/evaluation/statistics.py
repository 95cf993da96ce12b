"""How sure a mean over folds and seeds is, and whether two systems differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

BOOTSTRAPS = 10_000
PERMUTATIONS = 10_000
SEED = 0


@dataclass(frozen=True)
class Summary:
    """A score over the runs of a protocol.

    Attributes:
        mean: over all runs.
        std: of the sample, over all runs; 0 of a single one.
        low, high: 95 % bootstrap interval of the mean; None of a single fold, whose test clips are
            the same in all runs: seeds alone say nothing about other clips.
    """

    mean: float
    std: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """The fields by name."""
        return asdict(self)


def interval(summary: Mapping[str, float | None]) -> str:
    """The interval of a summary's JSON, for tables."""
    low, high = summary["low"], summary["high"]
    return "–" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def by_fold_and_seed(values: Sequence[tuple[int, int, float]]) -> NDArray[np.float64]:
    """(fold, seed, value) of some runs -> float64 (folds, seeds); NaN where a run is missing."""
    folds = sorted({fold for fold, _, _ in values})
    seeds = sorted({seed for _, seed, _ in values})
    table = np.full((len(folds), len(seeds)), np.nan)
    for fold, seed, value in values:
        table[folds.index(fold), seeds.index(seed)] = value
    return table


def summarise(values: NDArray[np.float64]) -> Summary:
    """Mean, deviation and interval of one score.

    The runs of one fold have the same test clips and are not independent: the bootstrap draws folds
    first, then seeds within each drawn fold (percentile interval; Efron and Tibshirani 1993).

    Args:
        values: float64 (folds, seeds); NaN where a run is missing.
    """
    known = values[~np.isnan(values)]
    std = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    folds, seeds = values.shape
    if folds == 1:
        return Summary(float(known.mean()), std, None, None)
    rng = np.random.default_rng(SEED)
    rows = rng.integers(folds, size=(BOOTSTRAPS, folds, 1))
    columns = rng.integers(seeds, size=(BOOTSTRAPS, folds, seeds))
    drawn = values[rows, columns].reshape(BOOTSTRAPS, -1)
    drawn = drawn[~np.isnan(drawn).all(axis=1)]
    low, high = np.quantile(np.nanmean(drawn, axis=1), (0.025, 0.975))
    return Summary(float(known.mean()), std, float(low), float(high))


def paired_permutation(
    statistic: Callable[[NDArray[np.int64]], float],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    units: Sequence[str],
) -> float:
    """Two-sided p-value of the difference between two systems on the same clips.

    If the systems were equal, their answers could be exchanged. They are exchanged for all clips of
    a unit at once, because the clips of a speaker are not independent (Noreen 1989, approximate
    randomisation, on clusters).

    Args:
        statistic: predictions (n,) -> score.
        first: int64 (n,), predictions of one system.
        second: int64 (n,), those of the other.
        units: n names of what is exchanged together, e.g. speakers.

    Returns:
        Share of the exchanges, the one that was observed included, whose difference is at least as
        large.
    """
    observed = abs(statistic(first) - statistic(second))
    names, unit = np.unique(np.array(units), return_inverse=True)
    rng = np.random.default_rng(SEED)
    as_large = 1
    for _ in range(PERMUTATIONS):
        swapped = rng.integers(2, size=len(names)).astype(bool)[unit]  # (n,)
        one = np.where(swapped, second, first)
        other = np.where(swapped, first, second)
        as_large += abs(statistic(one) - statistic(other)) >= observed - 1e-12
    return as_large / (PERMUTATIONS + 1)
