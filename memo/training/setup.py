"""From settings to everything that a run needs; whatever does not fit together is refused here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data_pipeline.corpora.demo import write_demo
from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.mixture import Mixture, mixed_features, shares_of, weights_of_sizes
from data_pipeline.order import StreamState
from data_pipeline.plan import check_budget
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import DatasetInfo, FeatureSchema
from data_pipeline.shards.merge import refuse_same_names
from data_pipeline.shards.reader import Dataset, Split, open_dataset
from data_pipeline.shards.tokenizer import TOKENIZER
from data_pipeline.stream import BatchMaker, Placement, SampleLengths, Samples, StepSize
from data_pipeline.subset import JoinedLengths
from memo.config import AUTO, SIZES, ModelSpec, PretrainConfig
from memo.model.memobert import MemoBert
from memo.model.pretrained import load_hf_weights, load_mlm_head, spec_from_hf
from memo.objectives import build_objectives
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer, load_tokenizer, train_sentencepiece
from memo.training.checkpoint import LATEST, Checkpoint, find_checkpoint, open_checkpoint
from memo.training.saving import is_own

DEMO = Path("datasets/demo")
DEMO_PIECES = 200

POSITIONS, FACE_POSITIONS, SPEECH_POSITIONS = 512, 64, 128
"""Rows of the position tables; more where the limits ask for more. Tuning has longer limits."""


@dataclass(frozen=True)
class Data:
    """What a run reads.

    Attributes:
        features: what the rows are.
        parts: splits to train on, one of each dataset.
        train: all of them.
        valid: by the name of the dataset its split to validate on.
        tokenizer: cuts the text.
    """

    features: FeatureSchema
    parts: Sequence[Split]
    train: Split | Mixture
    valid: Mapping[str, Split]
    tokenizer: Tokenizer


def prepare_demo(config: PretrainConfig) -> None:
    """Make the demo corpus and its tokenizer if no dataset is named and they are missing."""
    if config.data.dataset is not None or config.data.mixture:
        return
    if not DEMO.exists():
        write_demo(DEMO)
    if not (DEMO / TOKENIZER).exists():
        train = open_dataset(DEMO).split(config.data.train_split)
        train_sentencepiece(train.texts(), DEMO / TOKENIZER, DEMO_PIECES)


def open_data(config: PretrainConfig) -> Data:
    """Open the dataset, or those of the mixture, and the tokenizer.

    Raises:
        UserError: one is missing or empty, the features are not of the dimensions asked for, or
            datasets do not go together.
    """
    places = [one.dataset for one in config.data.mixture] or [config.data.dataset or DEMO]
    datasets = [open_dataset(place, config.data.remote) for place in places]
    refuse_same_names(datasets)
    parts = [dataset.split(config.data.train_split) for dataset in datasets]
    infos = [dataset.info for dataset in datasets]
    train: Split | Mixture = parts[0]
    features = infos[0].features
    if config.data.mixture:
        train = _mix(config, infos, parts)
        features = mixed_features(infos, train.shares)
    _check_features(config, features, " and ".join(map(str, places)))
    tokenizer = _open_tokenizer(config.data.tokenizer, datasets[0])
    valid = _valid_splits(config, datasets)
    if config.data.verify:
        for part in (*parts, *valid.values()):
            part.verify()
    return Data(features, parts, train, valid, tokenizer)


def _mix(config: PretrainConfig, infos: Sequence[DatasetInfo], parts: Sequence[Split]) -> Mixture:
    """The datasets' training splits, by their weights or sizes."""
    weights = [one.weight for one in config.data.mixture if one.weight is not None]
    if not weights:
        weights = weights_of_sizes([len(part) for part in parts], config.data.temperature)
    names = [info.name for info in infos]
    return Mixture(parts, names, shares_of(weights), "+".join(names))


def _valid_splits(config: PretrainConfig, datasets: Sequence[Dataset]) -> dict[str, Split]:
    """By the dataset's name; of a mixture those that have one.

    Raises:
        UserError: none has one.
    """
    name = config.data.valid_split
    having = [dataset for dataset in datasets if name in dataset.info.splits]
    if not having:
        splits = sorted({one for dataset in datasets for one in dataset.info.splits})
        raise UserError(
            f"{' and '.join(str(one.place) for one in datasets)} has no split {name!r} to validate "
            f"on, only {', '.join(splits)}: build it with --valid-share 0.05, or name another with "
            "data.valid_split"
        )
    return {dataset.info.name: dataset.split(name) for dataset in having}


def _open_tokenizer(named: Path | None, dataset: Dataset) -> Tokenizer:
    """The tokenizer that is named, or the one in a dataset's folder or at its URL."""
    if named is not None:
        return load_tokenizer(named)
    folder = dataset.tokenizer()
    if folder is None:
        raise UserError(
            f"no tokenizer at {dataset.place / TOKENIZER}; train one with `memo data tokenizer`, "
            "or name one with data.tokenizer"
        )
    try:
        return load_tokenizer(folder)
    except UserError as error:  # its path may be one of the cache
        raise UserError(f"{dataset.place}: {error}") from None


