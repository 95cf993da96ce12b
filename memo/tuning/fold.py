"""Train one fold with one seed, choose the epoch on its validation part, test that epoch once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.errors import AgreedError
from data_pipeline.order import StreamState
from data_pipeline.packing import PackedBatch
from data_pipeline.quarantine import Quarantine
from data_pipeline.stream import (
    BatchMaker,
    Placement,
    StepSize,
    TrainStream,
    check_ranks,
    eval_batches,
)
from data_pipeline.subset import Subset, SubsetLengths
from memo.evaluation.folds import Fold
from memo.evaluation.scores import Scores, from_confusion, score
from memo.heads.base import LABEL
from memo.training.admission import refuse_other_data
from memo.training.distributed import Ranks
from memo.training.engine import Engine, StepResult
from memo.training.optimizer import learning_rate, warm_up_note
from memo.training.progress import Display
from memo.tuning.course import Best, Course, Keeping
from memo.tuning.model import Penalty, TaskModel, balanced_weights, load_trained
from memo.tuning.setup import Inputs, build_model
from memo.tuning.transform import SPECS, Pattern, TuneTransform, patterns

STANDARD_CLIPS = 256
"""Of the training part, by which a new classifier's inputs are standardised."""


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of some clips.

    Attributes:
        samples: int64 (n,), ascending; numbers in the corpus.
        probabilities: float32 (n, C).
    """

    samples: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The most probable class of each, int64 (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave.

    Attributes:
        epoch: the chosen one, from 1.
        valid: its scores on the validation part, all modalities in sight.
        test: pattern -> predictions of the test part.
        trained: the trained tensors of the chosen epoch, on every rank.
        parameters: how many numbers are trained.
        seconds: of training, without the test.
    """

    epoch: int
    valid: Scores
    test: Mapping[Pattern, Predictions]
    trained: Mapping[str, Tensor]
    parameters: int
    seconds: float


@dataclass(frozen=True)
class FoldRun:
    """One fold being trained.

    Attributes:
        inputs: what all folds share.
        fold: the parts.
        seed: of new weights, order, dropout and drawn patterns.
        ranks: this process among the others.
        name: for messages.
        quarantine: takes the clips that cannot be used.
        keeping: where the training is kept until the fold is done.
    """

    inputs: Inputs
    fold: Fold
    seed: int
    ranks: Ranks
    name: str
    quarantine: Quarantine
    keeping: Keeping

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; as many where only a fraction of the part is used, several times."""
        return max(round(len(self.fold.train) / self.inputs.config.batch.global_batch), 1)

    @property
    def steps(self) -> int:
        """Steps in all, if no epoch is left out."""
        return self.per_epoch * self.inputs.config.training.epochs

    def maker(self, part: NDArray[np.int64], choices: Sequence[Pattern]) -> BatchMaker:
        """What makes this rank's micro-batches of a part."""
        inputs, config = self.inputs, self.inputs.config
        spec, prompts = inputs.backbone.spec, inputs.prompts
        samples = Subset(inputs.data.samples, part, self.name)
        transform = TuneTransform(
            tokenizer=inputs.backbone.tokenizer,
            limits=config.limits,
            spec=spec,
            labels=inputs.data.labels[part],
            choices=choices,
            prompts=prompts,
            language=inputs.data.language,
            seed=self.seed,
        )
        return BatchMaker(
            split=samples,
            transform=transform,
            specs=SPECS,
            face_dim=spec.face_dim,
            speech_dim=spec.speech_dim,
            lengths=SubsetLengths(inputs.lengths, part, prompts.longest if prompts else 2),
            token_budget=config.batch.token_budget,
            placement=self.ranks.placement,
            quarantine=self.quarantine,
        )


def train_fold(run: FoldRun, display: Display) -> FoldResult:
    """Train, choose, test.

    Raises:
        UserError: too many non-finite steps or bad samples, or more ranks than samples.
        StoppedError: by a signal; what was trained is kept.
    """
    fitted = fit(run, display)
    test = {
        pattern: predict(fitted.model, run, run.fold.test, pattern)
        for pattern in patterns(run.inputs.data.modalities)
    }
    fitted.engine.close()
    best = fitted.best
    numbers = sum(one.numel() for one in best.trained.values())
    return FoldResult(best.number, fitted.valid, test, best.trained, numbers, fitted.seconds)


@dataclass(frozen=True)
class Fitted:
    """A model trained on a fold, with the weights of its best epoch.

    Attributes:
        model: predicts.
        engine: around it; to be closed.
        best: the chosen epoch.
        valid: its scores on the validation part.
        seconds: of training.
    """

    model: TaskModel
    engine: Engine
    best: Best
    valid: Scores
    seconds: float


