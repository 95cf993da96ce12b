"""A tuned model as a folder of its own, and the one call that loads it.

```
exported/
  config.json          sizes, feature encoders, task, outputs, and how the model was tuned
  model.safetensors    all weights, the backbone's among them
  tokenizer/
  README.md            model card
```
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from data_pipeline.clip import BadSampleError, Clip
from data_pipeline.errors import UserError
from data_pipeline.packing import Example, pack
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.index import file_sha256
from memo.config import Limits, ModelSpec, ObjectiveSettings
from memo.model.memobert import MemoBert
from memo.objectives import Modality, build_objectives
from memo.objectives.wwmlm import WholeWordMLM
from memo.settings import parse_config
from memo.tokenizer import Tokenizer, load_tokenizer
from memo.tuning.artifact import TaskRecord
from memo.tuning.base import Parts, parse_mode
from memo.tuning.config import FinetuneConfig
from memo.tuning.model import TaskModel, build_task_model
from memo.tuning.task import TaskSettings
from memo.tuning.transform import SPECS, TuneTransform
from memo.tuning.wording import read_prompts

FORMAT = "memo-model/1"
CONFIG = "config.json"
MODEL = "model.safetensors"
TOKENIZER = "tokenizer"


class ClipModel(Protocol):
    """What answers clips of videos: a tuned model, or a trained system of clips."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the probabilities."""

    @property
    def modalities(self) -> Sequence[Modality]:
        """Those that it can use."""

    @property
    def features(self) -> FeatureSchema:
        """Which encoders make its rows."""

    @property
    def limits(self) -> Limits:
        """What it reads of a clip; the rest is passed over."""

    def predict(self, clips: Sequence[Clip], visible: Sequence[Modality]) -> NDArray[np.float32]:
        """Class probabilities (clips, C) by the visible modalities."""


@dataclass(frozen=True)
class EmotionModel:
    """A tuned model with all that it needs.

    Attributes:
        model: makes logits.
        tokenizer: cuts the text.
        spec: sizes.
        features: which encoders make its rows.
        task: classes, modalities, wording.
        config: how it was tuned.
        outputs: the classes that it has logits of, in their order; see `TaskRecord`.
    """

    model: TaskModel
    tokenizer: Tokenizer
    spec: ModelSpec
    features: FeatureSchema
    task: TaskSettings
    config: FinetuneConfig
    outputs: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.task.classes

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those of the task."""
        return self.task.modalities

    @property
    def limits(self) -> Limits:
        """What it reads of a clip."""
        return self.config.limits

    @torch.no_grad()
    def predict(
        self, clips: Sequence[Clip], visible: Sequence[Modality] | None = None
    ) -> NDArray[np.float32]:
        """Class probabilities of clips whose rows were made by the encoders of `features`.

        They are among the task's own classes, as it was scored, whatever else has an output.

        Args:
            clips: a modality that a clip lacks is not used.
            visible: modalities to be used; all of the task's if not given.

        Returns:
            (clips, C).

        Raises:
            UserError: a clip has rows of another size, or a modality is not one of the task's.
        """
        modalities = tuple(self.task.modalities if visible is None else visible)
        unknown = set(modalities) - set(self.task.modalities)
        if unknown or not modalities:
            raise UserError(
                f"visible={list(modalities)}: the model uses {', '.join(self.task.modalities)}"
            )
        examples = self._examples(clips, modalities)
        device = next(self.model.parameters()).device
        own = [self.outputs.index(name) for name in self.classes]
        rows = []
        for example in examples:
            batch = pack([example], SPECS, self.spec.face_dim, self.spec.speech_dim)
            logits = self.model.logits(batch.to(device))[:, own]
            rows.append(logits.softmax(dim=1).cpu().numpy())
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *rows])

    def _examples(self, clips: Sequence[Clip], modalities: tuple[Modality, ...]) -> list[Example]:
        transform = TuneTransform(
            tokenizer=self.tokenizer,
            limits=self.config.limits,
            spec=self.spec,
            labels=np.zeros(len(clips), dtype=np.int64),
            choices=[modalities],
            prompts=_prompts(self.config, self.task, self.tokenizer),
            language=self.task.language,
            seed=0,
        )
        try:
            return [transform(clip, number, 0) for number, clip in enumerate(clips)]
        except BadSampleError as error:
            raise UserError(str(error)) from None


def _prompts(config: FinetuneConfig, task: TaskSettings, tokenizer: Tokenizer) -> Any:  # noqa: ANN401
    if "prompt" not in config.mode.split("+"):
        return None
    return read_prompts(task, tokenizer, config.prompt.template, config.prompt.soft)


class _Record(TaskRecord):
    """The content of `config.json`."""

    format: str
    model_sha256: str
    spec: ModelSpec
    features: FeatureSchema


def load(folder: Path | str) -> EmotionModel:
    """Load an exported model.

    Args:
        folder: that `memo export` made.

    Raises:
        UserError: it is not there, or damaged.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / CONFIG).read_text("utf8"))
        weights = load_file(folder / MODEL)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no exported model ({error}); 'memo export' makes one"
        ) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{folder / CONFIG} is not of the format {FORMAT}")
    read = parse_config(_Record, record, str(folder / CONFIG))
    if file_sha256(folder / MODEL) != read.model_sha256:
        raise UserError(f"{folder / MODEL} was altered: its sha256 is not that of {CONFIG}")
    spec, task, config = read.spec, read.task, read.config
    tokenizer = load_tokenizer(folder / TOKENIZER)
    head = build_objectives({"wwmlm": ObjectiveSettings()}, spec)["wwmlm"]
    assert isinstance(head, WholeWordMLM), "that is its name"
    prompts = _prompts(config, task, tokenizer)
    outputs = read.known
    parts = Parts(config, MemoBert(spec), head, tokenizer, len(outputs), prompts)
    model = build_task_model(parse_mode(config.mode), parts, torch.ones(len(outputs)))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{folder}: {MODEL} does not fit {CONFIG} ({problem})") from None
    return EmotionModel(model.eval(), tokenizer, spec, read.features, task, config, outputs)
