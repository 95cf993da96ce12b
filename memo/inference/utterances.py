"""Where the utterances of a video are: from its subtitles, or from the pauses in its sound."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError

RATE = 16_000
WINDOW_S = 0.02
"""Of one loudness."""
PAUSE_S = 0.5
"""A silence of this length ends an utterance."""
SHORTEST_S = 0.4
"""What is shorter is a click."""
LONGEST_S = 10.0
"""What is longer is cut, as MEmoBERT cuts speech."""
BELOW_LOUD_DB = 30.0
"""So far below the loud parts of a recording (its 95th percentile) is silence."""


@dataclass(frozen=True)
class Utterance:
    """A part of a video.

    Attributes:
        begin_s: where it begins, in seconds.
        end_s: where it ends.
        text: what is said, if known.
    """

    begin_s: float
    end_s: float
    text: str | None = None


_TIME = r"(?:(\d+):)?(\d\d):(\d\d)[,.](\d{1,3})"
_MARKUP = re.compile(r"<[^>]*>|\{[^}]*\}")
_SPAN = re.compile(rf"\s*{_TIME}\s+-->\s+{_TIME}")


def read_subtitles(path: Path) -> list[Utterance]:
    """The utterances of an SRT or WebVTT file, in order of time.

    One that overlaps the one before begins later; one inside the one before is left out.

    Raises:
        UserError: it cannot be read, or has no utterance.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no subtitles can be read ({error})") from None
    found = [one for block in re.split(r"\n\s*\n", _unix(text)) for one in _subtitle(block)]
    found.sort(key=lambda one: (one.begin_s, one.end_s))
    ordered: list[Utterance] = []
    for one in found:
        begin_s = max(one.begin_s, ordered[-1].end_s) if ordered else one.begin_s
        if begin_s < one.end_s:
            ordered.append(Utterance(begin_s, one.end_s, one.text))
    if not ordered:
        raise UserError(f"{path} has no subtitles; it should be an SRT or WebVTT file")
    return ordered


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def _subtitle(block: str) -> list[Utterance]:
    """The utterance of one block of lines; none of a header or a comment."""
    lines = block.strip().split("\n")
    for at, line in enumerate(lines):
        match = _SPAN.match(line)
        if match:
            words = " ".join(_MARKUP.sub("", " ".join(lines[at + 1 :])).split())
            begin_s, end_s = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
            return [Utterance(begin_s, end_s, words or None)]
    return []


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction}")


def find_utterances(sound: NDArray[np.float32]) -> list[Utterance]:
    """Parts of the sound between pauses; of one that is too long, equal pieces.

    A window is silent if its power is `BELOW_LOUD_DB` below that of the recording's loud parts.

    Args:
        sound: float32 (samples,) at 16 kHz.
    """
    size = round(WINDOW_S * RATE)
    windows = sound[: len(sound) // size * size].reshape(-1, size)
    power = np.square(windows.astype(np.float64)).mean(axis=1)  # (W,)
    if not len(power) or power.max() == 0:
        return []
    loud = power > np.quantile(power, 0.95) * 10 ** (-BELOW_LOUD_DB / 10)
    found: list[Utterance] = []
    for begin_s, end_s in _runs(loud):
        pieces = max(int(np.ceil((end_s - begin_s) / LONGEST_S)), 1)
        edges = np.linspace(begin_s, end_s, pieces + 1)
        found += [Utterance(float(a), float(b)) for a, b in pairwise(edges)]
    return found


def _runs(loud: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Begin and end in seconds of what is loud, pauses shorter than `PAUSE_S` included."""
    runs: list[list[float]] = []
    for window in np.flatnonzero(loud).tolist():
        begin_s, end_s = window * WINDOW_S, (window + 1) * WINDOW_S
        if runs and begin_s - runs[-1][1] < PAUSE_S:
            runs[-1][1] = end_s
        else:
            runs.append([begin_s, end_s])
    return [(begin_s, end_s) for begin_s, end_s in runs if end_s - begin_s >= SHORTEST_S]
