"""A recording's video and sound -> the feature rows of a Clip, by the frozen encoders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.features.activity import frames_with_speech
from data_pipeline.features.detector import FaceDetector, load_detector
from data_pipeline.features.device import open_device
from data_pipeline.features.face import Aligned, align_faces, shrink_faces
from data_pipeline.features.face_encoder import FACE, FaceEncoder
from data_pipeline.features.frames import Frames, cut_region
from data_pipeline.features.speech import SPEECH, SpeechEncoder, average_rows, speech_group
from data_pipeline.features.video import (
    WHOLE,
    Media,
    MediaError,
    Sound,
    decode_spans,
    decode_track,
)
from data_pipeline.registry import ModelChoice

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class ExtractSettings:
    """Which encoders, and at what rate.

    Attributes:
        face: the face encoder; None leaves faces out.
        speech: the speech encoder; None leaves sound out.
        face_fps: face rows a second.
        detector_weights: file of the detector that looks for faces; None is the one without a file.
        device: where they run, see `choose_device`.
    """

    face: ModelChoice | None
    speech: ModelChoice | None
    face_fps: float = 10.0
    detector_weights: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Part:
    """What there is to hear and to see of one recording.

    Attributes:
        sound: (samples,) at 16 kHz; None if there is none.
        frames: uint8 (T, H, W), grey; T may be 0.
        faces: the speaker's in them, if they have been looked for.
    """

    sound: NDArray[np.float32] | None
    frames: Frames
    faces: Aligned | None = None


class Extractor:
    """Encoders, loaded once in each process.

    Args:
        face: None leaves faces out.
        speech: None leaves sound out.
        face_fps: face rows a second.
        detector: looks for faces.
    """

    def __init__(
        self,
        face: FaceEncoder | None,
        speech: SpeechEncoder | None,
        face_fps: float,
        detector: FaceDetector,
    ) -> None:
        self.face = face
        self.speech = speech
        self.face_fps = face_fps
        self.detector = detector

    @classmethod
    def load(cls, settings: ExtractSettings) -> "Extractor":
        """The encoders of the settings, whose weights have been found.

        Raises:
            UserError: one is unknown, or its weights do not load.
        """
        device = open_device(settings.device)
        return cls(
            FACE.load(settings.face, device) if settings.face else None,
            SPEECH.load(settings.speech, device) if settings.speech else None,
            settings.face_fps,
            load_detector(settings.detector_weights),
        )

    def parts(
        self, recordings: Sequence[Recording], media: Media, *, pictures: bool = True
    ) -> Iterator[tuple[Recording, Part | MediaError]]:
        """Decode the recordings of one file, in some order.

        The sound is decoded once, the pictures in one pass for as many recordings as do not
        overlap. Memory grows with the sound of the file and the pictures of one recording.

        Args:
            recordings: what the corpus says of them.
            media: their file.
            pictures: whether these are asked for; else they are decoded only where there is no
                sound, for a recording with neither lies behind the end of its file.

        Yields:
            Each recording and what there is of it, or why there is nothing; what is wrong with one
            leaves the others as they are.
        """
        try:
            sound = decode_track(media, SAMPLE_RATE)
        except (MediaError, MemoryError) as error:
            broken = MediaError(str(error) or "there is not enough memory for its sound")
            yield from ((one, broken) for one in recordings)
            return
        if not pictures:
            heard = {one.key: _heard(one, sound) for one in recordings}
            sure = [one for one in recordings if one.span is None or not _is_silent(heard[one.key])]
            yield from ((one, heard[one.key]) for one in sure)
            recordings = [one for one in recordings if one not in sure]
        for apart in _passes(recordings):
            parts = decode_spans(media, self.face_fps, [_span(one) for one in apart])
            for recording in apart:
                yield recording, _part(recording, sound, next(parts))

    def clip(self, recording: Recording, part: Part | None) -> Clip:
        """Encode one recording; a modality that is not there is left out.

        Args:
            recording: what the corpus says of it.
            part: what there is of it; None if it is only text.
        """
        clip = describe(Clip(recording.key), recording)
        if part is None:
            return clip
        aligned = recording.aligned_face
        clip = self.encode(clip, part.sound, part.frames, aligned, part.faces)
        if self.face is None or self.face.input_size or recording.action_units is None:
            return clip
        return replace(clip, face=np.array([recording.action_units], dtype=np.float16))

    def encode(
        self,
        clip: Clip,
        sound: NDArray[np.float32] | None,
        frames: Frames,
        aligned: bool = False,
        faces: Aligned | None = None,
    ) -> Clip:
        """The clip with the rows of its sound and pictures.

        Args:
            clip: what is known of it.
            sound: (samples,) at 16 kHz; None if there is none.
            frames: uint8 (T, H, W), grey, `face_fps` a second; T may be 0.
            aligned: the pictures are faces already.
            faces: what `look` sees in them, if that is known already.

        Raises:
            MediaError: an encoder makes rows that are not finite of it.
        """
        with np.errstate(over="ignore"):  # told below
            face, expression = self._face_rows(frames, sound, aligned, faces)
            speech = self._speech_rows(sound)
        for kind, rows in (("face", face), ("speech", speech)):
            if rows is not None and not np.isfinite(rows).all():
                raise MediaError(f"{kind} rows are not finite in float16")
        return replace(
            clip,
            duration_s=length_s(sound, len(frames), self.face_fps),
            face=face,
            expression=expression,
            speech=speech,
        )

    def look(
        self, frames: Frames, sound: NDArray[np.float32] | None, aligned: bool
    ) -> Aligned | None:
        """The speaker's faces, as large as their encoder has them; None if it looks at none.

        Args:
            frames: uint8 (T, H, W), grey, `face_fps` a second; T may be 0.
            sound: (samples,) at 16 kHz; None if there is none.
            aligned: the pictures are faces already, and nobody judges who speaks.
        """
        if self.face is None or not self.face.input_size:
            return None
        size = self.face.input_size
        if aligned:
            return Aligned(shrink_faces(frames, size), np.ones(len(frames), dtype=bool))
        speech = self.speech_in(frames, sound)
        return align_faces(frames, size, self.detector, self.face_fps, speech)

    def _face_rows(
        self,
        frames: Frames,
        sound: NDArray[np.float32] | None,
        aligned: bool,
        seen: Aligned | None,
    ) -> tuple[NDArray[np.float16] | None, NDArray[np.float16] | None]:
        """Features (T, D) and posteriors (T, K), zero rows where no face is; None if nowhere.

        Posteriors are None of an encoder that knows no expressions, too.
        """
        seen = self.look(frames, sound, aligned) if seen is None else seen
        if self.face is None or seen is None or not seen.found.any():
            return None, None
        features, posteriors = self.face.encode(seen.faces)
        features[~seen.found] = 0
        posteriors[~seen.found] = 0
        expression = posteriors.astype(np.float16) if self.face.classes else None
        return features.astype(np.float16), expression

    def speech_in(
        self, frames: Frames, sound: NDArray[np.float32] | None
    ) -> NDArray[np.bool_] | None:
        """In which frames somebody speaks, (T,); None without sound."""
        return None if sound is None else frames_with_speech(sound, len(frames), self.face_fps)

    def _speech_rows(self, sound: NDArray[np.float32] | None) -> NDArray[np.float16] | None:
        """Rows of about 60 ms, (T, D); None of no sound, or sound too short for one."""
        if sound is None or self.speech is None:
            return None
        rows = average_rows(self.speech.encode(sound), speech_group(self.speech.rows_per_s))
        return rows.astype(np.float16) if len(rows) else None


def _passes(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """The recordings by time, in groups in which no two overlap."""
    passes: list[list[Recording]] = []
    for recording in sorted(recordings, key=_span):
        begin_s, _ = _span(recording)
        fitting = (group for group in passes if _span(group[-1])[1] <= begin_s)
        group = next(fitting, None)
        if group is None:
            passes.append([recording])
        else:
            group.append(recording)
    return passes


def _span(recording: Recording) -> tuple[float, float]:
    """Begin and end in the media, in seconds."""
    begin_s, end_s = recording.span or WHOLE
    return max(begin_s, 0.0), end_s


def _part(
    recording: Recording, sound: Sound | None, frames: Frames | MediaError
) -> Part | MediaError:
    """What there is of a recording whose pictures are these, in the sound of its file."""
    if isinstance(frames, MediaError):
        return frames
    part = _heard(recording, sound)
    if isinstance(part, MediaError):
        return part
    if recording.span is not None and part.sound is None and not len(frames):
        begin_s, end_s = _span(recording)
        return MediaError(f"there is neither sound nor picture from {begin_s:.2f} to {end_s:.2f} s")
    return Part(part.sound, cut_region(frames, recording.region))


def _heard(recording: Recording, sound: Sound | None) -> Part | MediaError:
    """What there is of a recording without its pictures."""
    try:
        heard = None if sound is None else sound.part(*_span(recording))
    except MediaError as error:
        return error
    unseen = np.zeros((0, 1, 1), np.uint8)
    return Part(heard if heard is not None and len(heard) else None, unseen)


def _is_silent(part: Part | MediaError) -> bool:
    return isinstance(part, Part) and part.sound is None


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
        source=show_name(recording.media or recording.image or ""),
        span=recording.span and _span(recording),
        region=recording.region,
    )


def show_name(name: str) -> str:
    """A file's name as text that can be stored; names in another encoding than UTF-8 cannot."""
    return name.encode("utf8", "backslashreplace").decode()


def check_length(recording: Recording, duration_s: float | None) -> None:
    """A recording that nobody has cut cannot be encoded in one piece.

    Args:
        recording: what the corpus says of it.
        duration_s: how long it is; None if it is only text.

    Raises:
        MediaError: it is longer than it may be.
    """
    if duration_s is not None and duration_s > recording.longest_s:
        raise MediaError(
            f"it is {duration_s:.2f} s long; an utterance has {recording.longest_s:g} at most"
        )


def length_s(sound: NDArray[np.float32] | None, frames: int, face_fps: float) -> float:
    """The longer of sound (samples at 16 kHz) and pictures, in seconds."""
    of_sound = 0.0 if sound is None else len(sound) / SAMPLE_RATE
    return round(max(of_sound, frames / face_fps), 3)