def _check_features(config: PretrainConfig, features: FeatureSchema, where: str) -> None:
    """The data must have the features of the model, in the dimensions asked for."""
    if features.face is None or features.speech is None:
        missing = "face" if features.face is None else "speech"
        raise UserError(
            f"{where} has no {missing} features; pretraining needs face and speech, if need be of "
            "another dataset of data.mixture"
        )
    for name, asked, found in (
        ("face_dim", config.data.face_dim, features.face.dim),
        ("speech_dim", config.data.speech_dim, features.speech.dim),
    ):
        if asked is not None and asked != found:
            raise UserError(f"data.{name}={asked}, but the rows of {where} have {found}")


def model_spec(config: PretrainConfig, data: Data) -> ModelSpec:
    """The model's sizes, from its name or the checkpoint that it starts from, and from the data.

    Raises:
        UserError: sizes that do not fit each other, the limits or the tokenizer.
    """
    face, speech = data.features.face, data.features.speech
    assert face is not None, "see _check_features"
    assert speech is not None, "see _check_features"
    model = config.model
    sizes: dict[str, Any] = {**SIZES[model.size]}
    if model.init_from is not None:
        sizes = {**spec_from_hf(model.init_from)}
        sizes["vocab_size"] = _pieces(model.init_from, sizes["vocab_size"], data.tokenizer)
    asked = {name: getattr(model, name) for name in ("hidden", "layers", "heads", "ffn")}
    sizes |= {name: value for name, value in asked.items() if value is not None}
    spec = ModelSpec(
        **{
            "vocab_size": data.tokenizer.vocab_size,
            "face_dim": face.dim,
            "face_classes": len(face.classes),
            "speech_dim": speech.dim,
            "dropout": model.dropout,
            "attention_dropout": model.attention_dropout,
            "init_std": model.init_std,
            "max_positions": max(POSITIONS, config.limits.text + 2),
            "max_face": max(FACE_POSITIONS, config.limits.face),
            "max_speech": max(SPEECH_POSITIONS, config.limits.speech),
            **sizes,
        }
    )
    if spec.hidden % spec.heads:
        raise UserError(f"model: hidden={spec.hidden} is no multiple of heads={spec.heads}")
    _check_limits(config, spec)
    return spec


def _check_limits(config: PretrainConfig, spec: ModelSpec) -> None:
    """No sequence may be longer than the position tables or the token budget."""
    for name, limit, table in (
        ("text", config.limits.text + 2, spec.max_positions),
        ("face", config.limits.face, spec.max_face),
        ("speech", config.limits.speech, spec.max_speech),
    ):
        if limit > table:
            raise UserError(f"limits.{name}: {limit} positions, the model has only {table}")
    if config.batch.token_budget != AUTO:
        check_budget(config.limits.longest, config.batch.token_budget)


def _pieces(checkpoint: Path, words: int, tokenizer: Tokenizer) -> int:
    """How many words of a checkpoint's table are pieces of the tokenizer: all, or of its own fewer.

    Raises:
        UserError: the tokenizer is another one.
    """
    pieces = tokenizer.vocab_size
    if pieces != words and not (pieces < words and _is_of(tokenizer, checkpoint)):
        raise UserError(
            f"the tokenizer has {pieces} pieces, the checkpoint {checkpoint} {words}; set "
            f"data.tokenizer={checkpoint}"
        )
    return pieces


def _is_of(tokenizer: Tokenizer, checkpoint: Path) -> bool:
    try:
        return load_tokenizer(checkpoint).fingerprint == tokenizer.fingerprint
    except UserError:
        return False  # it has none


def build_model(config: PretrainConfig, spec: ModelSpec, data: Data) -> PretrainingModel:
    """The model with its initial weights: same seed, same bits, on every rank.

    Raises:
        UserError: `model.init_from` does not fit.
    """
    torch.manual_seed(config.seed)
    recompute = config.distribution.activation_checkpointing
    backbone = MemoBert(spec, recompute=recompute)
    model = PretrainingModel(backbone, build_objectives(config.objectives, spec))
    for embedder, schema in (
        (backbone.face, data.features.face),
        (backbone.speech, data.features.speech),
    ):
        assert schema is not None, "see _check_features"
        embedder.set_statistics(torch.tensor(schema.mean), torch.tensor(schema.std))
    if config.model.init_from is not None:
        load_hf_weights(backbone, config.model.init_from)
        head = load_mlm_head(config.model.init_from, spec.vocab_size)
        if head and "wwmlm" in model.objectives:
            model.objectives["wwmlm"].load_state_dict(head)
    return model


def build_transform(
    config: PretrainConfig, model: PretrainingModel, tokenizer: Tokenizer
) -> PretrainTransform:
    """What makes examples of clips."""
    ratios = {name: one.ratio for name, one in config.objectives.items()}
    return PretrainTransform(
        tokenizer, config.limits, config.masking, model.by_name, ratios, config.seed
    )