def fit(
    run: FoldRun,
    display: Display,
    start: Mapping[str, Tensor] | None = None,
    penalty: Penalty | None = None,
) -> Fitted:
    """Train on a fold and choose the epoch on its validation part.

    Args:
        run: the fold.
        display: what a person sees.
        start: trained tensors of an earlier task to go on from; None begins with new ones.
        penalty: what is added to the loss.

    Raises:
        UserError, StoppedError: see `train_fold`.
    """
    config, labels = run.inputs.config, run.inputs.data.labels
    part = training_part(run.fold.train, labels, config.training.fraction, run.seed)
    model = build_model(run.inputs, run.seed, _class_weights(run.inputs, part))
    if start is None:
        model.to(run.ranks.device).standardise(_some_batches(run, part))
    else:
        load_trained(model, start)
    model.penalty = penalty
    engine = Engine(model, {LABEL: 1.0}, config.optimizer, config.distribution, run.ranks, run.seed)
    course = Course(run.keeping, run.ranks, engine, config.training, run.per_epoch, run.name)
    if note := warm_up_note(config.optimizer, run.steps):
        display.say(f"{run.name}: {note}")
    _train(run, course, model, engine, part, display)
    engine.predict_with(course.best.trained)
    confusion = np.array(course.epochs[course.best.number - 1]["confusion"])
    return Fitted(model, engine, course.best, from_confusion(confusion), course.seconds)


def _some_batches(run: FoldRun, part: NDArray[np.int64]) -> Iterator[PackedBatch]:
    """Some clips of a part, all modalities in sight; the same on every rank."""
    rng = np.random.default_rng(run.seed)
    clips = np.sort(rng.permutation(part)[:STANDARD_CLIPS])
    complete = patterns(run.inputs.data.modalities)[0]
    for batch in eval_batches(replace(run.maker(clips, [complete]), placement=Placement())):
        yield batch.to(run.ranks.device)


def _train(
    run: FoldRun,
    course: Course,
    model: TaskModel,
    engine: Engine,
    part: NDArray[np.int64],
    display: Display,
) -> None:
    """Train on a part, every epoch judged by the validation part."""
    data, select = run.inputs.data, run.inputs.config.training.select
    complete = patterns(data.modalities)[0]
    with _stream(run, part, course.step) as stream:
        for number in course.epochs_left(partial(_take, run, engine, stream), display):
            found = predict(model, run, run.fold.valid, complete)
            answers = data.answers(found.samples, found.probabilities)
            scores = score(data.labels[found.samples], answers, len(data.classes))
            reached = getattr(scores, select)
            display.say(f"{run.name}, epoch {number}: validation {select} {reached:.4f}")
            course.judge(reached, scores.to_json())


def _stream(run: FoldRun, part: NDArray[np.int64], step: int) -> TrainStream:
    """The training clips from a step on; all ranks call it together."""
    every, batch = patterns(run.inputs.data.modalities), run.inputs.config.batch.global_batch
    seven = run.inputs.config.training.patterns == "seven"
    maker = run.maker(part, every if seven else every[:1])
    start = StreamState.start(run.seed, maker.split.fingerprint)
    with run.ranks.together():
        check_ranks(maker, StepSize(batch))
    return TrainStream(maker, start.advance(step * batch, len(maker.split)), StepSize(batch))


def _take(run: FoldRun, engine: Engine, stream: TrainStream, step: int) -> StepResult:
    """One step."""
    data = next(stream)
    refuse_other_data(engine.ranks, data.digest)
    lr = learning_rate(step, run.inputs.config.optimizer, run.steps)
    return engine.step(data.micro_batches, step, lr)


def _class_weights(inputs: Inputs, part: NDArray[np.int64]) -> Tensor:
    """Factors of the classes' losses, (C,)."""
    classes = len(inputs.data.classes)
    if inputs.config.training.class_weights == "none":
        return torch.ones(classes)
    counts = np.bincount(inputs.data.labels[part], minlength=classes)
    return balanced_weights(torch.from_numpy(counts))


def training_part(
    train: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    """What a run with a seed trains on: a share of each class, at least one clip of each.

    Args:
        train: int64 (m,), a fold's training part.
        labels: int64 (n,), of all clips.
        fraction: the share; 1 is all.
        seed: of the run.
    """
    if fraction == 1:
        return train
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels[train]):
        own = train[labels[train] == label]
        chosen.append(rng.permutation(own)[: max(round(len(own) * fraction), 1)])
    return np.sort(np.concatenate(chosen))


@torch.no_grad()
def predict(
    model: TaskModel, run: FoldRun, part: NDArray[np.int64], pattern: Pattern
) -> Predictions:
    """Class probabilities of every clip of a part, the same on every rank.

    Args:
        model: inside its engine or not.
        run: the fold.
        part: int64 (n,), samples of the corpus.
        pattern: the modalities in sight.

    Raises:
        AgreedError: too many clips cannot be used, or none can.
    """
    model.eval()
    samples, rows = [], []
    for batch in eval_batches(run.maker(part, [pattern])):
        run.ranks.does(f"{run.name}, answering")
        logits = model.logits(batch.to(run.ranks.device))
        samples.append(batch.samples.numpy())
        rows.append(logits.softmax(dim=1).cpu().numpy())
    model.train()
    with run.ranks.together():
        run.quarantine.check()
    classes = len(run.inputs.data.classes)
    empty = np.zeros((0, classes), np.float32)
    here = np.concatenate([*samples, np.zeros(0, np.int64)]), np.concatenate([empty, *rows])
    gathered = run.ranks.gather(here)
    numbers = np.concatenate([numbers for numbers, _ in gathered])
    order = np.argsort(numbers)
    if not len(numbers):
        raise AgreedError(f"{run.name}: no clip can be used; see quarantine.jsonl")
    table = np.concatenate([probabilities for _, probabilities in gathered])
    return Predictions(part[numbers[order]], table[order])
