"""Train one fold with one seed, choose the epoch on its validation part, test that epoch once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.order import StreamState
from data_pipeline.packing import PackedBatch
from data_pipeline.quarantine import Quarantine
from data_pipeline.stream import BatchMaker, Placement, StepSize, TrainStream, eval_batches
from data_pipeline.subset import Subset, SubsetLengths
from memo.evaluation.folds import Fold
from memo.evaluation.scores import Scores, score
from memo.heads.base import LABEL
from memo.training.admission import refuse_other_data
from memo.training.distributed import Ranks
from memo.training.engine import Engine
from memo.training.optimizer import learning_rate
from memo.training.progress import Display
from memo.tuning.model import Penalty, TaskModel, balanced_weights, load_trained
from memo.tuning.setup import Inputs, build_model
from memo.tuning.transform import SPECS, Pattern, TuneTransform, patterns

BAD_STEPS = 5
"""Non-finite steps in a row after which a fold is given up."""
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
    """

    inputs: Inputs
    fold: Fold
    seed: int
    ranks: Ranks
    name: str
    quarantine: Quarantine

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
    """
    begin = perf_counter()
    fitted = fit(run, display)
    seconds = perf_counter() - begin
    test = {
        pattern: predict(fitted.model, run, run.fold.test, pattern)
        for pattern in patterns(run.inputs.data.modalities)
    }
    fitted.engine.close()
    best = fitted.best
    numbers = sum(one.numel() for one in best.trained.values())
    return FoldResult(best.number, best.valid, test, best.trained, numbers, seconds)


@dataclass(frozen=True)
class Fitted:
    """A model trained on a fold, with the weights of its best epoch.

    Attributes:
        model: predicts.
        engine: around it; to be closed.
        best: the chosen epoch.
    """

    model: TaskModel
    engine: Engine
    best: "Epoch"


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
        UserError: see `train_fold`.
    """
    config, labels = run.inputs.config, run.inputs.data.labels
    part = _fraction(run.fold.train, labels, config.training.fraction, run.seed)
    model = build_model(run.inputs, run.seed, _class_weights(run.inputs, part))
    if start is None:
        model.to(run.ranks.device).standardise(_some_batches(run, part))
    else:
        load_trained(model, start)
    model.penalty = penalty
    engine = Engine(model, {LABEL: 1.0}, config.optimizer, config.distribution, run.ranks, run.seed)
    best = _choose_epoch(run, engine, model, part, display)
    engine.predict_with(best.trained)
    return Fitted(model, engine, best)


def _some_batches(run: FoldRun, part: NDArray[np.int64]) -> Iterator[PackedBatch]:
    """Some clips of a part, all modalities in sight; the same on every rank."""
    rng = np.random.default_rng(run.seed)
    clips = np.sort(rng.permutation(part)[:STANDARD_CLIPS])
    complete = patterns(run.inputs.data.modalities)[0]
    for batch in eval_batches(replace(run.maker(clips, [complete]), placement=Placement())):
        yield batch.to(run.ranks.device)


@dataclass(frozen=True)
class Epoch:
    """An epoch, its validation scores, and the trained tensors at its end."""

    number: int
    valid: Scores
    trained: Mapping[str, Tensor]


def _choose_epoch(
    run: FoldRun, engine: Engine, model: TaskModel, part: NDArray[np.int64], display: Display
) -> Epoch:
    """Train on a part; the epoch with the best validation score, the first of equal ones."""
    training, data = run.inputs.config.training, run.inputs.data
    complete = patterns(data.modalities)[0]
    best: Epoch | None = None
    for number in _epochs(run, engine, part, display):
        found = predict(model, run, run.fold.valid, complete)
        scores = score(data.labels[found.samples], found.classes, len(data.classes))
        reached = getattr(scores, training.select)
        display.say(f"{run.name}, epoch {number}: validation {training.select} {reached:.4f}")
        if best is None or reached > getattr(best.valid, training.select):
            best = Epoch(number, scores, engine.trained())
        if training.patience and number - best.number >= training.patience:
            break
    assert best is not None, "there is at least one epoch"
    return best


def _class_weights(inputs: Inputs, part: NDArray[np.int64]) -> Tensor:
    """Factors of the classes' losses, (C,)."""
    classes = len(inputs.data.classes)
    if inputs.config.training.class_weights == "none":
        return torch.ones(classes)
    counts = np.bincount(inputs.data.labels[part], minlength=classes)
    return balanced_weights(torch.from_numpy(counts))


def _fraction(
    train: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, seed: int
) -> NDArray[np.int64]:
    """A share of each class of the training part, at least one clip of each."""
    if fraction == 1:
        return train
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels[train]):
        own = train[labels[train] == label]
        chosen.append(rng.permutation(own)[: max(round(len(own) * fraction), 1)])
    return np.sort(np.concatenate(chosen))


def _epochs(
    run: FoldRun, engine: Engine, part: NDArray[np.int64], display: Display
) -> Iterator[int]:
    """Train epoch by epoch; yields the number of each, from 1, when it is done.

    Raises:
        UserError: see `train_fold`.
    """
    config, bad_steps, step = run.inputs.config, 0, 0
    every = patterns(run.inputs.data.modalities)
    choices = every if config.training.patterns == "seven" else every[:1]
    maker = run.maker(part, choices)
    state = StreamState.start(run.seed, maker.split.fingerprint)
    with TrainStream(maker, state, StepSize(config.batch.global_batch)) as stream:
        for number in range(1, config.training.epochs + 1):
            for _ in range(run.per_epoch):
                data = next(stream)
                refuse_other_data(engine.ranks, data)
                lr = learning_rate(step, config.optimizer, run.steps)
                run.ranks.does(f"{run.name}, step {step + 1}")
                result = engine.step(data.micro_batches, step, lr)
                step += 1
                bad_steps = 0 if result.applied else bad_steps + 1
                if bad_steps >= BAD_STEPS:
                    raise AgreedError(
                        f"{run.name}: {bad_steps} non-finite steps in a row; lower optimizer.lr"
                    )
                display.step(step)
            yield number


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
        AgreedError: too many clips cannot be used.
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
        raise UserError(f"{run.name}: no clip can be used; see quarantine.jsonl")
    table = np.concatenate([probabilities for _, probabilities in gathered])
    return Predictions(part[numbers[order]], table[order])
