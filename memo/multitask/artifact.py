"""A trained system in a folder: saved, and built again; `trained.py` uses it.

```
system/
  system.safetensors   the trained tensors; of words their vectors as well
  system.json          tasks, settings, hashes of the backbone and of a frozen image network
  words.txt            the vocabulary, a word a line, of an original backbone
```
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.shards.index import file_sha256
from memo.multitask.base import System, TaskKind
from memo.multitask.excerpt import Excerpt, Truncation
from memo.multitask.members import Member
from memo.multitask.setup import Blueprint, SystemFold, SystemSetup, find_recipe, window
from memo.multitask.texts import Cut, cut_pieces, cut_words
from memo.settings import Settings, parse_config
from memo.tuning.config import FinetuneConfig
from memo.tuning.job import Artifact
from memo.tuning.setup import Backbone, open_backbone
from memo.words.vocabulary import Vocabulary

TENSORS = "system.safetensors"
RECORD = "system.json"
WORDS = "words.txt"
FORMAT = "memo-system/3"
TABLE = "embedding.table.weight"
"""End of the name of the words' vectors."""


@dataclass(frozen=True)
class SystemArtifact(Artifact):
    """A trained system.

    Attributes:
        name: of its folder.
        fold: that it was trained on.
        tensors: by name: what was trained, and what is nowhere else to be had.
    """

    name: str
    fold: SystemFold
    tensors: Mapping[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write it into a new folder."""
        folder.mkdir(parents=True)
        save_file(dict(self.tensors), folder / TENSORS)
        setup = self.fold.setup
        words = None
        if self.fold.vocabulary is not None:
            (folder / WORDS).write_text("\n".join(self.fold.vocabulary.words), "utf8")
            words = file_sha256(folder / WORDS)
        record = {
            "format": FORMAT,
            "config": setup.config.model_dump(mode="json"),
            "system": setup.system.system,
            "tasks": _tasks(setup.members),
            "tags": list(self.fold.tags.words),
            "seed": self.fold.seed,
            "words_sha256": words,
            "backbone_sha256": setup.backbone and setup.backbone.sha256,
            "images_sha256": _images_sha256(setup),
            "tensors_sha256": file_sha256(folder / TENSORS),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf8")


def _images_sha256(setup: SystemSetup) -> str | None:
    """Of the weights that images are read with, where they are not among the trained tensors."""
    image = setup.config.trimodal.image
    if setup.backbone is not None or not image.frozen:
        return None
    assert image.weights is not None, "the settings are checked"
    return file_sha256(image.weights)


def _tasks(members: Sequence[Member]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "answers": list(one.answers),
            "multi_label": bool(one.traits),
            "longest": one.excerpt.longest,
            "truncation": one.excerpt.truncation,
        }
        for one in members
    ]


@dataclass(frozen=True)
class Saved:
    """A system as it was saved.

    Attributes:
        config: of its run.
        model: with its trained values.
        tasks: of each its name, the names of its answers, whether a text may have several of them,
            and what of a text is read.
        tags: those that it knows.
        vocabulary: of an original backbone's words, or None.
        backbone: what was tuned, or None.
    """

    config: FinetuneConfig
    model: System
    tasks: Sequence[Mapping[str, Any]]
    tags: Vocabulary
    vocabulary: Vocabulary | None
    backbone: Backbone | None

    @property
    def dims(self) -> tuple[int, int]:
        """Columns of face and speech rows."""
        spec = self.backbone.spec if self.backbone else None
        return (spec.face_dim, spec.speech_dim) if spec else (0, 0)

    @property
    def answers(self) -> dict[str, Sequence[str]]:
        """Task -> names of its classes or traits."""
        return {one["name"]: one["answers"] for one in self.tasks}

    def cut(self, task: int) -> Cut:
        """How texts of a task are cut."""
        excerpt = Excerpt(self.tasks[task]["longest"], self.tasks[task]["truncation"])
        if self.backbone is not None:
            return cut_pieces(self.backbone.tokenizer, excerpt, window(self.backbone))
        assert self.vocabulary is not None, "there are words or a backbone"
        return cut_words(self.vocabulary, excerpt)


class _Task(Settings):
    """One of `tasks` of `system.json`."""

    name: str
    answers: tuple[str, ...] = Field(min_length=1)
    multi_label: bool
    longest: int
    truncation: Truncation


class _Record(Settings):
    """The content of `system.json`."""

    format: str
    config: FinetuneConfig
    system: str
    tasks: tuple[_Task, ...] = Field(min_length=1)
    tags: tuple[str, ...]
    seed: int
    words_sha256: str | None
    backbone_sha256: str | None
    images_sha256: str | None
    tensors_sha256: str


def read_system(folder: Path, pretrained: Path | None = None, images: Path | None = None) -> Saved:
    """Read a system that a run has left in `folds/*/system`.

    Args:
        folder: of the system.
        pretrained: the backbone's checkpoint, where it is not where it was.
        images: likewise the weights of a frozen image network.

    Raises:
        UserError: there is none, it was altered, or the backbone or a frozen image network is
            another, or is given where it has none.
    """
    record, tensors = _read(folder)
    config = _with_images(record.config, record.images_sha256, images, folder)
    if pretrained is not None:
        if config.backbone != "memo":
            raise UserError(f"{folder} reads words, without a backbone; leave pretrained out")
        config = config.model_copy(update={"pretrained": pretrained})
    backbone = open_backbone(config) if config.backbone == "memo" else None
    if backbone is not None and backbone.sha256 != record.backbone_sha256:
        trained_on = (record.backbone_sha256 or "")[:16]
        raise UserError(
            f"{folder} was trained on the backbone with sha256 {trained_on}…, "
            f"{backbone.checkpoint.folder} has {backbone.sha256[:16]}…"
        )
    kinds = [TaskKind(one.name, len(one.answers), one.multi_label) for one in record.tasks]
    table = next((one.float() for name, one in tensors.items() if name.endswith(TABLE)), None)
    tags = Vocabulary(record.tags)
    blueprint = Blueprint(config, kinds, backbone, table, len(tags))
    torch.manual_seed(record.seed)
    model = find_recipe(record.system).build(blueprint).eval()
    _load(model, tensors, folder)
    vocabulary = None
    if backbone is None:
        vocabulary = Vocabulary((folder / WORDS).read_text("utf8").split("\n"))
    tasks = [one.model_dump() for one in record.tasks]
    return Saved(config, model, tasks, tags, vocabulary, backbone)


def _read(folder: Path) -> tuple[_Record, dict[str, Tensor]]:
    try:
        content: Any = json.loads((folder / RECORD).read_text("utf8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no trained system ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{folder / RECORD} is not of the format {FORMAT}")
    record = parse_config(_Record, content, str(folder / RECORD))
    words = folder / WORDS
    for path, expected in (
        (folder / TENSORS, record.tensors_sha256),
        (words, record.words_sha256),
    ):
        if expected is not None and (not path.is_file() or file_sha256(path) != expected):
            raise UserError(f"{path} was altered: its sha256 is not that of {RECORD}")
    return record, tensors


def _with_images(
    config: FinetuneConfig, sha256: str | None, moved: Path | None, folder: Path
) -> FinetuneConfig:
    """The settings with the file of weights; without it where the tensors have taken its place."""
    trimodal = config.trimodal
    if moved is not None and sha256 is None:
        raise UserError(f"{folder} has no frozen image network; leave its weights out")
    path = moved or trimodal.image.weights if sha256 else None
    image = trimodal.image.model_copy(update={"weights": path})
    config = config.model_copy(update={"trimodal": trimodal.model_copy(update={"image": image})})
    if sha256 is None:
        return config
    assert path is not None, "the settings are checked"
    if not path.is_file():
        raise UserError(
            f"{folder} reads images with the weights of {path}: there is no such file; say where "
            "it is with --image-weights FILE, or images=FILE in Python"
        )
    if (found := file_sha256(path)) != sha256:
        raise UserError(
            f"{folder} reads images with the weights of sha256 {sha256[:16]}…, {path} has "
            f"{found[:16]}…"
        )
    return config


@torch.no_grad()
def _load(model: System, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Put trained values into a model; it may have others, which are the backbone's."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    unknown = [name for name in tensors if name not in own]
    if unknown:
        raise UserError(f"the system has no {unknown[0]}: it was made by another version")
    for name, value in tensors.items():
        if own[name].shape != value.shape:
            raise UserError(
                f"{folder}: {name} of {TENSORS} does not fit {RECORD}, by which it would be of "
                f"{' x '.join(map(str, own[name].shape))}; take the run's own"
            )
        own[name].copy_(value)
