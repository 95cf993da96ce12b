"""Several tasks learned one after the other, and what each stage does to all of them.

The corpora are joined, so that clips of earlier tasks can be rehearsed and all tasks learned at
once; the classes are the union of the tasks'. Fold f of the sequence is fold f of every task. All
scores are those of the model that exists after a stage.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.order import Visits
from data_pipeline.packing import PackedBatch
from data_pipeline.quarantine import Quarantine
from data_pipeline.stream import Placement
from data_pipeline.subset import Joined, JoinedLengths
from memo.evaluation.folds import Fold
from memo.evaluation.scores import Scores, score
from memo.evaluation.statistics import by_fold_and_seed, interval, summarise
from memo.evaluation.transfer import transfer
from memo.training.distributed import Ranks
from memo.training.progress import Display
from memo.tuning.artifact import TunedArtifact
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Keeping
from memo.tuning.ewc import Memory, diagonal_fisher
from memo.tuning.fold import FoldRun, fit, predict
from memo.tuning.idle import check_settings
from memo.tuning.job import Job, Record
from memo.tuning.model import TaskModel, load_trained
from memo.tuning.setup import (
    Backbone,
    Inputs,
    build_model,
    check_limits,
    open_backbone,
    open_corpus,
    token_lengths,
)
from memo.tuning.strategies import Stage, Strategy, load_strategy
from memo.tuning.task import Labelled, LabelledCorpus, load_single_task
from memo.tuning.together import Divided, check_folds, check_leaks
from memo.tuning.transform import patterns

MATRICES = ("uar", "weighted_f1")
"""Scores of which R is kept."""


@dataclass(frozen=True)
class TaskSequence:
    """Tasks to be learned in turn.

    Attributes:
        config: the settings.
        inputs: what the models are built and trained from; its data are all tasks' clips.
        corpora: of each task.
        offsets: number of each task's first clip among all.
        own: int64 (C_i,) of each task: the numbers of its classes among all.
        strategy: how they are learned.
    """

    config: FinetuneConfig
    inputs: Inputs
    corpora: Sequence[LabelledCorpus]
    offsets: Sequence[int]
    own: Sequence[NDArray[np.int64]]
    strategy: Strategy

    @property
    def backbone(self) -> Backbone:
        """What tuning starts from."""
        return self.inputs.backbone

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each fold is learned once with each."""
        return self.config.seeds or self.corpora[0].task.seeds

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds to run."""
        asked = self.config.folds
        return tuple(range(len(self.corpora[0].folds))) if asked is None else asked

    @property
    def divided(self) -> list[Divided]:
        """The tasks, and how their clips are divided."""
        return _divided(self.corpora)

    def parts(self, number: int) -> list[Fold]:
        """A fold of every task, numbered through all clips."""
        return [
            Fold(*(getattr(corpus.folds[number], name) + at for name in ("train", "valid", "test")))
            for corpus, at in zip(self.corpora, self.offsets, strict=True)
        ]


def open_sequence(config: FinetuneConfig) -> TaskSequence:
    """Open and check all tasks; nothing is written.

    Raises:
        UserError: anything that does not fit.
    """
    strategy = load_strategy(config.mode, config.continual)
    tasks = [load_single_task(name) for name in config.tasks]
    check_settings(config)
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise UserError(f"--tasks: {', '.join(names)}: each task can be learned once")
    config = config.model_copy(update={"mode": strategy.mode})
    backbone = open_backbone(config)
    corpora = [open_corpus(task, config, backbone) for task in tasks]
    if len({frozenset(corpus.modalities) for corpus in corpora}) > 1:
        raise UserError("--tasks: the tasks have different modalities; set modalities=")
    divided = _divided(corpora)
    check_folds(config.folds, divided, "--tasks")
    check_leaks(divided)
    check_limits(config, backbone.spec, None)
    classes = tuple(dict.fromkeys(name for corpus in corpora for name in corpus.classes))
    own = [np.array([classes.index(name) for name in corpus.classes]) for corpus in corpora]
    sizes = [len(corpus.samples) for corpus in corpora]
    data = Labelled(
        samples=Joined([corpus.samples for corpus in corpora], "+".join(names)),
        labels=np.concatenate(
            [
                np.where(corpus.labels >= 0, numbers[corpus.labels], -1)
                for corpus, numbers in zip(corpora, own, strict=True)
            ]
        ),
        classes=classes,
        modalities=corpora[0].modalities,
        language=corpora[0].language,
        own=np.repeat([np.isin(np.arange(len(classes)), one) for one in own], sizes, axis=0),
    )
    lengths = JoinedLengths(
        [token_lengths(corpus.split, config, backbone) for corpus in corpora], sizes
    )
    offsets = [0, *np.cumsum(sizes)[:-1].tolist()]
    inputs = Inputs(config, data, backbone, None, lengths)
    return TaskSequence(config, inputs, corpora, offsets, own, strategy)


def _divided(corpora: Sequence[LabelledCorpus]) -> list[Divided]:
    return [Divided(one.task.name, one, one.folds) for one in corpora]


def learn_sequence(
    sequence: TaskSequence, number: int, seed: int, ranks: Ranks, keeping: Keeping
) -> tuple[dict[str, Any], list[Stage]]:
    """Learn all tasks on one fold with one seed.

    Returns:
        The record of what came out, and the stages.

    Raises:
        UserError: see `memo.tuning.fold.train_fold`.
    """
    folds, strategy, stages = sequence.parts(number), sequence.strategy, list[Stage]()
    quarantine = Quarantine(
        sequence.config.folder / "quarantine.jsonl", sequence.config.max_quarantined
    )
    run = FoldRun(sequence.inputs, folds[0], seed, ranks, "", quarantine, keeping)
    rows = [_row(sequence, run, folds, [{}] * len(folds))]
    for number_of_stage, fold in enumerate(strategy.stages(folds), start=1):
        rehearsed = strategy.rehearsed(stages, sequence.inputs.data.labels, seed)
        run = replace(
            run,
            fold=replace(fold, train=np.sort(np.concatenate([fold.train, rehearsed]))),
            name=f"fold {number}, seed {seed}, stage {number_of_stage}",
            keeping=keeping.stage(f"stage-{number_of_stage}"),
        )
        with Display(run.name, run.steps, 0, ranks.first) as display:
            fitted = fit(run, display, strategy.start(stages), strategy.penalty(stages))
        fitted.engine.close()
        trained = fitted.best.trained
        keep = strategy.remembers
        memory = Memory(_fisher(sequence, run, trained), trained) if keep else None
        stages.append(Stage(fold, trained, memory))
        answering = [strategy.weights_of(task, stages) for task in range(len(folds))]
        rows.append(_row(sequence, run, folds, answering))
    return _record(sequence, number, seed, rows, stages), stages


def _plain(sequence: TaskSequence, run: FoldRun, trained: Mapping[str, Tensor]) -> TaskModel:
    """A new model with trained tensors, without an engine."""
    model = build_model(sequence.inputs, run.seed, torch.ones(len(sequence.inputs.data.classes)))
    load_trained(model, trained)
    return model.to(run.ranks.device)


def _row(
    sequence: TaskSequence,
    run: FoldRun,
    folds: Sequence[Fold],
    weights: Sequence[Mapping[str, Tensor]],
) -> list[Scores]:
    """The scores of every task with its weights, each among its own classes."""
    complete = patterns(sequence.inputs.data.modalities)[0]
    row = []
    for task, (fold, own) in enumerate(zip(folds, sequence.own, strict=True)):
        found = predict(_plain(sequence, run, weights[task]), run, fold.test, complete)
        labels = sequence.corpora[task].labels[found.samples - sequence.offsets[task]]
        predicted = found.probabilities[:, own].argmax(axis=1)
        row.append(score(labels, predicted, len(own)))
    return row


def _fisher(
    sequence: TaskSequence, run: FoldRun, trained: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Fisher information of a task on clips of its own training part; the same on every rank."""
    part = run.fold.train
    rng = np.random.default_rng(run.seed)
    clips = np.sort(rng.permutation(part)[: sequence.config.continual.fisher_clips])
    mine = clips[run.ranks.rank :: run.ranks.count]
    model = _plain(sequence, run, trained)
    found = diagonal_fisher(model, _one_by_one(sequence, run, mine))
    usable = max(int(run.ranks.sum(torch.tensor(found.clips))), 1)
    return {name: (run.ranks.sum(one) / usable).float().cpu() for name, one in found.sums.items()}


