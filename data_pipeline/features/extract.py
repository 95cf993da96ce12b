"""A recording's video and sound -> the feature rows of a Clip, by the frozen encoders."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.features.denseface import DenseFace
from data_pipeline.features.face import align_faces, shrink_faces
from data_pipeline.features.speech import SpeechEncoder, average_rows, load_speech_encoder
from data_pipeline.features.video import decode_frames, decode_sound

SAMPLE_RATE = 16_000
SPEECH_GROUP = 3
"""Encoder rows averaged into one: 3 rows of 20 ms are 60 ms (MEmoBERT)."""


@dataclass(frozen=True)
class ExtractSettings:
    """Which encoders, and at what rate.

    Attributes:
        face_weights: file of the face network; None leaves faces out.
        speech_encoder: name of the speech encoder.
        speech_weights: its file or folder; None leaves sound out.
        face_fps: face rows a second.
    """

    face_weights: Path | None
    speech_encoder: str
    speech_weights: Path | None
    face_fps: float = 10.0


class Extractor:
    """Encoders, loaded once in each process.

    Args:
        face: None leaves faces out.
        speech: None leaves sound out.
        face_fps: face rows a second.
    """

    def __init__(
        self, face: DenseFace | None, speech: SpeechEncoder | None, face_fps: float
    ) -> None:
        self.face = face
        self.speech = speech
        self.face_fps = face_fps

    @classmethod
    def load(cls, settings: ExtractSettings) -> "Extractor":
        """The encoders whose weights are given."""
        face, speech = settings.face_weights, settings.speech_weights
        return cls(
            DenseFace.load(face) if face else None,
            load_speech_encoder(settings.speech_encoder, speech) if speech else None,
            settings.face_fps,
        )

    def clip(self, recording: Recording, media: bytes | None) -> Clip:
        """Decode one recording and encode it; a modality that is not there is left out.

        Args:
            recording: what the corpus says of it.
            media: content of its file; None for one that is only text.

        Raises:
            MediaError: the file cannot be decoded.
        """
        clip = describe(Clip(recording.key), recording)
        if media is None:
            return clip
        sound = decode_sound(media, SAMPLE_RATE)  # (samples,)
        frames = decode_frames(media, self.face_fps)  # (T, H, W)
        return self.encode(clip, sound, frames, recording.aligned_face)

    def encode(
        self,
        clip: Clip,
        sound: NDArray[np.float32] | None,
        frames: NDArray[np.uint8],
        aligned: bool = False,
    ) -> Clip:
        """The clip with the rows of its sound and pictures.

        Args:
            clip: what is known of it.
            sound: (samples,) at 16 kHz; None if there is none.
            frames: uint8 (T, H, W), grey, `face_fps` a second; T may be 0.
            aligned: the pictures are faces already.
        """
        face, expression = self._face_rows(frames, aligned)
        return replace(
            clip,
            duration_s=_duration_s(sound, len(frames), self.face_fps),
            face=face,
            expression=expression,
            speech=self._speech_rows(sound),
        )

    def _face_rows(
        self, frames: NDArray[np.uint8], aligned: bool
    ) -> tuple[NDArray[np.float16] | None, NDArray[np.float16] | None]:
        """Features (T, 342) and posteriors (T, K), zero rows where no face is; None if nowhere."""
        if self.face is None:
            return None, None
        size = self.face.input_size
        if aligned:
            faces, found = shrink_faces(frames, size), np.ones(len(frames), dtype=bool)
        else:
            faces, found = align_faces(frames, size)  # (T, size, size), (T,)
        if not found.any():
            return None, None
        features, posteriors = self.face.encode(faces)
        features[~found] = 0
        posteriors[~found] = 0
        return features.astype(np.float16), posteriors.astype(np.float16)

    def _speech_rows(self, sound: NDArray[np.float32] | None) -> NDArray[np.float16] | None:
        """Rows of 60 ms, (T, D); None of no sound, or sound too short for one."""
        if sound is None or self.speech is None:
            return None
        rows = average_rows(self.speech.encode(sound), SPEECH_GROUP)
        return rows.astype(np.float16) if len(rows) else None


def describe(clip: Clip, recording: Recording) -> Clip:
    """The clip with what the corpus says of it."""
    return replace(
        clip,
        text=recording.text,
        language=recording.language,
        words=recording.words,
        speaker=recording.speaker,
        session=recording.session,
        labels=recording.labels,
        tags=recording.tags,
        source=recording.media or recording.image or "",
    )


def _duration_s(sound: NDArray[np.float32] | None, frames: int, face_fps: float) -> float:
    """The longer of sound and picture, in seconds."""
    of_sound = 0.0 if sound is None else len(sound) / SAMPLE_RATE
    return round(max(of_sound, frames / face_fps), 3)
