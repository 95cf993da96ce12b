"""Train one fold of a system, choose the epoch on the validation parts, test that epoch once."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.errors import AgreedError
from data_pipeline.packing import PackedBatch
from data_pipeline.stream import StepSize, check_ranks, eval_batches
from memo.evaluation.scores import score
from memo.evaluation.traits import score_traits
from memo.heads.maml import conflict
from memo.multitask.backbones import blueprint_of
from memo.multitask.base import System
from memo.multitask.batches import (
    Drawn,
    TaskBatch,
    TaskStreams,
    digest_of,
    join_batches,
    steps_of_epoch,
)
from memo.multitask.setup import SystemFold
from memo.multitask.sog import Episode, SogSystem
from memo.training.admission import refuse_other_data
from memo.training.engine import Batch, Engine, StepResult
from memo.training.optimizer import learning_rate, warm_up_note
from memo.training.progress import Display
from memo.tuning.course import Course

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
        valid: of each view, the score by which it was chosen.
        test: of each view, answers on its test part.
        traces: of each epoch, what was watched.
        examined: what was measured of the model in the end, beyond its scores.
        trained: the trained tensors of the chosen epoch, on every rank.
        kept: parameters that were not trained, and the buffers of that epoch.
        model: with all of these.
        seconds: of training, without the test.
    """

    epoch: int
    valid: Mapping[str, float]
    test: Mapping[str, Answers]
    traces: Sequence[Mapping[str, float]]
    examined: Mapping[str, Any]
    trained: Mapping[str, Tensor]
    kept: Mapping[str, Tensor]
    model: System
    seconds: float


def learn(fold: SystemFold, show: bool) -> SystemResult:
    """Train, choose, test; and what a system trains afterwards.

    Args:
        fold: with its parts.
        show: tell a person how it goes.

    Raises:
        UserError: too many non-finite steps or bad texts, or more ranks than texts.
        StoppedError: by a signal; what was trained is kept.
    """
    recipe = fold.setup.recipe
    first = replace(fold, setup=recipe.first(fold.setup), keeping=fold.keeping.stage("first"))
    with fold.ranks.together():
        blueprint = blueprint_of(first)
    result = train_system(first, lambda: recipe.build(blueprint), show)
    valid, test = dict[str, float](), dict[str, Answers]()
    for number, later in enumerate(recipe.then(fold, result.model), start=1):
        keeping = fold.keeping.stage(f"then-{number}")
        found = train_system(replace(later.fold, keeping=keeping), later.build, show)
        ((_, valid[later.view]),) = found.valid.items()
        ((_, test[later.view]),) = found.test.items()
        result = replace(result, seconds=result.seconds + found.seconds)
    return replace(result, valid=valid, test=test) if test else result


def train_system(fold: SystemFold, build: Callable[[], System], show: bool) -> SystemResult:
    """Train a model, choose the epoch, test it; see `learn`."""
    config = fold.setup.config
    torch.manual_seed(fold.seed)
    system = build().to(fold.ranks.device)
    engine = Engine(
        system, system.weights, config.optimizer, config.distribution, fold.ranks, fold.seed
    )
    course = _train(fold, system, engine, show)
    seconds, best = course.seconds, course.best
    engine.predict_with(best.trained)
    for name, buffer in system.named_buffers():
        buffer.copy_(best.buffers[name])
    test = answer(fold, system, "test")
    examined = fold.setup.recipe.examine(fold, system)
    kept = {**engine.frozen(), **{name: one.cpu() for name, one in system.named_buffers()}}
    engine.close()
    return SystemResult(
        epoch=best.number,
        valid=course.epochs[best.number - 1]["reached"],
        test=test,
        traces=[one["traces"] for one in course.epochs],
        examined=examined,
        trained=best.trained,
        kept=kept,
        model=system,
        seconds=seconds,
    )


