"""Train one fold of a system, choose the epoch on the validation parts, test that epoch once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.stream import BatchMaker, eval_batches
from memo.evaluation.scores import score
from memo.evaluation.traits import score_traits
from memo.heads.maml import conflict
from memo.multitask.base import System, probabilities
from memo.multitask.batches import Drawn, Sampling, TaskBatch, TaskStreams
from memo.multitask.setup import SystemFold, build_system
from memo.multitask.sog import Episode, SogSystem
from memo.training.engine import Batch, Engine
from memo.training.optimizer import learning_rate
from memo.training.progress import Display
from memo.tuning.fold import BAD_STEPS

WATCHED = 64
"""Validation texts of each task on which cosines and the conflict of gradients are measured."""


@dataclass(frozen=True)
class Answers:
    """What a system says of a task's texts.

    Attributes:
        samples: int64 (n,), ascending; numbers in the task's corpus.
        probabilities: float32 (n, C), or of each trait (n, K).
    """

    samples: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class SystemResult:
    """What one fold gave.

    Attributes:
        epoch: the chosen one, from 1.
        valid: of each task, the score by which it was chosen.
        test: of each task, answers on its test part.
        traces: of each epoch, what was watched.
        trained: the trained tensors of the chosen epoch, on every rank.
        model: with these.
        seconds: of training, without the test.
    """

    epoch: int
    valid: Sequence[float]
    test: Sequence[Answers]
    traces: Sequence[Mapping[str, float]]
    trained: Mapping[str, Tensor]
    model: System
    seconds: float


def train_system(fold: SystemFold, show: bool) -> SystemResult:
    """Train, choose, test.

    Args:
        fold: with its parts.
        show: tell a person how it goes.

    Raises:
        UserError: too many non-finite steps or bad texts, or more ranks than texts.
    """
    config, begin = fold.setup.config, perf_counter()
    system = build_system(fold).to(fold.ranks.device)
    engine = Engine(
        system, system.weights, config.optimizer, config.distribution, fold.ranks, fold.seed
    )
    best: tuple[int, list[float], Mapping[str, Tensor]] | None = None
    traces = []
    for number in _epochs(fold, system, engine, show):
        reached = [_reached(fold, system, task) for task in range(len(system.tasks))]
        traces.append({"epoch": number, **_watch(fold, system)})
        if best is None or np.mean(reached) > np.mean(best[1]):
            best = number, reached, engine.trained()
        if config.training.patience and number - best[0] >= config.training.patience:
            break
    assert best is not None, "there is at least one epoch"
    seconds = perf_counter() - begin
    engine.predict_with(best[2])
    tasks = range(len(system.tasks))
    test = [answer(fold, system, task, fold.part(task).test) for task in tasks]
    engine.close()
    return SystemResult(best[0], best[1], test, traces, best[2], system, seconds)


def _epochs(fold: SystemFold, system: System, engine: Engine, show: bool) -> Iterator[int]:
    """Train epoch by epoch; yields the number of each, from 1, when it is done."""
    config, bad_steps, step = fold.setup.config, 0, 0
    with _streams(fold) as streams:
        steps = streams.per_epoch * config.training.epochs
        with Display(fold.name, steps, 0, show) as display:
            for number in range(1, config.training.epochs + 1):
                for _ in range(streams.per_epoch):
                    system.progress = step / steps
                    batches = _batches(fold, system, streams.step(step))
                    lr = learning_rate(step, config.optimizer, steps)
                    result = engine.step(batches, step, lr)
                    step += 1
                    bad_steps = 0 if result.applied else bad_steps + 1
                    if bad_steps >= BAD_STEPS:
                        raise AgreedError(
                            f"{fold.name}: {bad_steps} non-finite steps in a row; lower "
                            "optimizer.lr"
                        )
                    display.step(step)
                display.say(f"{fold.name}, epoch {number}: loss {result.loss:.4f}")
                yield number


def _streams(fold: SystemFold) -> TaskStreams:
    """The training texts of all tasks."""
    config, tasks = fold.setup.config, range(len(fold.setup.members))
    maml = _is_maml(fold)
    labelled = [fold.maker(task, fold.part(task).train, alone=maml) for task in tasks]
    unlabelled: list[BatchMaker | None] = [None] * len(labelled)
    if fold.setup.system.system == "asp_mtl" and config.asp_mtl.unlabelled:
        free = [member.unlabelled for member in fold.setup.members]
        unlabelled = [
            fold.maker(task, part) if len(part) else None for task, part in enumerate(free)
        ]
    return TaskStreams(
        labelled,
        unlabelled,
        config.batch.global_batch,
        _sampling(fold),
        fold.seed,
        config.sog.maml.batches,
    )


def _is_maml(fold: SystemFold) -> bool:
    setup = fold.setup
    return setup.system.system == "sog" and setup.config.sog.training == "maml"


def _sampling(fold: SystemFold) -> Sampling:
    setup = fold.setup
    if setup.system.system == "asp_mtl":
        return setup.config.asp_mtl.sampling
    samplings: dict[str, Sampling] = {"joint": "all", "maml": "episodes"}
    return samplings.get(setup.config.sog.training, "alternating")


def _batches(fold: SystemFold, system: System, drawn: Sequence[Drawn]) -> Sequence[Batch]:
    """The micro-batches of a step."""
    batches = [
        TaskBatch(one.task, texts, one.labelled, system.counts(one.task, texts, one.labelled))
        for one in drawn
        for texts in one.batches
    ]
    if not _is_maml(fold):
        return batches
    if len(batches) != len(drawn):
        raise UserError("sog.training=maml: raise batch.token_budget, so that it holds a batch")
    return [Episode(batches[0], tuple(batches[1:]))]


@torch.no_grad()
def answer(fold: SystemFold, system: System, task: int, part: NDArray[np.int64]) -> Answers:
    """Probabilities for every text of a part, the same on every rank.

    Raises:
        UserError: no text, or too many texts, cannot be used.
    """
    multi_label = system.tasks[task].multi_label
    system.eval()
    samples, rows = [], []
    for batch in eval_batches(fold.maker(task, part)):
        logits = system.logits(batch.to(fold.ranks.device), task).float()
        samples.append(batch.samples.numpy())
        rows.append(probabilities(logits, multi_label).cpu().numpy())
    system.train()
    with fold.ranks.together():
        fold.quarantine.check()
    empty = np.zeros((0, system.tasks[task].outputs), np.float32)
    here = np.concatenate([*samples, np.zeros(0, np.int64)]), np.concatenate([empty, *rows])
    gathered = fold.ranks.gather(here)
    numbers = np.concatenate([numbers for numbers, _ in gathered])
    if not len(numbers):
        raise UserError(f"{fold.name}: no text can be used; see quarantine.jsonl")
    order = np.argsort(numbers)
    table = np.concatenate([found for _, found in gathered])
    return Answers(part[numbers[order]], table[order])


def scores_of(fold: SystemFold, task: int, answers: Answers) -> dict[str, Any]:
    """Scores of a task's answers, as JSON has them."""
    member = fold.setup.members[task]
    targets = member.targets[answers.samples]  # (n, T)
    if member.traits:
        return score_traits(targets.astype(bool), answers.probabilities > 0.5).to_json()
    predicted = answers.probabilities.argmax(axis=1)
    return score(targets[:, 0], predicted, member.outputs).to_json()


