"""Cuts a long recording into utterances: by the subtitles inside it, else by its speech."""

from dataclasses import replace
from typing import NamedTuple

from data_pipeline.build_subtitles import BROKEN, SILENT, TAKEN, TAKEN_DAMAGED, CutBy
from data_pipeline.corpora.base import Recording, numbered
from data_pipeline.corpora.cues import utterances
from data_pipeline.features.activity import find_utterances
from data_pipeline.features.extract import SAMPLE_RATE
from data_pipeline.features.subtitles import read_cues
from data_pipeline.features.video import Media, MediaError, decode_track
from data_pipeline.transcripts import Cue

NO_SPEECH = "no speech was found in it"


class Cuts(NamedTuple):
    """Where a recording is cut.

    Attributes:
        spans: begin and end of each utterance by its speech; None: it is short, or has cues.
        cues: of the subtitles inside it; none: it is cut by its speech.
        language: of the cues.
        outcome: what came of the subtitles inside it, "" if it has none.
    """

    spans: list[tuple[float, float]] | None
    cues: list[Cue]
    language: str
    outcome: str


def find_cuts(media: Media, by: CutBy) -> Cuts:
    """The cues of the subtitles inside a file; its speech, if there are none.

    Args:
        media: the file.
        by: how it is to be cut.

    Raises:
        MediaError: neither can be read.
    """
    cues, outcome = ([], by.outcome) if by.stream is None else _cues(media, by.stream)
    if cues:
        return Cuts(None, cues, by.language, outcome)
    sound = decode_track(media, SAMPLE_RATE)
    spans = None if sound is None else find_utterances(sound.samples)
    return Cuts(spans, [], "", outcome)


def _cues(media: Media, stream: int) -> tuple[list[Cue], str]:
    """The cues of the subtitles inside a file, and what came of them."""
    try:
        cues, damaged = read_cues(media, stream)
    except MediaError:
        return [], BROKEN
    if not cues:
        return [], SILENT
    return cues, TAKEN_DAMAGED if damaged else TAKEN


def cut_parts(recording: Recording, cuts: Cuts | None, flaw: str) -> list[Recording]:
    """The parts of a recording that is to be cut; the whole with a flaw, also if nobody speaks.

    Args:
        recording: to be cut.
        cuts: where; None: it could not be read.
        flaw: why it could not.
    """
    if cuts is not None and cuts.cues:
        return utterances(recording, cuts.cues, cuts.language)
    spans = None if cuts is None else cuts.spans
    flaw = NO_SPEECH if spans == [] else flaw
    return [
        replace(
            recording,
            key=numbered(recording.key, number),
            span=span,
            cut=False,
            subtitles=None,
            flaw=flaw,
        )
        for number, span in enumerate(spans or [None], start=1)
    ]
