"""A recording and its sound -> what is said in it and when, as far as that can be told.

What the corpus says stays: only a recording without a text is recognised, and only words without
times are aligned. What cannot be told is left out, and counted with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Word
from data_pipeline.corpora.base import Recording
from data_pipeline.features.activity import LONGEST_WHOLE_S, RATE, find_speech
from data_pipeline.registry import ModelChoice
from data_pipeline.shards.dataset import TranscriberInfo
from data_pipeline.transcribe.base import (
    ALIGNERS,
    RECOGNISERS,
    Aligner,
    Miss,
    Recognised,
    Recogniser,
    Span,
)
from data_pipeline.transcribe.spelling import written_words

LONGEST_S = 60.0
"""Of what is aligned; longer sound is no utterance, and the search takes memory with its square."""
GIVEN = "given"
"""By the corpus."""


@dataclass(frozen=True)
class TranscribeSettings:
    """Which models; None is none.

    Attributes:
        recognise, align: a recogniser and an aligner.
    """

    recognise: ModelChoice | None = None
    align: ModelChoice | None = None

    @property
    def on(self) -> bool:
        """Whether there is anything to do."""
        return self.recognise is not None or self.align is not None

    def find(self, source: Path) -> "TranscribeSettings":
        """With the places of the weights, which are looked for near the source.

        Raises:
            UserError: an unknown model, or weights that are not found.
        """
        return TranscribeSettings(
            self.recognise and RECOGNISERS.find(self.recognise, source),
            self.align and ALIGNERS.find(self.align, source),
        )


class Transcribed(NamedTuple):
    """What is said in a recording.

    Attributes:
        recording: with its text, language and words.
        outcomes: what came of the text and of the words, for the report.
    """

    recording: Recording
    outcomes: tuple[str, ...]


class Transcriber:
    """The models, loaded once in each process.

    Args:
        recogniser: None recognises nothing.
        aligner: None aligns nothing.
    """

    def __init__(self, recogniser: Recogniser | None, aligner: Aligner | None) -> None:
        self.recogniser = recogniser
        self.aligner = aligner

    @classmethod
    def load(cls, settings: TranscribeSettings) -> "Transcriber":
        """The models that are named.

        Raises:
            UserError: one cannot be loaded.
        """
        return cls(
            RECOGNISERS.load(settings.recognise) if settings.recognise else None,
            ALIGNERS.load(settings.align) if settings.align else None,
        )

    @property
    def infos(self) -> tuple[TranscriberInfo, ...]:
        """What `dataset.json` says of the models."""
        models = (("recognise", self.recogniser), ("align", self.aligner))
        return tuple(
            TranscriberInfo(task=task, name=model.name, sha256=model.sha256)
            for task, model in models
            if model is not None
        )

    def transcribe(self, recording: Recording, sound: NDArray[np.float32] | None) -> Transcribed:
        """What is said in a recording.

        Args:
            recording: what the corpus says of it.
            sound: of the recording alone, (samples,) at 16 kHz; None if there is none.

        Returns:
            The recording with what could be told; times of words count from the sound's begin.
        """
        outcomes = []
        if self.recogniser is not None:
            recording, outcome = _with_text(self.recogniser, recording, sound)
            outcomes.append(f"text: {outcome}")
        if self.aligner is not None:
            recording, outcome = _with_words(self.aligner, recording, sound)
            outcomes.append(f"words: {outcome}")
        return Transcribed(recording, tuple(outcomes))


def _with_text(
    recogniser: Recogniser, recording: Recording, sound: NDArray[np.float32] | None
) -> tuple[Recording, str]:
    """The recording with a text, and where it is from or why there is none."""
    if (recording.text or "").strip():
        return recording, GIVEN
    heard = Miss.NO_SOUND if sound is None else _recognise(recogniser, sound, recording.language)
    if isinstance(heard, Miss):
        return recording, heard
    return replace(recording, text=heard.text, language=heard.language), "recognised"


def _recognise(
    recogniser: Recogniser, sound: NDArray[np.float32], language: str
) -> Recognised | Miss:
    """What is said in a sound of any length: what is longer is cut at its pauses."""
    if _differ(recogniser.language, language):
        return Miss.LANGUAGE
    spans = find_speech(sound)
    if not spans:
        return Miss.SILENT
    if len(sound) <= LONGEST_WHOLE_S * RATE:
        return recogniser.recognise(sound, language)
    texts: list[str] = []
    missed = []
    for begin_s, end_s in spans:
        part = sound[round(begin_s * RATE) : round(end_s * RATE)]
        heard = recogniser.recognise(part, language)
        if isinstance(heard, Miss):
            missed.append(heard)
        else:
            texts.append(heard.text)
            language = heard.language  # a recording has one
    return Recognised(" ".join(texts), language) if texts else missed[0]


def _with_words(
    aligner: Aligner, recording: Recording, sound: NDArray[np.float32] | None
) -> tuple[Recording, str]:
    """The recording with its words' times, and where they are from or why there are none."""
    if recording.words:
        return recording, GIVEN
    words = written_words(recording.text or "")
    spans = _align(aligner, recording.language, sound, words)
    if sound is None or isinstance(spans, Miss):
        return recording, str(spans)
    timed = (_word(word, span, sound) for word, span in zip(words, spans, strict=True))
    return replace(recording, words=tuple(timed)), "aligned"


def _align(
    aligner: Aligner, language: str, sound: NDArray[np.float32] | None, words: Sequence[str]
) -> list[Span] | Miss:
    """When each word is said, if that can be told."""
    if not words:
        return Miss.NO_TEXT
    if sound is None:
        return Miss.NO_SOUND
    if _differ(aligner.language, language):
        return Miss.LANGUAGE
    if len(sound) > LONGEST_S * RATE:
        return Miss.TOO_LONG
    return aligner.align(sound, words)


def _word(word: str, span: Span, sound: NDArray[np.float32]) -> Word:
    """A word with its times, of which models' frames are not to lie behind the sound's end."""
    begin_s, end_s = (round(min(time_s, len(sound) / RATE), 3) for time_s in span)
    return Word(word, begin_s, end_s)


def _differ(one: str, other: str) -> bool:
    """Whether two languages are known and not the same."""
    return bool(one and other and one != other)
