"""Where the utterances of a file are: from its subtitles or transcript, or from its speech.

Both are read as `memo data build` reads them, so that a model sees texts and parts of the kind that
it was trained on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.build_subtitles import (
    BROKEN,
    SILENT,
    languages_of,
    usable_texts,
    why_none,
)
from data_pipeline.errors import UserError
from data_pipeline.features.activity import find_speech
from data_pipeline.features.subtitles import find_subtitles, read_cues
from data_pipeline.features.video import MediaError
from data_pipeline.transcripts import PARSERS, Cue, is_short, parse_transcript


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


class Inside(NamedTuple):
    """What the subtitles inside a file give.

    Attributes:
        utterances: of those that are taken.
        why_none: why there are none; "" if there are, or no subtitles at all.
    """

    utterances: list[Utterance]
    why_none: str


def read_subtitles(path: Path, encoding: str) -> list[Utterance]:
    """The utterances of subtitles or a transcript, in order of time.

    One that overlaps the one before begins later; one inside the one before is left out.

    Args:
        path: file in one of the forms of `data_pipeline/transcripts.py`.
        encoding: of what is neither UTF-8 nor UTF-16.

    Raises:
        UserError: it cannot be read, or nothing is said in it.
    """
    if path.suffix.lower() not in PARSERS:
        raise UserError(f"{path}: no subtitles; give a file in {', '.join(PARSERS)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: no subtitles can be read ({error.strerror})") from None
    ordered = _in_order(parse_transcript(str(path), content, encoding))
    if not ordered:
        raise UserError(f"{path}: nothing is said in these subtitles")
    return ordered


def read_inside(video: Path, media: bytes) -> Inside:
    """The utterances of the subtitles inside a file, in the language of its sound if it says so.

    Args:
        video: path of the file.
        media: its content.

    Raises:
        UserError: there are some in several languages, and which one is spoken cannot be told.
    """
    try:
        subtitles = find_subtitles(media)
        texts = usable_texts((), subtitles)
        languages = languages_of(texts)
        if len(languages) > 1:
            raise UserError(
                f"{video} has subtitles in {', '.join(languages)} inside; give those of what is "
                "spoken with --subtitles"
            )
        if not texts:
            return Inside([], why_none(subtitles))
        found = _in_order(read_cues(media, int(texts[0].name))[0])
        return Inside(found, "" if found else SILENT)
    except MediaError:
        return Inside([], BROKEN)


def _in_order(cues: Iterable[Cue]) -> list[Utterance]:
    """Utterances without overlap, of cues by time."""
    ordered: list[Utterance] = []
    for cue in cues:
        begin_s = max(cue.begin_s, ordered[-1].end_s if ordered else 0.0)
        if begin_s < cue.end_s and not is_short(begin_s, cue.end_s):
            ordered.append(Utterance(begin_s, cue.end_s, cue.text))
    return ordered


def find_utterances(sound: NDArray[np.float32]) -> list[Utterance]:
    """The parts of the sound in which somebody speaks.

    Args:
        sound: float32 (samples,) at 16 kHz.
    """
    return [Utterance(begin_s, end_s) for begin_s, end_s in find_speech(sound)]
