"""Clicks in a sound and flashes in pictures, and when they are heard and seen."""

import numpy as np
from numpy.typing import NDArray


def click(at_s: float, length_s: float, rate: int) -> NDArray[np.float32]:
    """Silence but for a burst of 5 ms."""
    sound = np.zeros(round(length_s * rate), np.float32)
    start = round(at_s * rate)
    sound[start : start + rate // 200] = 0.8
    return sound


def onset_s(sound: NDArray[np.float32]) -> float:
    return float(np.flatnonzero(np.abs(sound) > 0.4)[0] / 16_000)


def brightness(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(frames.mean(axis=(1, 2)))


def clicks(length_s: float) -> NDArray[np.float32]:
    """A click in the middle of every second, at 16 kHz."""
    return np.tile(click(0.5, 1.0, 16_000), round(length_s))


def onsets_s(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """The begin of each click."""
    loud = np.flatnonzero(np.abs(sound) > 0.4) / 16_000
    return loud[np.diff(loud, prepend=-1) > 0.05]