def _train(fold: SystemFold, system: System, engine: Engine, show: bool) -> Course:
    """Train, every epoch judged by the validation parts."""
    config = fold.setup.config
    sizes = [len(fold.part(task).train) for task in range(len(fold.setup.members))]
    sampling = fold.setup.recipe.sampling(config)
    per_epoch = steps_of_epoch(sizes, config.batch.global_batch, sampling)
    course = Course(fold.keeping, fold.ranks, engine, config.training, per_epoch, fold.name)
    steps = per_epoch * config.training.epochs
    with (
        _streams(fold, course.step) as streams,
        Display(fold.name, steps, course.step, show) as display,
    ):
        if note := warm_up_note(config.optimizer, steps):
            display.say(f"{fold.name}: {note}")
        if not course.step:
            _calibrate(fold, system)
        take = partial(_take, fold, system, engine, streams, steps)
        for number in course.epochs_left(take, display):
            display.say(f"{fold.name}, epoch {number}: loss {course.loss:.4f}")
            _agree_on_buffers(fold, system)
            reached = _reached(fold, answer(fold, system, "valid"))
            traces = {"epoch": number, **_watch(fold, system)}
            course.judge(
                float(np.mean(list(reached.values()))), {"reached": reached, "traces": traces}
            )
    return course


def _take(
    fold: SystemFold,
    system: System,
    engine: Engine,
    streams: TaskStreams,
    steps: int,
    step: int,
) -> StepResult:
    """One step of so many."""
    system.progress = step / steps
    drawn = streams.step(step)
    refuse_other_data(fold.ranks, digest_of(drawn))
    batches = _batches(fold, system, drawn)
    return engine.step(batches, step, learning_rate(step, fold.setup.config.optimizer, steps))


def _agree_on_buffers(fold: SystemFold, system: System) -> None:
    """Let the statistics of batch normalisation be the ranks' mean."""
    for buffer in system.buffers():
        if buffer.is_floating_point():
            buffer.copy_(fold.ranks.sum(buffer) / fold.ranks.count)


def _streams(fold: SystemFold, begin: int) -> TaskStreams:
    """The training texts of all tasks from a step on; all ranks call it together."""
    setup, config, members = fold.setup, fold.setup.config, fold.setup.members
    sampling = setup.recipe.sampling(config)
    alone = sampling == "episodes"  # each rank takes the whole step: gradients inside it are local
    labelled = [
        fold.maker(task, fold.part(task).train, training=True, alone=alone)
        for task in range(len(members))
    ]
    reads = setup.recipe.reads_unlabelled(config)
    unlabelled = [
        fold.maker(task, member.unlabelled, training=True)
        if reads and len(member.unlabelled)
        else None
        for task, member in enumerate(members)
    ]
    with fold.ranks.together():
        for maker in (*labelled, *filter(None, unlabelled)):
            check_ranks(maker, StepSize(config.batch.global_batch))
    return TaskStreams(
        labelled,
        unlabelled,
        config.batch.global_batch,
        sampling,
        fold.seed,
        config.sog.maml.batches,
        begin,
    )


def _batches(fold: SystemFold, system: System, drawn: Sequence[Drawn]) -> Sequence[Batch]:
    """The micro-batches of a step."""
    config = fold.setup.config
    batches = [
        TaskBatch(one.task, texts, one.labelled, system.counts(one.task, texts, one.labelled))
        for one in drawn
        for texts in one.batches
    ]
    if fold.setup.recipe.joint:
        longest = [fold.setup.longest(member) for member in fold.setup.members]
        largest = [config.batch.global_batch * one for one in longest]
        return join_batches(batches, largest, config.batch.token_budget)
    if fold.setup.recipe.sampling(config) != "episodes":
        return batches
    assert len(batches) == len(drawn), "the recipe has checked the token budget"
    return [Episode(batches[0], tuple(batches[1:]))]


@torch.no_grad()
def answer(fold: SystemFold, system: System, part: Literal["valid", "test"]) -> dict[str, Answers]:
    """Answers to every text of a part of every task, by view; the same on every rank.

    Raises:
        AgreedError: no text can be used, or too many cannot.
    """
    _calibrate(fold, system)
    system.eval()
    found: dict[str, Answers] = {}
    for task in sorted({view.task for view in fold.setup.views}):
        found |= _answer_task(fold, system, task, getattr(fold.part(task), part))
    system.train()
    return {view.name: found[view.name] for view in fold.setup.views}


