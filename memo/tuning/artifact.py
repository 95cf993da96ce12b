"""What tuning has trained, saved alone: kilobytes for an adapter or a prompt.

```
tuned/
  tuned.safetensors   the trained tensors, by their names in the `TaskModel`
  tuned.json          task, mode, settings, classes, outputs, hash of the backbone
```

It holds no backbone, fits the one it was trained on, and is refused by every other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_pipeline.errors import UserError
from data_pipeline.shards.index import file_sha256
from memo.settings import Settings, parse_config
from memo.tuning.config import FinetuneConfig
from memo.tuning.job import Artifact
from memo.tuning.model import load_trained
from memo.tuning.setup import Backbone
from memo.tuning.task import TaskSettings

TENSORS = "tuned.safetensors"
RECORD = "tuned.json"
FORMAT = "memo-tuned/1"


@dataclass(frozen=True)
class Tuned:
    """A tuned model without its backbone.

    Attributes:
        config: of the run that made it.
        task: its task; it answers among its classes.
        outputs: see `TaskRecord`.
        seed: of the weights that were new.
        backbone_sha256: hash of the weights' file that it was trained on.
        tensors: trained parameters by name.
    """

    config: FinetuneConfig
    task: TaskSettings
    outputs: tuple[str, ...]
    seed: int
    backbone_sha256: str
    tensors: Mapping[str, Tensor]

    def load_onto(self, model: nn.Module, backbone: Backbone) -> None:
        """Put the trained tensors into a `TaskModel` that was built as this one was.

        Raises:
            UserError: another backbone, or other tensors than the mode trains.
        """
        if backbone.sha256 != self.backbone_sha256:
            raise UserError(
                f"this {self.config.mode} was trained on the backbone with sha256 "
                f"{self.backbone_sha256[:16]}…, {backbone.checkpoint.folder} has "
                f"{backbone.sha256[:16]}…; give the checkpoint that it was trained on"
            )
        shapes = {name: one.shape for name, one in model.named_parameters() if one.requires_grad}
        if shapes != {name: one.shape for name, one in self.tensors.items()}:
            raise UserError(f"its tensors are not those that {self.config.mode} trains")
        load_trained(model, self.tensors)


@dataclass(frozen=True)
class TunedArtifact(Artifact):
    """Trained tensors to be saved.

    Attributes:
        name: of their folder.
        config: with which they were trained.
        task: on which; what is tuned answers among its classes.
        seed: of the weights that were new.
        backbone: that they were trained on.
        tensors: by name.
        outputs: see `TaskRecord`.
    """

    name: str
    config: FinetuneConfig
    task: TaskSettings
    seed: int
    backbone: Backbone
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...] | None = None

    def save(self, folder: Path) -> None:
        """Write them into a new folder."""
        folder.mkdir(parents=True)
        save_file(dict(self.tensors), folder / TENSORS)
        record = {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "task": self.task.model_dump(mode="json"),
            "outputs": self.outputs,
            "seed": self.seed,
            "backbone_sha256": self.backbone.sha256,
            "tensors_sha256": file_sha256(folder / TENSORS),
        }
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf8")


class TaskRecord(Settings):
    """What is recorded of a model and its task.

    Attributes:
        config: how it was tuned.
        task: it answers among its classes.
        outputs: the classes that the model has logits of, in their order: those of all tasks, if it
            has learned one after the other; null: the task's.
    """

    config: FinetuneConfig
    task: TaskSettings
    outputs: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _every_class_has_an_output(self) -> Self:
        missing = [name for name in self.task.classes if name not in self.known]
        if missing:
            raise ValueError(f"outputs: there is none of the class {missing[0]!r}")
        return self

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the logits."""
        return self.task.classes if self.outputs is None else self.outputs


class _Record(TaskRecord):
    """The content of `tuned.json`."""

    format: str
    seed: int
    backbone_sha256: str
    tensors_sha256: str


def open_tuned(folder: Path) -> Tuned:
    """Read an artifact.

    Raises:
        UserError: there is none, or it was cut short or altered.
    """
    try:
        record: Any = json.loads((folder / RECORD).read_text("utf8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} holds no tuned model ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{folder / RECORD} is not of the format {FORMAT}")
    read = parse_config(_Record, record, str(folder / RECORD))
    if file_sha256(folder / TENSORS) != read.tensors_sha256:
        raise UserError(f"{folder / TENSORS} was altered: its sha256 is not that of {RECORD}")
    return Tuned(read.config, read.task, read.known, read.seed, read.backbone_sha256, tensors)
