"""Tasks that are learned together: as many folds, and none trains on what another is tested on.

What a corpus has on both sides by nature is no mistake of the user's, and is told.
"""

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


def tell_known_texts(tasks: Sequence[Divided], folds: Sequence[int]) -> str | None:
    """How many texts are judged by that are trained on as well, of tasks that read nothing else.

    Official parts have such texts (FDU-MTL's test part 8 %), and folds by speaker do where people
    say the same; `check_leaks` knows of clips and speakers alone.

    Args:
        tasks: that are learned.
        folds: numbers of those that are run.

    Returns:
        A line for the user; None if there are none.
    """
    texts = [one for one in tasks if one.corpus.task.modalities == ("text",)]
    known, judged = dict.fromkeys(_JUDGED, 0), dict.fromkeys(_JUDGED, 0)
    for number in folds:
        trained = {text for one in texts for text in _texts(one, number, "train")}
        for part in _JUDGED:
            found = [text in trained for one in texts for text in _texts(one, number, part)]
            known[part] += sum(found)
            judged[part] += len(found)
    if not any(known.values()):
        return None
    counts = [f"{known[part]:,} of {judged[part]:,} {name} texts" for part, name in _JUDGED.items()]
    return (
        f"{' and '.join(counts)} (folds {', '.join(map(str, folds))}) are trained on as well: the "
        "choice of the epoch and the scores are flattered; folds.by=text keeps equal texts together"
    )


_JUDGED = {"valid": "validation", "test": "test"}
"""Part of a fold by which models are judged -> its name for people."""


def _texts(task: Divided, fold: int, part: str) -> list[str]:
    """What stands for each text of a part, the same for equal ones."""
    return [task.corpus.groups.text[at] for at in getattr(task.folds[fold], part).tolist()]
