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
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.order import StreamState
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.place import Place
from memo.config import ModelSpec, PretrainConfig, parse_config
from memo.model.memobert import MemoBert
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.registry import build_objectives
from memo.tokenizer import Tokenizer, load_tokenizer
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
    """

    step: int
    tokens: int
    stream: StreamState


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
        return _load_tensors(self.folder / MODEL)

    def state(self) -> TrainingState:
        """Parameters and moments."""
        return TrainingState(self.weights(), _load_tensors(self.folder / OPTIMIZER), self.updates)


def write_checkpoint(
    root: Path,
    state: TrainingState,
    progress: Progress,
    config: PretrainConfig,
    spec: ModelSpec,
    features: FeatureSchema,
    tokenizer: Tokenizer,
) -> Path:
    """Write a checkpoint; called on the first rank alone.

    Its folder appears by one rename when every file is on disk, then `latest` names it, then the
    oldest ones beyond `config.keep_checkpoints` are removed.

    Args:
        root: the run's `checkpoints` folder.
        state: from `Engine.collect`.
        progress: how far the run is.
        config: its settings.
        spec: the model's sizes.
        features: of the dataset.
        tokenizer: the run's.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: a weight is not finite, or the disk is full; the older checkpoints stay as they
            are.
    """
    _refuse_non_finite(state.model)
    folder = root / f"step-{progress.step:08d}"
    temporary = folder.with_suffix(".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write_files(temporary, state, progress, config, spec, features, tokenizer)
        _put_in_place(temporary, folder)
        _point_latest(root, folder.name)
        _prune(root, config.keep_checkpoints, folder.name)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{temporary} cannot be written: {error}") from None
    return folder


def _write_files(
    temporary: Path,
    state: TrainingState,
    progress: Progress,
    config: PretrainConfig,
    spec: ModelSpec,
    features: FeatureSchema,
    tokenizer: Tokenizer,
) -> None:
    """All of a checkpoint, on disk."""
    save_file(dict(state.model), temporary / MODEL)
    save_file(dict(state.moments), temporary / OPTIMIZER)
    tokenizer.save(temporary / TOKENIZER)
    record = {
        "format": FORMAT,
        "progress": {**asdict(progress), "stream": progress.stream.to_json()},
        "updates": state.updates,
        "spec": spec.model_dump(),
        "features": features.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "tokenizer_fingerprint": tokenizer.fingerprint,
    }
    (temporary / STATE).write_text(json.dumps(record, indent=1), encoding="utf8")
    _write_manifest(temporary)
    _sync_tree(temporary)


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Give a whole checkpoint its name; one of a run that was resumed from before it makes room."""
    if folder.exists():
        old = folder.with_suffix(".old.tmp")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    temporary.rename(folder)


def _refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} is not finite; no checkpoint of this state is written")


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in files
    }
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1), encoding="utf8")


def _sync_tree(folder: Path) -> None:
    """Have every file and folder on disk before the rename that makes them count."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _point_latest(root: Path, name: str) -> None:
    temporary = root / f"{LATEST}.tmp"
    with temporary.open("w", encoding="utf8") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(root / LATEST)
    _sync(root)


def _prune(root: Path, keep: int | None, newest: str) -> None:
    """Remove the oldest checkpoints, and what interrupted writes have left.

    Later ones than the newest are of a run that was resumed from before them; they do not count.
    """
    for left in root.glob("step-*.tmp"):
        shutil.rmtree(left)
    if keep is not None:
        own = [folder for folder in sorted(root.glob("step-*")) if folder.name <= newest]
        for old in own[:-keep]:
            shutil.rmtree(old)


def find_checkpoint(place: Path) -> Path:
    """The checkpoint that a path means: itself, or the latest of a run or `checkpoints` folder.

    Raises:
        UserError: there is none.
    """
    if (place / MANIFEST).is_file():
        return place
    for root in (place, place / "checkpoints"):
        if (root / LATEST).is_file():
            name = (root / LATEST).read_text("utf8").strip()
            if not (root / name / MANIFEST).is_file() or not name:
                raise UserError(f"{root / LATEST} names {name!r}, which is no checkpoint there")
            return root / name
    raise UserError(f"there is no checkpoint in {place}; give a checkpoint's or a run's folder")


def open_checkpoint(place: Path) -> Checkpoint:
    """Verify a checkpoint and read its record; its tensors are loaded when asked for.

    Args:
        place: see `find_checkpoint`.

    Raises:
        UserError: there is none, or a file is missing, cut short or altered (names the file).
    """
    folder = find_checkpoint(place)
    _verify(folder)
    record = json.loads((folder / STATE).read_text("utf8"))
    if record.get("format") != FORMAT:
        raise UserError(f"{folder} has the format {record.get('format')!r}, not {FORMAT}")
    return Checkpoint(
        folder=folder,
        progress=Progress(
            step=record["progress"]["step"],
            tokens=record["progress"]["tokens"],
            stream=StreamState.from_json(record["progress"]["stream"]),
        ),
        config=parse_config(PretrainConfig, record["config"], str(folder / STATE)),
        spec=ModelSpec.model_validate(record["spec"]),
        features=FeatureSchema.model_validate(record["features"]),
        updates=record["updates"],
    )


def _verify(folder: Path) -> None:
    """Compare every file with the manifest."""
    try:
        entries: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_text("utf8"))
    except (OSError, ValueError):
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


def _load_tensors(path: Path) -> dict[str, Tensor]:
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
        for field in ("dim", "encoder", "encoder_sha256") if ours is not None else ():
            one, other = getattr(ours, field), getattr(theirs, field)
            if one != other:
                raise UserError(
                    f"{place}: its {name} rows have {field}={one}, those that "
                    f"{checkpoint.folder} was trained on {other}; build it with the same encoder"
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
