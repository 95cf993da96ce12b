"""The contracts of a recogniser and an aligner; the registries: one file a model."""

import hashlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from data_pipeline.registry import Registry
from data_pipeline.shards.index import file_sha256

Span: TypeAlias = tuple[float, float]
"""Begin and end in seconds from the first sample on."""


class Miss(StrEnum):
    """Why a clip gets no text, or no word times; build_report.json counts them."""

    NO_SOUND = "there is no sound"
    NO_TEXT = "there is no text"
    SILENT = "nobody speaks"
    LANGUAGE = "it is in another language"
    NOTHING = "nothing was recognised"
    TOO_LONG = "the sound is too long"
    UNKNOWN_WORD = "a word cannot be spelled out"
    MISFIT = "the text does not fit the sound"


class Recognised(NamedTuple):
    """What was said, and its language as an ISO 639-1 code."""

    text: str
    language: str


class Recogniser(Protocol):
    """A frozen model that turns speech into text.

    Attributes:
        name: its name on the command line and in `dataset.json`.
        sha256: hash of the model's files.
        language: the one that it knows; "" if it knows several.
    """

    name: str
    sha256: str
    language: str

    def recognise(self, sound: NDArray[np.float32], language: str) -> Recognised | Miss:
        """The text of speech of up to 30 s.

        Args:
            sound: (samples,) at 16 kHz in [-1, 1].
            language: ISO 639-1 code; "" is unknown.
        """
        ...


class Aligner(Protocol):
    """A frozen model that finds given words in speech.

    Attributes:
        name: its name on the command line and in `dataset.json`.
        sha256: hash of the model's files.
        language: the one that it knows; "" if it is whatever its letters can spell.
    """

    name: str
    sha256: str
    language: str

    def align(self, sound: NDArray[np.float32], words: Sequence[str]) -> list[Span] | Miss:
        """When each word is said, ascending and without overlap.

        Args:
            sound: (samples,) at 16 kHz in [-1, 1].
            words: as they are written, with case and punctuation; at least one, each with a letter
                or digit.
        """
        ...


RECOGNISERS: Registry[Recogniser] = Registry("recognise", "model", "data_pipeline.transcribe")
ALIGNERS: Registry[Aligner] = Registry("align", "model", "data_pipeline.transcribe")


def files_sha256(files: Iterable[Path]) -> str:
    """Hash of the names and contents of the files that a model is made of."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()
