"""A clip's own video and sound, decoded again: its faces and the outline of its sound."""

import lzma
import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.source import Source
from data_pipeline.errors import in_one_line
from data_pipeline.features.activity import frames_with_speech
from data_pipeline.features.detector import FaceDetector
from data_pipeline.features.face import align_faces
from data_pipeline.features.frames import cut_region
from data_pipeline.features.video import MediaError, decode_frames, decode_sound

FACE_EVERY_S = 0.5
MOST_FACES = 24
"""Of a clip; in a longer one they are further apart."""
FACE_PIXELS = 96
OUTLINE_STEPS = 600
ROUNDING_S = 0.5
"""By so much a clip may be shorter than its file without being a part of it."""
UNKNOWN_PART = "is longer than the clip, and the dataset, an older one, does not say where it lies"
SAMPLE_RATE = 16_000

_UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError,
    tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a file of a damaged folder or archive raises."""

_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True)
class Face:
    """What the video shows at some time.

    Attributes:
        begin_s: when.
        end_s: when the next one follows, or the video ends.
        picture: uint8 (H, W), grey: the aligned face, or the whole picture where none was found.
        found: whether one was.
    """

    begin_s: float
    end_s: float
    picture: NDArray[np.uint8]
    found: bool


@dataclass(frozen=True)
class Sound:
    """The outline of a sound.

    Attributes:
        seconds: its length.
        low: float32 (steps,), the lowest sample of each step of it.
        high: float32 (steps,), the highest.
    """

    seconds: float
    low: NDArray[np.float32]
    high: NDArray[np.float32]


@dataclass(frozen=True)
class Media:
    """What was decoded of a clip's file.

    Attributes:
        faces: in order of time.
        sound: None if there is none.
        problems: what could not be had, a line each.
    """

    faces: tuple[Face, ...] = ()
    sound: Sound | None = None
    problems: tuple[str, ...] = ()


def decode_media(clip: Clip, source: Source, detector: FaceDetector, fps: float) -> Media:
    """Decode what a clip was made from, as it was when the dataset was built.

    Args:
        clip: one that was made from a video or a sound file.
        source: the raw corpus.
        detector: what found the faces.
        fps: pictures a second, as the face rows.
    """
    try:
        media = source.open(clip.source)
    except KeyError:
        return Media(problems=(f"the source has no file {clip.source}",))
    except _UNREADABLE as error:
        return Media(problems=(f"{clip.source} cannot be read: {in_one_line(error)}",))
    with media:
        return _decode(clip, media, detector, fps)


def _decode(clip: Clip, file: BinaryIO, detector: FaceDetector, fps: float) -> Media:
    """See `decode_media`."""
    problems: list[str] = []
    span = clip.span or (0.0, clip.duration_s + 2 * ROUNDING_S)
    frames = _tried(lambda: cut_region(decode_frames(file, fps, span), clip.region), problems)
    sound = _tried(lambda: decode_sound(file, SAMPLE_RATE, span), problems)
    shown_s = 0.0 if frames is None else len(frames) / fps
    heard_s = 0.0 if sound is None else len(sound) / SAMPLE_RATE
    if clip.span is None and max(shown_s, heard_s) > clip.duration_s + ROUNDING_S:
        return Media(problems=(f"{clip.source} {UNKNOWN_PART}",))
    faces = None
    if frames is not None:
        faces = _tried(lambda: _faces(frames, sound, detector, fps), problems)
    told = tuple(f"{clip.source}: {one}" for one in problems)
    return Media(faces or (), _outline(sound), told)


def _tried(decode: Callable[[], _Decoded], problems: list[str]) -> _Decoded | None:
    """What can be decoded; why it cannot is noted."""
    try:
        return decode()
    except (MediaError, MemoryError, cv2.error) as error:
        problems.append(in_one_line(error))
        return None


def _faces(
    frames: NDArray[np.uint8],
    sound: NDArray[np.float32] | None,
    detector: FaceDetector,
    fps: float,
) -> tuple[Face, ...]:
    """One of frames (T, H, W) in every `FACE_EVERY_S`, with the speaker's face cut out."""
    speech = None if sound is None else frames_with_speech(sound, len(frames), fps)
    cut, found, _ = align_faces(frames, FACE_PIXELS, detector, fps, speech)
    step = max(1, round(FACE_EVERY_S * fps), math.ceil(len(frames) / MOST_FACES))
    return tuple(
        Face(
            begin_s=at / fps,
            end_s=min(at + step, len(frames)) / fps,
            picture=cut[at] if found[at] else _shrink(frames[at]),
            found=bool(found[at]),
        )
        for at in range(0, len(frames), step)
    )


def _shrink(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W) as it is, with at most `FACE_PIXELS` on a side."""
    scale = FACE_PIXELS / max(picture.shape)
    if scale >= 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _outline(sound: NDArray[np.float32] | None) -> Sound | None:
    """The outline of samples (n,)."""
    if sound is None or not len(sound):
        return None
    steps = min(OUTLINE_STEPS, len(sound))
    begins = np.arange(steps) * len(sound) // steps
    return Sound(
        seconds=len(sound) / SAMPLE_RATE,
        low=np.minimum.reduceat(sound, begins),
        high=np.maximum.reduceat(sound, begins),
    )
