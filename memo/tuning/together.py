"""Tasks that are learned together: as many folds, and none trains on what another is tested on."""

from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from memo.evaluation.folds import Fold
from memo.tuning.task import LabelledCorpus


class Divided(NamedTuple):
    """A task and how its clips are divided.

    Attributes:
        name: for messages.
        corpus: its clips.
        folds: numbers of them.
        unlabelled: int64 (u,), clips of the corpus that are read without a label.
    """

    name: str
    corpus: LabelledCorpus
    folds: Sequence[Fold]
    unlabelled: NDArray[np.int64] = np.empty(0, np.int64)


def check_folds(asked: Sequence[int] | None, tasks: Sequence[Divided], where: str) -> None:
    """The folds that are asked for are there; where tasks differ in their number, some are.

    Args:
        asked: numbers of folds; None: all.
        tasks: at least one.
        where: begins the message.

    Raises:
        UserError: a fold that not all tasks have, or not as many folds of each.
    """
    fewest, most = (of(tasks, key=lambda one: len(one.folds)) for of in (min, max))
    common = len(fewest.folds)
    if asked is not None and not set(asked) <= set(range(common)):
        raise UserError(f"folds={list(asked)}: there are the folds 0 to {common - 1}")
    if asked is None and len(most.folds) > common:
        raise UserError(
            f"{where}: {most.name} has {len(most.folds)} folds, {fewest.name} has {common}; give "
            f"both as many, or say which are run: folds={list(range(common))}"
        )


def check_leaks(tasks: Sequence[Divided]) -> None:
    """No clip or speaker that one task is tested on may be trained on by another.

    Raises:
        UserError: names the tasks and the fold.
    """
    count = min(len(task.folds) for task in tasks)
    for number, (one, other) in product(range(count), permutations(tasks, 2)):
        if one.corpus.samples.fingerprint != other.corpus.samples.fingerprint:
            continue
        mine, theirs = one.folds[number], other.folds[number]
        seen = np.concatenate([mine.train, mine.valid])
        speakers = {one.corpus.groups.speaker[at] for at in seen.tolist()} - {""}
        tested = {other.corpus.groups.speaker[at] for at in theirs.test.tolist()}
        settings = one.corpus.task.folds, other.corpus.task.folds
        shared = all(each.shared_speakers for each in settings)
        read = np.concatenate([seen, one.unlabelled])
        if len(np.intersect1d(read, theirs.test)) or (speakers & tested and not shared):
            raise UserError(
                f"fold {number} leaks: task {one.name} trains on clips or speakers that task "
                f"{other.name} is tested on; give both the same folds"
            )
