"""Which clips a build leaves out by what is measured of them; none, unless it is asked to."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.features.speaker import BEST_SCORE

FILTERED = "filtered.jsonl"
MODALITIES = ("text", "face", "speech")
SILENCE_DBFS = -120.0
"""The level of what is quieter, and of digital silence, whose logarithm is infinite."""


@dataclass(frozen=True)
class Measures:
    """What filters judge a clip by; None is what a clip does not have, and no filter drops it.

    Attributes:
        words: of its text, between spaces.
        duration_s: of its sound or picture, whichever is longer.
        speech_dbfs: RMS of its sound; 0 is that of a square wave at full scale.
        face_share: frames of its video in which a face was found.
        speaker_score: how well the lips of whose face was taken go with what is heard, from 1 to 3
            (`features/speaker.py`); 0 of a video in which nobody's do.
        text, face, speech: 1 if the clip has it, 0 if it has not; None if that is not known yet.
    """

    words: int | None = None
    duration_s: float | None = None
    speech_dbfs: float | None = None
    face_share: float | None = None
    speaker_score: float | None = None
    text: int | None = None
    face: int | None = None
    speech: int | None = None


class Dropped(NamedTuple):
    """Why a clip was left out: the filter, what was measured, and the threshold."""

    filter: str
    value: float
    threshold: float


@dataclass(frozen=True)
class Filters:
    """Thresholds; None is no filter. A clip is dropped by the first that it fails, in this order.

    What a clip must have is judged as the filters `require_text`, before all others, `require_face`
    and `require_speech`, after them, of 1 at least.

    Attributes:
        min_words: fewest words, of a clip with text.
        min_duration_s, max_duration_s: shortest and longest, of a clip with sound or picture.
        min_speech_dbfs: lowest level, of a clip with sound.
        min_face_share: least share of frames with a face, of a clip with video.
        min_speaker_score: how well at least lips go with the speech, of a clip with video.
        require: what every clip must have, of text, face and speech.
    """

    min_words: int | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    min_speech_dbfs: float | None = None
    min_face_share: float | None = None
    min_speaker_score: float | None = None
    require: tuple[str, ...] = ()

    @property
    def thresholds(self) -> dict[str, float]:
        """Of the filters that are on, in their order."""
        given = asdict(self)
        del given["require"]
        required: dict[str, float] = {f"require_{name}": 1 for name in self.require}
        first = {name: least for name, least in required.items() if name == "require_text"}
        given = {name: value for name, value in given.items() if value is not None}
        return first | given | dict(sorted(required.items()))

    def check(self) -> None:
        """Refuse thresholds that make no sense.

        Raises:
            UserError: one is out of range, or no clip could pass two of them; names the option.
        """
        for name in self.require:
            if name not in MODALITIES:
                raise UserError(f"--require {name}: give text, face, speech, or some of them")
        ranges = {
            "min_speech_dbfs": (SILENCE_DBFS, 0.0),
            "min_face_share": (0.0, 1.0),
            "min_speaker_score": (0.0, BEST_SCORE),
        }
        for name, value in self.thresholds.items():
            least, most = ranges.get(name, (0.0, math.inf))
            if not (math.isfinite(value) and least <= value <= most):
                limits = f"from {least:g} to {most:g}" if math.isfinite(most) else "of 0 or more"
                raise UserError(f"{_option(name)} {value}: give a number {limits}")
        shortest, longest = self.min_duration_s, self.max_duration_s
        if shortest is not None and longest is not None and shortest > longest:
            raise UserError(
                f"--min-duration-s {shortest} is more than --max-duration-s {longest}; "
                "no clip can be both"
            )

    def first_failed(self, measures: Measures) -> Dropped | None:
        """The first filter that drops a clip, as far as it has been measured; None if none does."""
        for name, threshold in self.thresholds.items():
            bound, _, measure = name.partition("_")
            value = getattr(measures, measure)
            if value is not None and (value > threshold if bound == "max" else value < threshold):
                return Dropped(name, value, threshold)
        return None


def count_words(text: str | None) -> int | None:
    """Words between spaces; None of no text."""
    return len((text or "").split()) or None


def speech_level(sound: NDArray[np.float32] | None) -> float | None:
    """Level of samples in [-1, 1], in dBFS; None of no sound."""
    if sound is None:
        return None
    square = float(np.mean(np.square(sound, dtype=np.float64)))
    return round(max(10 * math.log10(square), SILENCE_DBFS), 2) if square else SILENCE_DBFS


def filtered_lines(dropped: Iterable[tuple[str, Dropped]]) -> str:
    """The content of `filtered.jsonl`: of each key why it was dropped."""
    lines = ({"key": key, **one._asdict()} for key, one in dropped)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
