"""Predictors without a model, from the visible rows of the clip alone."""

import numpy as np
from numpy.typing import NDArray


def mean_of_known(
    rows: NDArray[np.float32], known: NDArray[np.bool_], otherwise: float
) -> NDArray[np.float32]:
    """Mean of the known rows.

    Args:
        rows: float32 (T, D).
        known: bool (T,).
        otherwise: every element of the prediction where no row is known.

    Returns:
        float32 (D,).
    """
    if not known.any():
        return np.full(rows.shape[1], otherwise, dtype=np.float32)
    mean: NDArray[np.float32] = rows[known].mean(axis=0)
    return mean


def interpolate(
    rows: NDArray[np.float32],
    known: NDArray[np.bool_],
    wanted: NDArray[np.int64],
    otherwise: float,
) -> NDArray[np.float32]:
    """Linear interpolation in time between known rows; the nearest one beyond the first or last.

    Args:
        rows: float32 (T, D).
        known: bool (T,).
        wanted: int64 (M,), row numbers to predict.
        otherwise: every element of the prediction where no row is known.

    Returns:
        float32 (M, D).
    """
    times = np.flatnonzero(known)  # (K,)
    if len(times) == 0:
        return np.full((len(wanted), rows.shape[1]), otherwise, dtype=np.float32)
    after = np.searchsorted(times, wanted)
    left = times[np.clip(after - 1, 0, len(times) - 1)]  # (M,)
    right = times[np.clip(after, 0, len(times) - 1)]
    share = np.clip((wanted - left) / np.maximum(right - left, 1), 0, 1)[:, None]  # (M, 1)
    blend: NDArray[np.float32] = (rows[left] * (1 - share) + rows[right] * share).astype(np.float32)
    return blend
