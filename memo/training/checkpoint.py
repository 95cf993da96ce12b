"""Checkpoints: whole tensors by name, hashed, and there only when they are complete.

```
checkpoints/
  latest                       name of the newest whole one
  step-00000400/
    model.safetensors          `backbone.*` and `objectives.<name>.*`, float32
    optimizer.safetensors      `exp_avg.<name>`, `exp_avg_sq.<name>`
    state.json                 step, stream state, settings, sizes, what the rows are
    tokenizer/
    manifest.json              bytes and sha256 of every other file
```

Nothing depends on the number of ranks or the ZeRO stage that wrote it. Nothing is a pickle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.order import StreamState
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.place import Place
from memo.config import ModelSpec, PretrainConfig
from memo.model.memobert import MemoBert
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.registry import build_objectives
from memo.settings import parse_config
from memo.tokenizer import Tokenizer, load_tokenizer
from memo.training.spikes import LossRecord
from memo.training.state import TrainingState

FORMAT = "memo-checkpoint/1"
LATEST = "latest"
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: optimizer steps taken, skipped ones included.
        tokens: tokens seen, over all ranks.
        stream: state of the data stream.
        losses: of the last steps, by which a spike is told.
        roll_backs: how often the run has gone back to an earlier checkpoint.
        bad_steps: how many of the last steps in a row were not finite.
    """

    step: int
    tokens: int
    stream: StreamState
    losses: LossRecord = field(default_factory=LossRecord)
    roll_backs: int = 0
    bad_steps: int = 0

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """What `asdict` has made, with the stream's state as `StreamState.to_json` has."""
        losses = record.get("losses", {"recent": (), "high": 0})  # there since spikes are watched
        return cls(
            step=record["step"],
            tokens=record["tokens"],
            stream=StreamState.from_json(record["stream"]),
            losses=LossRecord(tuple(losses["recent"]), losses["high"]),
            roll_backs=record.get("roll_backs", 0),
            bad_steps=record.get("bad_steps", 0),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk, its hashes verified.

    Attributes:
        folder: where it is.
        progress: how far the run was.
        config: the run's settings.
        spec: the model's sizes.
        features: what the rows are that it was trained on.
        updates: steps that AdamW has made.
    """

    folder: Path
    progress: Progress
    config: PretrainConfig
    spec: ModelSpec
    features: FeatureSchema
    updates: int

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return load_tokenizer(self.folder / TOKENIZER)

    def weights(self) -> dict[str, Tensor]:
        """The model's parameters and buffers."""
        return load_tensors(self.folder / MODEL)

    def state(self) -> TrainingState:
        """Parameters and moments.

        Raises:
            UserError: it has no moments, for it was imported or averaged.
        """
        moments = load_tensors(self.folder / OPTIMIZER)
        if not moments:
            raise UserError(
                f"{self.folder} has weights and no optimizer state: tune from it; a pretraining "
                "run cannot go on from it"
            )
        return TrainingState(self.weights(), moments, self.updates)


def find_checkpoint(place: Path) -> Path:
    """The checkpoint that a path means: itself, or the latest of a run or `checkpoints` folder.

    Raises:
        UserError: there is none.
    """
    if (place / MANIFEST).is_file():
        return place
    for root in (place, place / "checkpoints"):
        if (root / LATEST).is_file():
            name = (root / LATEST).read_text("utf8", errors="replace").strip()
            if not (root / name / MANIFEST).is_file() or not name:
                raise UserError(f"{root / LATEST} names {name!r}, which is no checkpoint there")
            return root / name
    raise UserError(f"there is no checkpoint in {place}; give a checkpoint's or a run's folder")


def open_checkpoint(place: Path) -> Checkpoint:
    """Verify a checkpoint and read its record; its tensors are loaded when asked for.

    Args:
        place: see `find_checkpoint`.

    Raises:
        UserError: there is none, a file is missing, cut short or altered (names the file), or its
            record is not of this version.
    """
    folder = find_checkpoint(place)
    verify_files(folder)
    try:
        return _read(folder)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{folder / STATE} cannot be used ({type(error).__name__}: {reason:.200}); it may be "
            "of another version of memo"
        ) from None


def _read(folder: Path) -> Checkpoint:
    """The record of a checkpoint whose files are as they were written."""
    record = json.loads((folder / STATE).read_text("utf8"))
    if record.get("format") != FORMAT:
        raise UserError(f"{folder} has the format {record.get('format')!r}, not {FORMAT}")
    return Checkpoint(
        folder=folder,
        progress=Progress.from_json(record["progress"]),
        config=parse_config(PretrainConfig, record["config"], str(folder / STATE)),
        spec=ModelSpec.model_validate(record["spec"]),
        features=FeatureSchema.model_validate(record["features"]),
        updates=record["updates"],
    )


def verify_files(folder: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        UserError: one is missing, cut short or altered.
    """
    try:
        found: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_text("utf8"))
        entries = {name: found[name] for name in (MODEL, OPTIMIZER, STATE)} | found
        if not all({"bytes", "sha256"} <= entry.keys() for entry in entries.values()):
            raise ValueError("an entry lacks a figure")
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{folder} is no whole checkpoint: {MANIFEST} cannot be read") from None
    for name, entry in entries.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; take another checkpoint")
        if path.stat().st_size != entry["bytes"]:
            raise UserError(
                f"{path} has {path.stat().st_size} bytes, the manifest says {entry['bytes']}; it "
                "was cut short or altered: take another checkpoint"
            )
        if file_sha256(path) != entry["sha256"]:
            raise UserError(f"{path} was altered: its sha256 is not the manifest's")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    return tensors


def check_encoders(
    checkpoint: Checkpoint, features: FeatureSchema, place: Place, modalities: Sequence[str]
) -> None:
    """The rows of a dataset must be of the kind that the model was trained on.

    Args:
        checkpoint: of the model.
        features: of the dataset.
        place: the dataset's.
        modalities: `face`, `speech`; one that the dataset lacks is passed over.

    Raises:
        UserError: names what differs, with both values.
    """
    for name in modalities:
        ours, theirs = getattr(features, name), getattr(checkpoint.features, name)
        if ours is not None and theirs is None:
            raise UserError(f"{checkpoint.folder} has been trained on no {name}, {place} has it")
        if ours is not None and (found := ours.difference(theirs)):
            part, one, other = found
            raise UserError(
                f"{place}: its {name} rows have {part}={one}, those that {checkpoint.folder} was "
                f"trained on {other}; build it with the same encoder and detector"
            )


def load_model(checkpoint: Checkpoint) -> tuple[PretrainingModel, Tokenizer]:
    """The model of a checkpoint with its tokenizer, for evaluation.

    Raises:
        UserError: the tokenizer does not fit the weights.
    """
    tokenizer = checkpoint.tokenizer()
    if tokenizer.vocab_size != checkpoint.spec.vocab_size:
        raise UserError(
            f"{checkpoint.folder}: its tokenizer has {tokenizer.vocab_size} pieces, its model "
            f"{checkpoint.spec.vocab_size}"
        )
    model = PretrainingModel(
        MemoBert(checkpoint.spec),
        build_objectives(checkpoint.config.objectives, checkpoint.spec),
    )
    model.load_state_dict(checkpoint.weights())
    return model, tokenizer
