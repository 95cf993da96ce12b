"""Settings of a tuning run."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_pipeline.shards.remote import RemoteSettings
from memo.config import Batch, Distribution, Limits, Numbers, Optimizer
from memo.multitask.config import AspSettings, SogSettings, TrimodalSettings, WordSettings
from memo.multitask.excerpt import Truncation
from memo.objectives.base import Modality
from memo.settings import Settings


class PromptSettings(Settings):
    """Prompts.

    Attributes:
        template: instead of the task's, in its own language; `[MASK]` is where the answer stands.
        soft: learned vectors between the utterance and the template; with them nothing else of the
            model is trained, unless adapters are asked for as well.
    """

    template: str | None = None
    soft: int = Field(0, ge=0, le=64)


class AdapterSettings(Settings):
    """Adapters.

    Attributes:
        kind: `houlsby`: a bottleneck after attention and after the feed-forward layer (Houlsby et
            al., ICML 2019); `lora`: low-rank updates of queries, keys, values and the attention's
            output (Hu et al., ICLR 2022).
        size: width of the bottleneck, or rank.
        scale: factor of LoRA's update (alpha / rank).
    """

    kind: Literal["houlsby", "lora"] = "houlsby"
    size: int = Field(64, ge=1)
    scale: float = Field(1.0, gt=0)


class HeadSettings(Settings):
    """The classification head.

    Attributes:
        pool: `mean` of all hidden states, or `cls`, the first one, as in the original.
        layers: `last`, as in the original, or `mixed`: a learned mean of the embeddings and of
            every layer's output.
        dropout: before the last layer.
    """

    pool: Literal["mean", "cls"] = "mean"
    layers: Literal["last", "mixed"] = "mixed"
    dropout: float = Field(0.1, ge=0, lt=1)


class TrainingSettings(Settings):
    """How one fold is trained.

    Attributes:
        epochs: passes over the training part.
        patience: stop after so many epochs without a better validation score; null never does.
        select: the validation score that chooses the epoch; of traits it is their accuracy.
        patterns: `seven` draws the visible modalities of each training clip among all non-empty
            subsets, as the original does; `complete` shows all.
        class_weights: `balanced` weighs each class by the inverse of its frequency in the training
            part; `none` does not.
        fraction: share of the training part that is used, for data-fraction curves.
    """

    epochs: int = Field(20, ge=1)
    patience: int | None = Field(None, ge=1)
    select: Literal["uar", "wa", "weighted_f1", "macro_f1"] = "uar"
    patterns: Literal["complete", "seven"] = "complete"
    class_weights: Literal["none", "balanced"] = "none"
    fraction: float = Field(1.0, gt=0, le=1)


SEQUENCE_MODES = ("ewc", "replay", "joint")
"""Modes that make sense for several tasks alone; `full` and `adapter` do for both."""


class ContinualSettings(Settings):
    """How a sequence of tasks is learned.

    Attributes:
        strength: EWC's lambda.
        fisher_clips: training clips on which the Fisher information is measured.
        replay_clips: of each class of each earlier task, kept for `replay`.
    """

    strength: float = Field(1000.0, gt=0)
    fisher_clips: int = Field(200, ge=1)
    replay_clips: int = Field(10, ge=1)


_WHOLE_MODES = ("full", *SEQUENCE_MODES)
"""Those that train every layer."""


class FinetuneConfig(Settings):
    """All settings of a tuning run.

    Attributes:
        task: name of a task, or its YAML file.
        tasks: instead of one task: several that are learned one after the other.
        mode: `full`, `linear`, `prompt`, `adapter` or `prompt+adapter`; of a sequence `full`,
            `ewc`, `replay`, `adapter` or `joint`; of a system `full`, `linear` or `adapter`.
        backbone: what a system of several tasks reads texts with: the pretrained model (`memo`), or
            words with vectors as in the `original`, which needs no `pretrained`.
        pretrained: checkpoint or run of pretraining; it gives sizes, tokenizer and weights.
        frozen_layers: leave the pretrained embeddings and this many of the lowest layers as they
            are, where the mode would train them.
        kept_gib: of frozen layers' states that a system of several tasks keeps in memory, so that
            they read a text once for all epochs, folds, seeds and runs of `--vary`.
        dropout, attention_dropout: of the pretrained model; null leaves them as in pretraining. The
            fast attention of a GPU has none, and on a CPU it costs an eighth of a step.
        direct: begin as `pretrained` began, with new weights or those of its `model.init_from`:
            what pretraining is compared with. Sizes, tokenizer and statistics of rows are its own.
        members: tasks of a system that are learned; null takes all.
        longest, truncation: of texts of a system's tasks, by name of the task, instead of what the
            system's file says: `longest.essays=800`; see `Excerpt`.
        modalities: train and test with these of the task's modalities alone; null takes all.
        name, run_dir: `runs/<name>`, where the name is made of task and mode if null.
        remote: how a task's dataset at a URL is read.
        folds: numbers of the folds to run; null runs all.
        seeds: instead of the task's.
        max_quarantined: stop after this many bad samples.
        threads: CPU threads of a rank; null divides the cores among the ranks of the node.
    """

    task: str | None = None
    tasks: tuple[str, ...] = ()
    mode: str = "full"
    backbone: Literal["memo", "original"] = "memo"
    pretrained: Path | None = None
    frozen_layers: int = Field(0, ge=0)
    kept_gib: float = Field(2.0, ge=0)
    dropout: float | None = Field(None, ge=0, lt=1)
    attention_dropout: float | None = Field(None, ge=0, lt=1)
    direct: bool = False
    members: tuple[str, ...] | None = Field(None, min_length=1)
    longest: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    truncation: dict[str, Truncation] = Field(default_factory=dict)
    modalities: tuple[Modality, ...] | None = Field(None, min_length=1)
    name: str | None = None
    run_dir: Path | None = None
    remote: RemoteSettings = RemoteSettings()
    folds: Numbers | None = None
    seeds: Numbers | None = None
    max_quarantined: int = Field(100, ge=0)
    threads: int | None = Field(None, ge=1)
    training: TrainingSettings = TrainingSettings()
    prompt: PromptSettings = PromptSettings()
    adapter: AdapterSettings = AdapterSettings()
    head: HeadSettings = HeadSettings()
    continual: ContinualSettings = ContinualSettings()
    words: WordSettings = WordSettings()
    sog: SogSettings = SogSettings()
    asp_mtl: AspSettings = AspSettings()
    trimodal: TrimodalSettings = TrimodalSettings()
    limits: Limits = Limits(text=120)
    batch: Batch = Batch(global_batch=32)
    optimizer: Optimizer = Optimizer(lr=5e-5, warmup_steps=20)
    distribution: Distribution = Distribution()

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if len(self.tasks) == 1 or (self.task is None) == (not self.tasks):
            raise ValueError("give --task, or --tasks with two or more, separated by commas")
        return self

    @model_validator(mode="after")
    def _something_to_start_from(self) -> Self:
        if self.backbone == "memo" and self.pretrained is None:
            raise ValueError("--pretrained: give a checkpoint or run of pretraining")
        return self

    @model_validator(mode="after")
    def _something_to_freeze(self) -> Self:
        if self.frozen_layers and self.mode not in _WHOLE_MODES:
            raise ValueError(f"frozen_layers is for --mode {', '.join(_WHOLE_MODES)}")
        return self

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        stem = "-".join(Path(task).stem for task in self.tasks or (self.task or "",))
        name = self.name or f"{stem}-{'direct-' if self.direct else ''}{self.mode}"
        return self.run_dir or Path("runs") / name
