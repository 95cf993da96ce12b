"""From settings to everything that all folds of a tuning run share; misfits are refused here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.plan import check_budget
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.reader import Split
from data_pipeline.stream import SampleLengths
from memo.config import ModelSpec
from memo.model.memobert import MemoBert
from memo.model.pretrained import load_hf_weights, load_mlm_head
from memo.objectives import Modality, build_objectives
from memo.objectives.wwmlm import WholeWordMLM
from memo.tokenizer import Tokenizer
from memo.training.checkpoint import MODEL, Checkpoint, check_encoders, open_checkpoint
from memo.tuning.base import Parts, parse_mode
from memo.tuning.config import FinetuneConfig
from memo.tuning.idle import check_settings
from memo.tuning.model import TaskModel, build_task_model
from memo.tuning.task import Labelled, LabelledCorpus, TaskSettings, load_single_task, open_task
from memo.tuning.wording import Prompts, read_prompts


@dataclass(frozen=True)
class Backbone:
    """What tuning starts from.

    Attributes:
        checkpoint: of pretraining.
        spec: its sizes.
        tokenizer: its.
        weights: its parameters and buffers.
        sha256: hash of its weights' file; an adapter fits this backbone and no other.
    """

    checkpoint: Checkpoint
    spec: ModelSpec
    tokenizer: Tokenizer
    weights: Mapping[str, Tensor]
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """What a model is built and trained from.

    Attributes:
        config: the settings.
        data: clips and their classes.
        backbone: what tuning starts from.
        prompts: for modes that ask.
        lengths: tokens of the clips without a prompt.
    """

    config: FinetuneConfig
    data: Labelled
    backbone: Backbone
    prompts: Prompts | None
    lengths: SampleLengths


@dataclass(frozen=True)
class Setup:
    """What all folds of a task share.

    Attributes:
        inputs: what a model is built and trained from.
        data: the labelled corpus.
    """

    inputs: Inputs
    data: LabelledCorpus

    @property
    def config(self) -> FinetuneConfig:
        """The settings."""
        return self.inputs.config

    @property
    def backbone(self) -> Backbone:
        """What tuning starts from."""
        return self.inputs.backbone

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each fold is trained once with each."""
        return self.config.seeds or self.data.task.seeds

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds to run."""
        asked = self.config.folds
        return tuple(range(len(self.data.folds))) if asked is None else asked


def set_up(config: FinetuneConfig) -> Setup:
    """Open and check everything; nothing is written.

    Raises:
        UserError: anything that does not fit.
    """
    parse_mode(config.mode)
    assert config.task is not None, "a sequence is opened elsewhere"
    task = load_single_task(config.task)
    check_settings(config)
    backbone = open_backbone(config)
    data = open_corpus(task, config, backbone)
    prompts = None
    if "prompt" in config.mode.split("+"):
        settings = config.prompt
        prompts = read_prompts(task, backbone.tokenizer, settings.template, settings.soft)
    check_limits(config, backbone.spec, prompts)
    inputs = Inputs(config, data, backbone, prompts, token_lengths(data.split, config, backbone))
    setup = Setup(inputs, data)
    build_model(inputs, setup.seeds[0], torch.ones(len(task.classes)))  # refuses what misfits
    return setup


def open_corpus(task: TaskSettings, config: FinetuneConfig, backbone: Backbone) -> LabelledCorpus:
    """A task's corpus, checked: labels, folds, encoders.

    Raises:
        UserError: anything that does not fit.
    """
    data = open_task(_with_modalities(task, config.modalities), config.remote)
    folds = data.folds
    if config.folds is not None and not set(config.folds) <= set(range(len(folds))):
        raise UserError(f"folds={list(config.folds)}: there are the folds 0 to {len(folds) - 1}")
    check_features(data, backbone)
    return data


def _with_modalities(task: TaskSettings, asked: Sequence[Modality] | None) -> TaskSettings:
    """The task with some of its modalities."""
    if asked is None:
        return task
    unknown = [name for name in asked if name not in task.modalities]
    if unknown:
        raise UserError(
            f"modalities: task {task.name} has no {unknown[0]}, only {', '.join(task.modalities)}"
        )
    return task.model_copy(update={"modalities": tuple(asked)})


def token_lengths(split: Split, config: FinetuneConfig, backbone: Backbone) -> TokenLengths:
    """Tokens of each clip of a corpus."""
    limits = LengthLimits(config.limits.text, config.limits.face, config.limits.speech)
    tokenizer = backbone.tokenizer
    return TokenLengths(split, tokenizer.count, tokenizer.fingerprint, limits)


def open_backbone(config: FinetuneConfig) -> Backbone:
    """The checkpoint that tuning starts from.

    Raises:
        UserError: there is none, it is damaged, or has fewer layers than shall be frozen.
    """
    assert config.pretrained is not None, "the settings have checked it"
    checkpoint = open_checkpoint(config.pretrained)
    if config.frozen_layers > checkpoint.spec.layers:
        raise UserError(
            f"frozen_layers={config.frozen_layers}: {config.pretrained} has "
            f"{checkpoint.spec.layers} layers"
        )
    return Backbone(
        checkpoint=checkpoint,
        spec=checkpoint.spec,
        tokenizer=checkpoint.tokenizer(),
        weights=checkpoint.weights(),
        sha256=file_sha256(checkpoint.folder / MODEL),
    )


def check_features(data: LabelledCorpus, backbone: Backbone) -> None:
    """The corpus must have the task's modalities, encoded as the pretraining corpus was.

    Raises:
        UserError: it lacks one, or another encoder or detector was used.
    """
    found, place = data.features, data.task.dataset
    rows = [name for name in data.task.modalities if name != "text"]
    for name in rows:
        if getattr(found, name) is None:
            raise UserError(
                f"task {data.task.name} uses the {name}, but {place} has no {name} features; take "
                "it out of the task's modalities"
            )
    check_encoders(backbone.checkpoint, found, place, rows)


def check_limits(config: FinetuneConfig, spec: ModelSpec, prompts: Prompts | None) -> None:
    """No sequence may be longer than the position tables or the token budget.

    Raises:
        UserError: names the limit.
    """
    prompt = prompts.longest if prompts else 2
    for name, limit, table in (
        ("text", config.limits.text + prompt, spec.max_positions),
        ("face", config.limits.face, spec.max_face),
        ("speech", config.limits.speech, spec.max_speech),
    ):
        if limit > table:
            raise UserError(f"limits.{name}: {limit} positions, the model has only {table}")
    check_budget(config.limits.longest + prompt, config.batch.token_budget)


def build_model(inputs: Inputs, seed: int, class_weights: Tensor) -> TaskModel:
    """The model with its initial weights, drawn from the seed where they are new.

    Raises:
        UserError: the mode lacks something that the checkpoint or the task should have.
    """
    torch.manual_seed(seed)
    config, backbone = inputs.config, inputs.backbone
    body, mlm = pretrained_parts(backbone, config)
    classes = len(inputs.data.classes)
    parts = Parts(config, body, mlm, backbone.tokenizer, classes, inputs.prompts)
    return build_task_model(parse_mode(config.mode), parts, class_weights)


def pretrained_parts(
    backbone: Backbone, config: FinetuneConfig
) -> tuple[MemoBert, WholeWordMLM | None]:
    """The backbone and the MLM head, pretrained or, for `direct`, as pretraining began."""
    recompute = config.distribution.activation_checkpointing
    chosen = {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
    changed = {name: value for name, value in chosen.items() if value is not None}
    body = MemoBert(backbone.spec.model_copy(update=changed), recompute=recompute)
    before = backbone.checkpoint.config
    mlm = _mlm_head(backbone) if "wwmlm" in before.objectives else None
    if config.direct:
        _keep_statistics(body, backbone.weights)
        source = before.model.init_from
        if source is not None:
            load_hf_weights(body, source)
            head = load_mlm_head(source, backbone.spec.vocab_size)
            if head and mlm is not None:
                mlm.load_state_dict(head)
    else:
        body.load_state_dict(_below(backbone.weights, "backbone."))
        if mlm is not None:
            mlm.load_state_dict(_below(backbone.weights, "objectives.wwmlm."))
    return body, mlm


def _mlm_head(backbone: Backbone) -> WholeWordMLM:
    """A new one."""
    settings = {"wwmlm": backbone.checkpoint.config.objectives["wwmlm"]}
    head = build_objectives(settings, backbone.spec)["wwmlm"]
    assert isinstance(head, WholeWordMLM), "that is its name"
    return head


def _keep_statistics(body: MemoBert, weights: Mapping[str, Tensor]) -> None:
    """The features' normalisation is the same with and without pretraining."""
    for name, buffer in body.named_buffers():
        buffer.copy_(weights[f"backbone.{name}"])


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
