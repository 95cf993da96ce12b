"""Cues -> utterances: one of each cue of a file, with what is wrong with it."""

import re
from collections.abc import Sequence
from dataclasses import replace

from data_pipeline.corpora.base import LONGEST_S, Recording, numbered
from data_pipeline.corpora.table import words_inside
from data_pipeline.transcripts import SHORTEST_S, Cue, is_short

NUMBERED_SPEAKER = re.compile(r"(?:speaker|spk)?[ _-]*\d+", re.IGNORECASE)


def utterances(media: Recording, cues: Sequence[Cue], language: str) -> list[Recording]:
    """A recording for each cue of a file.

    Args:
        media: the file, as one recording.
        cues: of it, by time.
        language: that they are in, two letters, "" where unknown.
    """
    return [
        checked(
            replace(
                media,
                key=numbered(media.key, number),
                text=cue.text,
                language=language,
                words=words_inside(cue.words, (cue.begin_s, cue.end_s)),
                speaker=_speaker(cue, media),
                span=(cue.begin_s, cue.end_s),
            )
        )
        for number, cue in enumerate(cues, start=1)
    ]


def checked(utterance: Recording) -> Recording:
    """The utterance, that is not to be cut further; with a flaw, if it has one."""
    flaw = "" if utterance.span is None else _flaw(*utterance.span)
    return replace(utterance, cut=False, subtitles=None, flaw=flaw)


def _speaker(cue: Cue, media: Recording) -> str:
    if NUMBERED_SPEAKER.fullmatch(cue.speaker):
        return f"{media.session}-{cue.speaker}"
    return cue.speaker or media.speaker


def _flaw(begin_s: float, end_s: float) -> str:
    """Why nobody can have said something from here to there; "" if somebody can."""
    if end_s <= begin_s:
        return f"it has no length: from {begin_s:.3f} to {end_s:.3f} s"
    if begin_s < 0:
        return f"it begins before its file: at {begin_s:.3f} s"
    if is_short(begin_s, end_s):
        return f"it is {end_s - begin_s:.3f} s long; an utterance has {SHORTEST_S} at least"
    if end_s - begin_s > LONGEST_S:
        return f"it is {end_s - begin_s:.0f} s long; an utterance has {LONGEST_S:.0f} at most"
    return ""
