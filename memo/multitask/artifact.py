"""A trained system, saved; one of texts can be used: for answers, and for its shared states.

```
system/
  system.safetensors   the trained tensors; of words their vectors as well
  system.json          tasks, settings, hash of the backbone
  words.txt            the vocabulary, a word a line, of an original backbone
```
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch, pack
from data_pipeline.shards.index import file_sha256
from memo.multitask.asp_mtl import AspSystem
from memo.multitask.base import System, TaskKind
from memo.multitask.members import Member
from memo.multitask.setup import Blueprint, SystemFold, find_recipe, window
from memo.multitask.texts import Cut, TextTransform, cut_pieces, cut_words, label_specs
from memo.settings import parse_config
from memo.tuning.config import FinetuneConfig
from memo.tuning.job import Artifact
from memo.tuning.setup import open_backbone
from memo.words.vocabulary import Vocabulary

TENSORS = "system.safetensors"
RECORD = "system.json"
WORDS = "words.txt"
FORMAT = "memo-system/1"
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
            "tensors_sha256": file_sha256(folder / TENSORS),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf8")


def _tasks(members: Sequence[Member]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "answers": list(one.answers),
            "multi_label": bool(one.traits),
            "longest": one.longest,
        }
        for one in members
    ]


@dataclass(frozen=True)
class TrainedSystem:
    """A system of texts, ready for use.

    Attributes:
        model: with its trained values.
        answers: task -> names of its classes or traits.
        cuts: of each task, how its texts are cut.
        dims: columns of face and speech rows, of which there are none.
    """

    model: System
    answers: Mapping[str, Sequence[str]]
    cuts: Sequence[Cut]
    dims: tuple[int, int]

    @torch.no_grad()
    def predict(self, texts: Sequence[str], task: str) -> list[dict[str, float]]:
        """Probabilities of the classes, or of each trait, of some texts.

        Raises:
            UserError: there is no such task.
            BadSampleError: a text is empty.
        """
        number = self._number(task)
        (found,) = self.model.answers(self._batch(texts, number), number).values()
        names = self.answers[task]
        return [dict(zip(names, row, strict=True)) for row in found.tolist()]

    @torch.no_grad()
    def shared_states(self, texts: Sequence[str], task: str) -> Tensor:
        """What the shared encoder of an ASP-MTL network says of some texts, (n, d): features.

        Raises:
            UserError: there is no such task, or nothing is shared.
            BadSampleError: a text is empty.
        """
        if not isinstance(self.model, AspSystem) or self.model.network.shared is None:
            raise UserError("this system has no shared encoder")
        return self.model.network.shared_states(self._batch(texts, self._number(task)))

    def _number(self, task: str) -> int:
        if task not in self.answers:
            raise UserError(f"there is no task {task!r}; known are: {', '.join(self.answers)}")
        return list(self.answers).index(task)

    def _batch(self, texts: Sequence[str], task: int) -> PackedBatch:
        transform = TextTransform(
            self.cuts[task], np.zeros((len(texts), 1), dtype=np.int64), *self.dims
        )
        clips = [Clip(str(at), text=text) for at, text in enumerate(texts)]
        examples = [transform(clip, at, 0) for at, clip in enumerate(clips)]
        return pack(examples, label_specs(1), *self.dims)


def open_system(folder: Path, pretrained: Path | None = None) -> TrainedSystem:
    """Read a system of texts that a run has left in `folds/*/system`.

    Args:
        folder: of the system.
        pretrained: the backbone's checkpoint, where it is not where it was.

    Raises:
        UserError: there is none, it was altered, is of posts, or the backbone is another.
    """
    record, tensors = _read(folder)
    config = parse_config(FinetuneConfig, record["config"], str(folder / RECORD))
    if record["system"] == "trimodal":
        raise UserError(f"{folder} is a system of posts or clips, not of texts")
    if pretrained is not None:
        config = config.model_copy(update={"pretrained": pretrained})
    kinds = [
        TaskKind(one["name"], len(one["answers"]), one["multi_label"]) for one in record["tasks"]
    ]
    backbone = open_backbone(config) if config.backbone == "memo" else None
    if backbone is not None and backbone.sha256 != record["backbone_sha256"]:
        raise UserError(
            f"{folder} was trained on the backbone with sha256 {record['backbone_sha256'][:16]}…, "
            f"{backbone.checkpoint.folder} has {backbone.sha256[:16]}…"
        )
    table = next((one.float() for name, one in tensors.items() if name.endswith(TABLE)), None)
    blueprint = Blueprint(config, kinds, backbone, table, len(record["tags"]))
    torch.manual_seed(record["seed"])
    model = find_recipe(record["system"]).build(blueprint).eval()
    _load(model, tensors)
    longest = [one["longest"] for one in record["tasks"]]
    if backbone is None:
        vocabulary = Vocabulary((folder / WORDS).read_text("utf8").split("\n"))
        cuts = [cut_words(vocabulary, one) for one in longest]
    else:
        cuts = [cut_pieces(backbone.tokenizer, one, window(backbone)) for one in longest]
    dims = (backbone.spec.face_dim, backbone.spec.speech_dim) if backbone else (0, 0)
    answers = {one["name"]: one["answers"] for one in record["tasks"]}
    return TrainedSystem(model, answers, cuts, dims)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        record: Any = json.loads((folder / RECORD).read_text("utf8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no trained system ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{folder / RECORD} is not of the format {FORMAT}")
    words = folder / WORDS
    for path, expected in (
        (folder / TENSORS, record["tensors_sha256"]),
        (words, record["words_sha256"]),
    ):
        if expected is not None and (not path.is_file() or file_sha256(path) != expected):
            raise UserError(f"{path} was altered: its sha256 is not that of {RECORD}")
    return record, tensors


@torch.no_grad()
def _load(model: System, tensors: Mapping[str, Tensor]) -> None:
    """Put trained values into a model; it may have others, which are the backbone's."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    unknown = [name for name in tensors if name not in own]
    if unknown:
        raise UserError(f"the system has no {unknown[0]}: it was made by another version")
    for name, value in tensors.items():
        own[name].copy_(value)