def _one_by_one(
    sequence: TaskSequence, run: FoldRun, clips: NDArray[np.int64]
) -> Iterator[PackedBatch]:
    """Each clip as a batch of its own, all modalities in sight."""
    complete = patterns(sequence.inputs.data.modalities)[0]
    maker = replace(run.maker(clips, [complete]), placement=Placement())
    for at in range(len(clips)):
        run.ranks.does(f"{run.name}, Fisher information")
        (batch,) = maker.divided(Visits(np.array([at]), np.array([0])))
        if batch.seqlens:
            yield batch.to(run.ranks.device)


def _record(
    sequence: TaskSequence,
    number: int,
    seed: int,
    rows: Sequence[Sequence[Scores]],
    stages: Sequence[Stage],
) -> dict[str, Any]:
    """The content of a fold's `result.json`."""
    matrices = {
        name: np.array([[getattr(one, name) for one in row] for row in rows]) for name in MATRICES
    }
    return {
        "fold": number,
        "seed": seed,
        "R": {name: matrix.tolist() for name, matrix in matrices.items()},
        "transfer": {name: transfer(matrix).to_json() for name, matrix in matrices.items()},
        "confusion": [[one.confusion.tolist() for one in row] for row in rows],
        "kept_numbers": _kept_numbers(sequence, stages),
    }


