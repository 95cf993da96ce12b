"""Clip: one sample, and its members in a WebDataset tar.

| member | content |
|---|---|
| `<key>.json` | every field of `Clip` that is not an array or image, by its name |
| `<key>.face.npy` | float16 `[T_face, D_face]`, one row a frame |
| `<key>.expression.npy` | float16 `[T_face, K]`, the face network's class posteriors |
| `<key>.speech.npy` | float16 `[T_speech, D_speech]` |
| `<key>.jpg` | an image |

A missing modality is a missing member. A face row (and its expression row) of zeros marks a frame
in which no face was
seen: it keeps its place in time, and no objective takes it as a target.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Label: TypeAlias = str | int | float | list[int]
"""A class name, a class number, a score, or the numbers of a multi-label task."""


@dataclass(frozen=True)
class Word:
    """A spoken word and its time in the clip, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Clip:
    """One utterance: aligned text, face and speech features, and what is known about it.

    Attributes:
        key: name of the sample in its tar; unique in the dataset, without a dot or a slash.
        text: the raw transcript; None if there is none.
        language: ISO 639-1 code, "" where unknown.
        words: the transcript's words with their times, empty where unknown.
        duration_s: length in seconds.
        speaker, session: names used by speaker-independent folds, "" where unknown.
        labels: task name -> label.
        tags: free tags (the image-text-tags task).
        source: the file that the clip was cut from.
        face: float16 (T_face, D_face), a row a frame at the dataset's face fps; None if missing.
        expression: float16 (T_face, K), class posteriors of the same frames; None if missing.
        speech: float16 (T_speech, D_speech); None if missing.
        image: the bytes of a JPEG file; None if missing.
    """

    key: str
    text: str | None = None
    language: str = ""
    words: tuple[Word, ...] = ()
    duration_s: float = 0.0
    speaker: str = ""
    session: str = ""
    labels: dict[str, Label] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    source: str = ""
    face: NDArray[np.float16] | None = None
    expression: NDArray[np.float16] | None = None
    speech: NDArray[np.float16] | None = None
    image: bytes | None = None