def main_score(scores: Mapping[str, Any], select: str) -> float:
    """The score by which epochs are chosen: traits know accuracy alone."""
    return float(scores["accuracy"] if "of_trait" in scores else scores[select])


def _reached(fold: SystemFold, system: System, task: int) -> float:
    found = answer(fold, system, task, fold.part(task).valid)
    return main_score(scores_of(fold, task, found), fold.setup.config.training.select)


def _watch(fold: SystemFold, system: System) -> dict[str, float]:
    """What is measured after an epoch on some validation texts; the same on every rank."""
    found: dict[str, float] = {}
    gradients = []
    system.eval()
    for task, kind in enumerate(system.tasks):
        part = fold.part(task).valid[:WATCHED]
        texts = next(iter(eval_batches(fold.maker(task, part, alone=True))), None)
        if texts is None or not texts.seqlens:
            continue
        texts = texts.to(fold.ranks.device)
        with torch.no_grad():
            traces = system.traces(texts, task)
        found |= {f"{kind.name}/{name}": float(one) for name, one in traces.items()}
        if isinstance(system, SogSystem) and fold.setup.config.distribution.zero_stage < 3:
            gradients.append(_gradients(system, texts, task))
    if len(gradients) == 2:
        found["conflict"] = conflict(*gradients)
    system.train()
    return found


def _gradients(system: SogSystem, texts: Any, task: int) -> list[Tensor | None]:  # noqa: ANN401
    """Of a task's mean loss, by every trained parameter."""
    trained = [one for one in system.parameters() if one.requires_grad]
    batch = TaskBatch(task, texts, labelled=True, counts={})
    loss = system.loss_of(system.logits, batch).sum
    return list(torch.autograd.grad(loss, trained, allow_unused=True))