def _kept_numbers(sequence: TaskSequence, stages: Sequence[Stage]) -> list[int]:
    """How many numbers are kept after each stage; clips kept for replay are not counted."""
    frozen = sum(
        one.numel()
        for name, one in sequence.backbone.weights.items()
        if name.startswith("backbone.")
    )
    trained = [sum(one.numel() for one in stage.trained.values()) for stage in stages]
    if sequence.strategy.mode == "adapter":
        return [frozen + sum(trained[: at + 1]) for at in range(len(stages))]
    memories = [2 * one if stage.memory else 0 for one, stage in zip(trained, stages, strict=True)]
    return [one + sum(memories[: at + 1]) for at, one in enumerate(trained)]


class SequenceJob(Job):
    """Learning a sequence of tasks.

    Args:
        config: the settings, as they were given.
        sequence: opened and checked.
    """

    def __init__(self, config: FinetuneConfig, sequence: TaskSequence) -> None:
        self.config = config
        self.sequence = sequence
        self.backbone = sequence.backbone

    @classmethod
    def open(cls, config: FinetuneConfig) -> "SequenceJob":
        """Open and check; nothing is written.

        Raises:
            UserError: anything that does not fit.
        """
        return cls(config, open_sequence(config))

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds to run."""
        return self.sequence.folds

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each fold is learned once with each."""
        return self.sequence.seeds

    @property
    def divided(self) -> list[Divided]:
        """See the base class."""
        return self.sequence.divided

    def origin(self) -> dict[str, Any]:
        """Backbone, corpora and tasks."""
        corpora = self.sequence.corpora
        return {
            "backbone": self.backbone.sha256,
            "dataset": [corpus.samples.fingerprint for corpus in corpora],
            "task": [corpus.task.model_dump(mode="json") for corpus in corpora],
        }

    def learn(
        self, fold: int, seed: int, ranks: Ranks, keeping: Keeping
    ) -> tuple[Record, list[TunedArtifact]]:
        """See the base class."""
        record, stages = learn_sequence(self.sequence, fold, seed, ranks, keeping)
        return record, [self._artifact(number, stages, seed) for number in range(len(stages))]

    def _artifact(self, number: int, stages: Sequence[Stage], seed: int) -> TunedArtifact:
        """What a stage leaves, counted from 0: it answers among the classes of its own task.

        The only stage of tasks that are learned at once has the names of all of them, and answers
        among all classes; the rest of its task is the first one's.
        """
        config, data = self.sequence.config, self.sequence.inputs.data
        task = self.sequence.corpora[number].task
        if len(stages) < len(self.sequence.corpora):
            names = [corpus.task.name for corpus in self.sequence.corpora]
            task = task.model_copy(update={"name": "+".join(names), "classes": data.classes})
        else:
            config = config.model_copy(update={"task": task.name, "tasks": ()})
        return TunedArtifact(
            name=f"stage-{number + 1}",
            config=config,
            task=task,
            seed=seed,
            backbone=self.backbone,
            tensors=stages[number].trained,
            outputs=data.classes,
        )

    def summarise(self, records: Sequence[Record]) -> Record:
        """See the base class."""
        names = [corpus.task.name for corpus in self.sequence.corpora]
        matrices = {name: np.array([one["R"][name] for one in records]) for name in MATRICES}
        return {
            "tasks": names,
            "mode": self.config.mode,
            "direct": self.config.direct,
            "classes": [list(corpus.classes) for corpus in self.sequence.corpora],
            "backbone": {"place": str(self.config.pretrained), "sha256": self.backbone.sha256},
            "folds": len({one["fold"] for one in records}),
            "seeds": sorted({one["seed"] for one in records}),
            "runs": len(records),
            "R": {
                name: {"mean": one.mean(axis=0).tolist(), "std": _deviation(one).tolist()}
                for name, one in matrices.items()
            },
            "transfer": {name: self._transfer(records, name) for name in MATRICES},
            "confusion": [
                np.sum([one["confusion"][-1][task] for one in records], axis=0).tolist()
                for task in range(len(names))
            ],
            "kept_numbers": records[0]["kept_numbers"],
        }

    def _transfer(self, records: Sequence[Record], name: str) -> dict[str, Any]:
        """Every figure over folds and seeds."""
        summaries: dict[str, Any] = {}
        for figure in records[0]["transfer"][name]:
            values = [(one["fold"], one["seed"], one["transfer"][name][figure]) for one in records]
            known = all(value is not None for _, _, value in values)
            summaries[figure] = summarise(by_fold_and_seed(values)).to_json() if known else None
        return summaries

    def tables(self, results: Record) -> list[Table]:
        """R, and what follows from it."""
        matrix = Table(title=f"UAR after each stage, {results['mode']}: {results['runs']} runs")
        for title in ("after", *results["tasks"]):
            matrix.add_column(title)
        rows = zip(results["R"]["uar"]["mean"], results["R"]["uar"]["std"], strict=True)
        for number, (means, deviations) in enumerate(rows):
            learned = results["tasks"][number - 1] if number else "nothing"
            if number and len(results["R"]["uar"]["mean"]) == 2:
                learned = "all at once"
            cells = [f"{m:.4f} ± {d:.4f}" for m, d in zip(means, deviations, strict=True)]
            matrix.add_row(learned, *cells)
        figures = Table("UAR", "mean", "95 % interval")
        for name, one in results["transfer"]["uar"].items():
            if one is not None:
                figures.add_row(name, f"{one['mean']:.4f}", interval(one))
        return [matrix, figures]


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample deviation over the runs, the first axis; zeros of a single run."""
    if len(values) == 1:
        return np.zeros(values.shape[1:])
    return np.asarray(values.std(axis=0, ddof=1))
