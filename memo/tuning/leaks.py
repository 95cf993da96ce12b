"""Tasks of one corpus that are learned together: none trains on what another is tested on."""

from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from data_pipeline.errors import UserError
from memo.evaluation.folds import Fold
from memo.tuning.task import LabelledCorpus


class Divided(NamedTuple):
    """A task and how its clips are divided.

    Attributes:
        name: for messages.
        corpus: its clips.
        folds: numbers of them.
    """

    name: str
    corpus: LabelledCorpus
    folds: Sequence[Fold]


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
        if len(np.intersect1d(seen, theirs.test)) or (speakers & tested and not shared):
            raise UserError(
                f"fold {number} leaks: task {one.name} trains on clips or speakers that task "
                f"{other.name} is tested on; give both the same folds"
            )
