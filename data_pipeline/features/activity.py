"""Where somebody speaks, without weights: the energy of the voice's band against the noise.

A window is speech if its energy between `LOWEST_HZ` and `HIGHEST_HZ` is `ABOVE_NOISE_DB` above the
noise floor: the quietest tenth of a second of the `AROUND_S` around it (minimum statistics, after
Martin, IEEE Trans. Speech Audio Process. 2001), so noise may change in the course of a recording.
Noise that begins suddenly is taken for speech until the floor has come up to it. Where there is
hardly any noise, breath and the room's echo are told from speech by its loudest tenth of a second.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
HOP = 160
"""Samples from one window to the next: 10 ms."""
WINDOW = 512
"""Samples of one window: 32 ms."""
LOWEST_HZ, HIGHEST_HZ = 100.0, 4000.0
BLOCK = 10
"""Windows of which one value of the floor is taken: a tenth of a second."""
AROUND_S = 20.0
"""In twenty seconds every speaker pauses for a tenth of one."""
ABOVE_NOISE_DB = 9.0
BELOW_LOUDEST_DB = 30.0
FAINTEST_DB = -65.0
"""Of full scale; what is fainter is silence, whatever the floor."""
SHORTEST_S = 0.3
"""What is shorter is a click."""
PAUSE_S = 0.3
"""What is shorter is no pause."""
HANG_OVER_S = 0.06
"""Added on both sides: words begin and end more faintly than the threshold."""
LONGEST_S = 15.0
"""What is longer is cut at its quietest points."""
LONGEST_WHOLE_S = 20.0
"""A recording up to here is one utterance, whatever is heard in it."""
CHUNK = 6000
"""Windows whose spectra are in memory at once: a minute."""

Span = tuple[float, float]


def find_utterances(sound: NDArray[np.float32]) -> list[Span] | None:
    """The utterances of a recording; None if it is short enough to be one.

    Args:
        sound: (samples,) at 16 kHz.
    """
    return None if len(sound) <= LONGEST_WHOLE_S * RATE else find_speech(sound)


def find_speech(sound: NDArray[np.float32]) -> list[Span]:
    """Begin and end in seconds of each stretch of speech, ascending, none longer than `LONGEST_S`.

    Args:
        sound: (samples,) at 16 kHz.
    """
    energies = _energies(sound)  # (W,)
    floor, loudest = _extremes(energies)  # (W,) each
    threshold = np.maximum(floor * _ratio(ABOVE_NOISE_DB), loudest * _ratio(-BELOW_LOUDEST_DB))
    threshold = np.maximum(threshold, _ratio(FAINTEST_DB))
    cuts: list[Span] = []
    for begin, end in _runs(energies > threshold):
        begin_s = max(begin * HOP / RATE - HANG_OVER_S, 0.0)
        end_s = min(end * HOP / RATE + HANG_OVER_S, len(sound) / RATE)
        edges = [begin_s, *_cuts(energies, begin, end), end_s]
        cuts += [(round(a, 3), round(b, 3)) for a, b in pairwise(edges)]
    return cuts


def frames_with_speech(sound: NDArray[np.float32], count: int, fps: float) -> NDArray[np.bool_]:
    """In which pictures somebody speaks: (count,).

    One with speech between the picture before and the one after; lips move before they are heard.

    Args:
        sound: (samples,) at 16 kHz, from the first picture on.
        count: pictures.
        fps: pictures a second.
    """
    times_s = np.arange(count) / fps
    speech = np.zeros(count, dtype=bool)
    for begin_s, end_s in find_speech(sound):
        speech |= (times_s > begin_s - 1 / fps) & (times_s < end_s + 1 / fps)
    return speech


def _ratio(decibels: float) -> float:
    return math.pow(10, decibels / 10)


def _energies(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean square in the voice's band around the middle of every hop: (W,); a sine of 1 has 0.5."""
    taper = np.hanning(WINDOW).astype(np.float32)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    voice = (bins >= LOWEST_HZ) & (bins <= HIGHEST_HZ)
    scale = 2 / (WINDOW * float(np.square(taper).sum()))
    count = len(sound) // HOP
    energies = np.empty(count)
    around = (WINDOW - HOP) // 2
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        begin, end = first * HOP - around, (last - 1) * HOP + HOP + around
        part = sound[max(begin, 0) : end]
        part = np.pad(part, (max(-begin, 0), max(end - len(sound), 0)))
        windows = np.lib.stride_tricks.sliding_window_view(part, WINDOW)[::HOP]
        spectra = np.fft.rfft(windows * taper)[:, voice]
        energies[first:last] = np.square(np.abs(spectra)).sum(axis=1) * scale
    return energies


def _extremes(energies: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The quietest and the loudest block of all that lie near, for each window: (W,) each."""
    blocks = energies[: len(energies) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=1)
    if not len(blocks):
        return energies, energies
    near = round(AROUND_S / 2 * RATE / HOP / BLOCK)
    of_window = np.minimum(np.arange(len(energies)) // BLOCK, len(blocks) - 1)

    def reduced(function: np.ufunc, beyond: float) -> NDArray[np.float64]:
        padded = np.pad(blocks, near, constant_values=beyond)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * near + 1)
        return np.asarray(function.reduce(windows, axis=1)[of_window])

    return reduced(np.minimum, np.inf), reduced(np.maximum, 0.0)


def _runs(loud: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First window and the one after the last of each stretch of speech; short pauses are in it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]])))
    begins, ends = edges[::2], edges[1::2]
    apart = (begins[1:] - ends[:-1]) * HOP >= PAUSE_S * RATE
    first = np.concatenate([[True], apart]) if len(begins) else apart
    last = np.concatenate([apart, [True]]) if len(begins) else apart
    for begin, end in zip(begins[first], ends[last], strict=True):
        if (end - begin) * HOP >= SHORTEST_S * RATE:
            yield int(begin), int(end)


def _cuts(energies: NDArray[np.float64], begin: int, end: int) -> list[float]:
    """Times in seconds at which a stretch of windows is cut, at the quietest first."""
    if (end - begin) * HOP <= LONGEST_S * RATE:
        return []
    edge = round(RATE / HOP)  # no piece is shorter than a second
    at = begin + edge + int(energies[begin + edge : end - edge].argmin())
    return [*_cuts(energies, begin, at), (at + 0.5) * HOP / RATE, *_cuts(energies, at, end)]
