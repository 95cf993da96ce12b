"""The encoders that an exported model's rows were made by, found again by their recorded names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from data_pipeline.errors import UserError
from data_pipeline.features.detector import load_detector, load_same_detector
from data_pipeline.features.device import choose_device, open_device
from data_pipeline.features.extract import Extractor
from data_pipeline.features.face_encoder import FACE, FaceEncoder
from data_pipeline.features.speech import SPEECH, SpeechEncoder
from data_pipeline.registry import ModelChoice, Registry
from data_pipeline.shards.dataset import RowSchema
from memo.inference.model import ClipModel

EncoderT = TypeVar("EncoderT", FaceEncoder, SpeechEncoder)


@dataclass(frozen=True)
class Given:
    """What the command line says of one encoder.

    Attributes:
        name: must be the model's; allows a class of one's own, whose code is no part of memo.
        weights: file or folder; None looks for them.
    """

    name: str | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class GivenEncoders:
    """The same of both, and of what finds faces.

    Attributes:
        face, speech: see `Given`.
        detector_weights: file of the face detector, if the model's has one; never looked for.
    """

    face: Given = field(default_factory=Given)
    speech: Given = field(default_factory=Given)
    detector_weights: Path | None = None


def load_extractor(model: ClipModel, given: GivenEncoders, beside: Path) -> Extractor:
    """The encoders that a model's rows were made by, of the modalities that it uses.

    Args:
        model: exported, or a system.
        given: where to take their weights from, and what may be run.
        beside: a file near which weights are looked for (see `Registry.find`).

    Raises:
        UserError: an encoder is unknown or may not be run, or its weights cannot be found, or are
            others than those of the model; or something is given of a modality that it does not
            use.
    """
    used, face, speech = model.modalities, None, None
    for option, kind, value in (
        ("face", "face", given.face.name),
        ("face-weights", "face", given.face.weights),
        ("detector-weights", "face", given.detector_weights),
        ("speech", "speech", given.speech.name),
        ("speech-weights", "speech", given.speech.weights),
    ):
        if value is not None and kind not in used:
            raise UserError(f"--{option}: the model uses {', '.join(used)}; leave it out")
    detector = load_detector(None)
    if "face" in used and (schema := model.features.face) is not None:
        detector = load_same_detector(schema, given.detector_weights)
        face = _load(FACE, given.face, schema, beside)
    if "speech" in used and (sounds := model.features.speech) is not None:
        speech = _load(SPEECH, given.speech, sounds, beside)
    fps = model.features.face.fps if model.features.face is not None else 1.0
    return Extractor(face, speech, fps, detector)


def _load(
    registry: Registry[EncoderT, torch.device], given: Given, recorded: RowSchema, beside: Path
) -> EncoderT:
    """The encoder that made some rows."""
    kind, name = registry.option, recorded.encoder
    made = f"the model's {kind} rows were made by {name!r}"
    if given.name not in (None, name):
        raise UserError(f"--{kind} {given.name}: {made}; no other encoder will do")
    if given.name is None and registry.is_own(name):  # a model's file must not say what is run
        raise UserError(
            f"{made}, a class that is no part of memo; --{kind} {name} allows its code to be run"
        )
    choice = registry.find(ModelChoice(name, given.weights), beside)
    encoder = registry.load(choice, open_device(choose_device("auto")))
    if encoder.sha256 != recorded.encoder_sha256:
        raise UserError(
            f"the {kind} encoder's weights have the sha256 {encoder.sha256[:16]}…, the model was "
            f"trained with {recorded.encoder_sha256[:16]}…; give those with --{kind}-weights"
        )
    return encoder
