"""Which models a build needs, and where their weights are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_pipeline.corpora.base import SOUNDS, Recording
from data_pipeline.errors import UserError
from data_pipeline.features.action_units import ActionUnits
from data_pipeline.features.device import choose_device
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.features.face_encoder import FACE
from data_pipeline.features.speech import SPEECH
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.transcriber import TranscribeSettings


def find_encoders(
    asked: ExtractSettings, recordings: Sequence[Recording], source: Path
) -> ExtractSettings:
    """The encoders with their weights; none where there is nothing to see or hear.

    Args:
        asked: what the user wants.
        recordings: of the corpus.
        source: its raw files, near which weights are looked for.

    Raises:
        UserError: an encoder is unknown, weights cannot be found or are named of what the corpus
            does not have, or the device is not there.
    """
    face, speech = asked.face, asked.speech
    if face is not None:
        FACE.check(face.name)
    if speech is not None:
        SPEECH.check(speech.name)
    if face is not None and face.name == ActionUnits.name:
        _check_action_units(recordings, source)
    if not _has_video(recordings):
        if asked.detector_weights is not None:
            raise UserError(f"--detector-weights: {source} has no video; leave it out")
        _refuse_weights("face", face, f"{source} has no video")
    if not _has_sound(recordings):
        _refuse_weights("speech", speech, f"{source} has no sound")
        speech = None
    if all(one.media is None for one in recordings):
        return replace(asked, face=None, speech=None, device="cpu")
    return replace(
        asked,
        face=face and FACE.find(face, source),
        speech=speech and SPEECH.find(speech, source),
        device=choose_device(asked.device),
    )


def _check_action_units(recordings: Sequence[Recording], source: Path) -> None:
    """Without any the dataset would have no face, after all has been encoded."""
    if all(one.action_units is None for one in recordings):
        raise UserError(f"--face action-units: {source} brings none along; take another encoder")


def find_transcribers(
    asked: TranscribeSettings, recordings: Sequence[Recording], source: Path
) -> TranscribeSettings:
    """The recogniser and the aligner with their weights; none where there is nothing to hear.

    Args:
        asked: what the user wants.
        recordings: of the corpus.
        source: its raw files, near which weights are looked for.

    Raises:
        UserError: a model is unknown, or weights cannot be found or are named without need.
    """
    found = asked.find(source)
    if _has_sound(recordings):
        return found
    for task, choice in (("recognise", asked.recognise), ("align", asked.align)):
        _refuse_weights(task, choice, f"{source} has no sound")
    return TranscribeSettings()


def _has_video(recordings: Sequence[Recording]) -> bool:
    """Whether there may be something to see, as far as the files' names tell."""
    suffixes = (PurePosixPath(one.media).suffix for one in recordings if one.media is not None)
    return any(suffix.lower() not in SOUNDS for suffix in suffixes)


def _has_sound(recordings: Sequence[Recording]) -> bool:
    """Whether there may be something to hear: a picture of a face is silent."""
    return any(one.media is not None and not one.aligned_face for one in recordings)


def _refuse_weights(option: str, choice: ModelChoice | None, why: str) -> None:
    """Weights of a model that has nothing to do are a mistake, in the option or in the source."""
    if choice is not None and choice.weights is not None:
        raise UserError(f"--{option}-weights: {why}; leave --{option} and its weights out")