def _calibrate(fold: SystemFold, system: System) -> None:
    """Show the system the first task's training texts as they are trained on."""
    system.eval()
    system.calibrate(_calibration(fold), fold.ranks.sum)
    system.train()


def _calibration(fold: SystemFold) -> Iterator[PackedBatch]:
    """This rank's share of the first task's training texts; nothing is read unless it is asked."""
    for batch in eval_batches(fold.maker(0, fold.part(0).train, training=True)):
        fold.ranks.does(f"{fold.name}, measuring means")
        yield batch.to(fold.ranks.device)


def _answer_task(
    fold: SystemFold, system: System, task: int, part: NDArray[np.int64]
) -> dict[str, Answers]:
    """By view; texts that a view has no answer to are left out."""
    here: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = {}
    for batch in eval_batches(fold.maker(task, part)):
        fold.ranks.does(f"{fold.name}, answering")
        for name, told in system.answers(batch.to(fold.ranks.device), task).items():
            here.setdefault(name, []).append((batch.samples.numpy(), told.cpu().numpy()))
    with fold.ranks.together():
        fold.quarantine.check()
    found = {}
    for name in [view.name for view in fold.setup.views if view.task == task]:
        gathered = [one for rank in fold.ranks.gather(here.get(name, [])) for one in rank]
        numbers = np.concatenate([np.zeros(0, np.int64), *(one for one, _ in gathered)])
        rows = [one.reshape(-1, system.tasks[task].outputs) for _, one in gathered]
        table = np.concatenate([np.zeros((0, system.tasks[task].outputs), np.float32), *rows])
        answered = ~np.isnan(table).any(axis=1)
        if not answered.any():
            raise AgreedError(f"{fold.name}: nothing of {name} can be used; see quarantine.jsonl")
        numbers, table = numbers[answered], table[answered]
        order = np.argsort(numbers)
        found[name] = Answers(part[numbers[order]], table[order])
    return found


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


def _reached(fold: SystemFold, answers: Mapping[str, Answers]) -> dict[str, float]:
    """The score of each view by which epochs are chosen."""
    select = fold.setup.config.training.select
    return {
        view.name: main_score(scores_of(fold, view.task, answers[view.name]), select)
        for view in fold.setup.views
    }


def _watch(fold: SystemFold, system: System) -> dict[str, float]:
    """What is measured after an epoch on some validation texts; the same on every rank."""
    found: dict[str, float] = {}
    gradients = []
    system.eval()
    for task, kind in enumerate(system.tasks):
        part = fold.part(task).valid[:WATCHED]
        batches = eval_batches(fold.maker(task, part, alone=True))
        texts = [one.to(fold.ranks.device) for one in batches if one.seqlens]
        means = _traces(system, texts, task)
        found |= {f"{kind.name}/{name}": one for name, one in means.items()}
        if (
            texts
            and isinstance(system, SogSystem)
            and fold.setup.config.distribution.zero_stage < 3
        ):
            gradients.append(_gradients(system, texts, task))
    if len(gradients) == 2:
        found["conflict"] = conflict(*gradients)
    system.train()
    return found


@torch.no_grad()
def _traces(system: System, batches: Sequence[PackedBatch], task: int) -> dict[str, float]:
    """Means over the texts of all batches."""
    sums: defaultdict[str, float] = defaultdict(float)
    for texts in batches:
        for name, mean in system.traces(texts, task).items():
            sums[name] += float(mean) * len(texts.seqlens)
    count = sum(len(texts.seqlens) for texts in batches)
    return {name: one / count for name, one in sums.items()}


def _gradients(system: SogSystem, batches: Sequence[PackedBatch], task: int) -> list[Tensor | None]:
    """Of a task's summed loss, by every trained parameter; `conflict` is about directions."""
    trained = [one for one in system.parameters() if one.requires_grad]
    sums: list[Tensor | None] = [None] * len(trained)
    for texts in batches:
        loss = system.loss_of(system.logits, TaskBatch(task, texts, labelled=True, counts={})).sum
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        sums = [one if old is None else old + one for old, one in zip(sums, found, strict=True)]
    return sums
