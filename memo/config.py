"""Settings of a pretraining run, and those that other runs have as well.

Batch arithmetic is derived from `batch.global_batch` (samples) and `batch.token_budget` (tokens of
a micro-batch); DeepSpeed's JSON is derived from these settings and never typed in.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    field_validator,
    model_validator,
)

from data_pipeline.shards.place import Place, Url, parse_place
from data_pipeline.shards.remote import RemoteSettings
from memo.settings import Settings


class ModelSpec(Settings):
    """Every size that the weights depend on; stored in each checkpoint.

    Attributes:
        hidden, layers, heads, ffn: transformer sizes.
        vocab_size: text pieces, from the tokenizer.
        max_positions: learned text positions.
        max_face, max_speech: learned positions of face and speech rows.
        face_dim, face_classes, speech_dim: from the dataset's feature schema.
        dropout, attention_dropout: probabilities.
        layer_norm_eps: as in the checkpoint that initialises the model.
        init_std: standard deviation of the initial weights.
        position_offset: first text position; 2 for XLM-R / RoBERTa checkpoints, else 0.
    """

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    ffn: int = 1024
    vocab_size: int
    max_positions: int = 512
    max_face: int = 64
    max_speech: int = 128
    face_dim: int
    face_classes: int
    speech_dim: int
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    init_std: float = 0.02
    position_offset: int = 0


SIZES: dict[str, dict[str, int]] = {
    "demo": {"hidden": 128, "layers": 2, "heads": 4, "ffn": 512},
    "small": {"hidden": 256, "layers": 4, "heads": 4, "ffn": 1024},
    "base": {"hidden": 768, "layers": 12, "heads": 12, "ffn": 3072},
    "large": {"hidden": 1024, "layers": 24, "heads": 16, "ffn": 4096},
}


def _place(value: object) -> Place:
    if isinstance(value, Path | Url):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a folder or a URL")
    return parse_place(value)


DatasetPlace = Annotated[Place, PlainValidator(_place), PlainSerializer(str, when_used="json")]
"""A local folder with `dataset.json`, or the URL of one."""


class Source(Settings):
    """A dataset of a mixture.

    Attributes:
        dataset: folder with `dataset.json`, or its URL.
        weight: its share of the samples, of the sum of all weights; null for all: by size.
    """

    dataset: DatasetPlace
    weight: float | None = Field(None, gt=0)


class DataSettings(Settings):
    """What is trained on.

    Attributes:
        dataset: folder with `dataset.json`, or its URL (http://, https://, s3://); null makes and
            uses the demo corpus.
        mixture: instead of one dataset, several, each with its share of the samples.
        temperature: T; without weights a dataset of n samples has a share like n ** (1 / T).
        remote: how a URL is read.
        train_split, valid_split: names in `dataset.json`; of a mixture some may have no second one.
        tokenizer: folder or file of a tokenizer; null takes `tokenizer/` in the dataset's folder or
            at its URL, or in the first of a mixture.
        face_dim, speech_dim: refuse a dataset whose features have other dimensions; null takes the
            dataset's.
        workers: processes of a rank that make its training batches; 0: a thread of the rank does.
            The batches are the same.
        verify: check the sha256 of all shards that are read before the run.
        max_quarantined: stop the run after this many bad samples.
    """

    dataset: DatasetPlace | None = None
    mixture: tuple[Source, ...] = ()
    temperature: float = Field(1.0, gt=0)
    remote: RemoteSettings = RemoteSettings()
    train_split: str = "train"
    valid_split: str = "valid"
    tokenizer: Path | None = None
    face_dim: int | None = None
    speech_dim: int | None = None
    workers: int = Field(0, ge=0)
    verify: bool = False
    max_quarantined: int = Field(100, ge=0)

    @model_validator(mode="after")
    def _one_or_a_mixture(self) -> Self:
        if self.dataset is not None and self.mixture:
            raise ValueError("give dataset or mixture, not both")
        if len({one.weight is None for one in self.mixture}) > 1:
            raise ValueError("mixture: give every dataset a weight, or none")
        if self.temperature != 1 and (not self.mixture or self.mixture[0].weight is not None):
            raise ValueError("temperature is for a mixture without weights")
        return self


class ModelSettings(Settings):
    """The model: a named size, changed where a value is given.

    Attributes:
        size: `demo`, `small`, `base` or `large`.
        init_from: folder of a Hugging Face BERT, XLM-R or MiniLM checkpoint;
            it decides the sizes.
        hidden, layers, heads, ffn: replace the named size's values.
        dropout, attention_dropout: probabilities.
        init_std: standard deviation of the initial weights; BERT's 0.02 is small for narrow models.
    """

    size: Literal["demo", "small", "base", "large"] = "small"
    init_from: Path | None = None
    hidden: int | None = Field(None, ge=1)
    layers: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    ffn: int | None = Field(None, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)


class Limits(Settings):
    """Longest inputs; what is longer is cut (MEmoBERT: 30 / 36 / 64 in pretraining).

    Attributes:
        text: pieces, without [CLS] and [SEP].
        face: frame rows.
        speech: speech rows.
    """

    text: int = Field(30, ge=1)
    face: int = Field(36, ge=1)
    speech: int = Field(64, ge=1)

    @property
    def longest(self) -> int:
        """Tokens of the longest possible sequence, with [CLS] and [SEP]."""
        return self.text + 2 + self.face + self.speech


class Masking(Settings):
    """How much is hidden; the defaults are those of MEmoBERT's public code.

    Attributes:
        word_probability: each whole word is hidden with this probability, at least one a clip.
        face_ratio, speech_ratio: share of the rows that spans hide.
        face_span, speech_span: rows of one span.
        drop_probability: each modality that is neither hidden nor the last one visible is left out
            of a training sample with this probability, so that the model also learns to work
            without it.
    """

    word_probability: float = Field(0.15, gt=0, le=1)
    face_ratio: float = Field(0.20, gt=0, le=1)
    face_span: int = Field(3, ge=1)
    speech_ratio: float = Field(0.15, gt=0, le=1)
    speech_span: int = Field(3, ge=1)
    drop_probability: float = Field(0.0, ge=0, lt=1)


class ObjectiveSettings(Settings):
    """One objective of the mixture.

    Attributes:
        ratio: its share when the hidden modality of a sample is drawn (the original: 2:1:1:1).
        weight: factor of its loss.
    """

    ratio: float = Field(1.0, ge=0)
    weight: float = Field(1.0, ge=0)


class Batch(Settings):
    """How a step is cut.

    Attributes:
        global_batch: samples of an optimizer step, over all ranks; in a system of several tasks,
            of each task that the step is of.
        token_budget: most tokens of a micro-batch on one rank.
    """

    global_batch: int = Field(64, ge=1)
    token_budget: int = Field(4096, ge=1)


AUTO = 0
"""Stands for `auto` in `PretrainBatch.token_budget`."""


def _read_budget(value: object) -> object:
    if value == AUTO:
        raise ValueError("must be 1 or more, or auto")
    return AUTO if value == "auto" else value


def _show_budget(value: int) -> int | str:
    return "auto" if value == AUTO else value


class PretrainBatch(Batch):
    """How a step of pretraining is cut.

    Attributes:
        token_budget: most tokens of a micro-batch on one rank; `auto`: as many as fit into the
            memory that is free when the run begins, and no more than `global_batch` needs.
        micro_batches: a step has, instead of `global_batch` samples, as many as fill so many
            micro-batches over all ranks; a multiple of their number. 0: `global_batch`.
    """

    token_budget: Annotated[int, BeforeValidator(_read_budget), PlainSerializer(_show_budget)] = (
        Field(4096, ge=0)
    )
    micro_batches: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _budget_decides_nothing(self) -> Self:
        if self.token_budget == AUTO and self.micro_batches:
            raise ValueError(
                "token_budget=auto keeps global_batch; with micro_batches the budget decides how "
                "many samples a step has: give it a number"
            )
        return self


def _each_once(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) < len(numbers):
        raise ValueError("each number can stand there once")
    return numbers


Numbers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_each_once)
]
"""Of folds or seeds."""

Beta = Annotated[float, Field(ge=0, lt=1)]
"""Decay of a moment."""


class Optimizer(Settings):
    """AdamW with warm-up and linear decay to zero; the original warms up 4k of 40k steps."""

    lr: float = Field(5e-5, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(100, ge=0)
    clip: float = Field(5.0, gt=0)


class Distribution(Settings):
    """How DeepSpeed distributes.

    Attributes:
        zero_stage: 0 plain data parallel; 1 optimizer, 2 gradients, 3 parameters are partitioned.
        offload: keep optimizer state in host memory (stages 1 to 3, GPU only).
        precision: `fp32` or `bf16`; null takes bf16 at stages 1 to 3, where fp32 master weights
            are kept, if the accelerator supports it, and fp32 elsewhere.
        activation_checkpointing: recompute each layer in the backward pass.
        hang_s: a rank that is at one thing (a step, a validation batch) for longer ends the run.
    """

    zero_stage: Literal[0, 1, 2, 3] = 0
    offload: bool = False
    precision: Literal["fp32", "bf16"] | None = None
    activation_checkpointing: bool = False
    hang_s: float = Field(1800, gt=0)


OBJECTIVES = {
    "wwmlm": ObjectiveSettings(ratio=2),
    "span_mvfr": ObjectiveSettings(),
    "span_mvfc_kl": ObjectiveSettings(),
    "span_mafr": ObjectiveSettings(),
}
"""MEmoBERT's four objectives and the ratios at which it draws them."""


class RollBack(Settings):
    """When the loss spikes, go back to a checkpoint and leave out the data since (`spikes.py`).

    Attributes:
        deviations: a loss so many standard deviations above the middle of the last ones is high.
        window: steps of which the middle and the deviation are taken, both by medians.
        steps: go back after so many high losses in a row.
        most: end the run when it has gone back so often and the loss rises again.
    """

    deviations: float = Field(8.0, gt=0)
    window: int = Field(100, ge=2)
    steps: int = Field(3, ge=1)
    most: int = Field(3, ge=1)


class PretrainConfig(Settings):
    """All settings of a pretraining run; `configs/pretrain/*.yaml` are instances.

    Attributes:
        name: name of the run.
        run_dir: where it lives; null is `runs/<name>`.
        seed: of weights, order, masks and dropout.
        steps: optimizer steps in all.
        log_every, valid_every, checkpoint_every: in steps.
        keep_checkpoints: newest ones kept; null keeps all.
        keep_every: and those at multiples of this step.
        max_bad_steps: stop after so many non-finite steps in a row.
        roll_back: what to do about loss spikes, e.g. `roll_back={}`; null: nothing.
        threads: CPU threads of a rank; null divides the cores among the ranks of the node.
        objectives: name -> its settings. A file or override changes what it names and leaves the
            others as they are; `objectives.NAME=null` takes one out.
    """

    name: str = "pretrain"
    run_dir: Path | None = None
    seed: int = Field(1234, ge=0, lt=2**64)
    steps: int = Field(40_000, ge=1)
    log_every: int = Field(10, ge=1)
    valid_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    keep_checkpoints: int | None = Field(3, ge=1)
    keep_every: int | None = Field(None, ge=1)
    max_bad_steps: int = Field(5, ge=1)
    roll_back: RollBack | None = None
    threads: int | None = Field(None, ge=1)
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    limits: Limits = Limits()
    masking: Masking = Masking()
    objectives: dict[str, ObjectiveSettings] = OBJECTIVES
    batch: PretrainBatch = PretrainBatch()
    optimizer: Optimizer = Optimizer()
    distribution: Distribution = Distribution()

    @field_validator("objectives", mode="before")
    @classmethod
    def _drop_null(cls, objectives: object) -> object:
        if not isinstance(objectives, dict):
            return objectives
        for name, one in objectives.items():
            if one is None and name not in OBJECTIVES:
                raise ValueError(f"there is no {name!r} to leave out, but {', '.join(OBJECTIVES)}")
        return {name: one for name, one in objectives.items() if one is not None}