@dataclass(frozen=True)
class Makers:
    """What makes a rank's micro-batches.

    Attributes:
        train: of what is trained on.
        valid: by the dataset's name, of what is validated on.
    """

    train: BatchMaker
    valid: Mapping[str, BatchMaker]

    def within(self, token_budget: int) -> "Makers":
        """The same with another token budget."""
        valid = {
            one: replace(maker, token_budget=token_budget) for one, maker in self.valid.items()
        }
        return Makers(replace(self.train, token_budget=token_budget), valid)


def batch_makers(
    config: PretrainConfig,
    data: Data,
    transform: PretrainTransform,
    spec: ModelSpec,
    placement: Placement,
) -> Makers:
    """What makes a rank's micro-batches of all splits."""
    limits = LengthLimits(config.limits.text, config.limits.face, config.limits.speech)
    quarantine = Quarantine(run_folder(config) / "quarantine.jsonl", config.data.max_quarantined)

    def lengths(split: Split) -> TokenLengths:
        return TokenLengths(split, data.tokenizer.count, data.tokenizer.fingerprint, limits)

    def maker(samples: Samples, lengths: SampleLengths) -> BatchMaker:
        return BatchMaker(
            split=samples,
            transform=transform,
            specs=transform.specs,
            face_dim=spec.face_dim,
            speech_dim=spec.speech_dim,
            lengths=lengths,
            token_budget=config.batch.token_budget,
            placement=placement,
            quarantine=quarantine,
        )

    of_parts = [lengths(part) for part in data.parts]
    joined = JoinedLengths(of_parts, [len(part) for part in data.parts])
    valid = {
        name: maker(_named(split, name) if config.data.mixture else split, lengths(split))
        for name, split in data.valid.items()
    }
    train = replace(maker(data.train, joined), workers=config.data.workers)
    return Makers(train, valid)


def _named(split: Split, dataset: str) -> Mixture:
    """A split whose samples are named with their dataset, as those of a mixture are."""
    return Mixture([split], [dataset], shares_of([1.0]), split.name)


def step_size(config: PretrainConfig) -> StepSize:
    """What a step sees."""
    return StepSize(config.batch.global_batch, config.batch.micro_batches)


def run_folder(config: PretrainConfig) -> Path:
    """Where the run lives."""
    return config.run_dir or Path("runs") / config.name


def checkpoint_to_resume(config: PretrainConfig, resume: str, again: bool) -> Checkpoint | None:
    """The checkpoint to go on from, if any.

    A job that is started again has the arguments of its first start. Once it has begun, it goes on
    with what it has saved since, whatever it was to begin with.

    Args:
        config: of the run.
        resume: `auto` takes the run's latest if there is one; `never` wants a new run; anything
            else is a path: of another run, to begin with, or of this one, to go back to.
        again: this is a job that has begun before, see `has_begun`.

    Raises:
        UserError: `never`, or another run's, but the run's folder has a run in it; or the
            checkpoint is unusable.
    """
    folder = run_folder(config)
    saved = (folder / "checkpoints" / LATEST).is_file()
    if resume == "auto" or (again and saved):
        return open_checkpoint(folder) if saved else None
    if resume == "never":
        before = (folder / "metrics.jsonl", folder / "checkpoints")
        if not again and any(one.exists() for one in before):
            raise UserError(f"--resume never: {folder} has a run in it; remove it or set run_dir")
        return None
    place = find_checkpoint(Path(resume))
    if saved and not is_own(folder / "checkpoints", place):
        raise UserError(
            f"--resume {resume}: {folder} has a run in it; go on with it without --resume, or set "
            "run_dir"
        )
    return open_checkpoint(place)


def check_resumable(
    checkpoint: Checkpoint, config: PretrainConfig, spec: ModelSpec, data: Data
) -> None:
    """Refuse to go on with another model, tokenizer, seed or dataset.

    Raises:
        UserError: names what differs, with both values.
    """
    for name, before in checkpoint.spec.model_dump().items():
        if before != getattr(spec, name):
            raise UserError(
                f"{checkpoint.folder} has a model with {name}={before}, this run's has "
                f"{getattr(spec, name)}; go on with the same, or start a new run"
            )
    if list(checkpoint.config.objectives) != list(config.objectives):
        raise UserError(
            f"{checkpoint.folder} trained {', '.join(checkpoint.config.objectives)}, this run "
            f"trains {', '.join(config.objectives)}; go on with the same, or start a new run"
        )
    if checkpoint.tokenizer().fingerprint != data.tokenizer.fingerprint:
        raise UserError(
            f"the tokenizer is not the one of {checkpoint.folder}; set "
            f"data.tokenizer={checkpoint.folder / 'tokenizer'}"
        )
    checkpoint.progress.stream.check(config.seed, data.train.fingerprint)


def first_state(config: PretrainConfig, data: Data) -> StreamState:
    """Where a new run's stream begins."""
    return StreamState.start(config.seed, data.train.fingerprint)
