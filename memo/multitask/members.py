"""The tasks of a system: which corpora, which of their texts, which folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_pipeline.errors import UserError
from data_pipeline.shards.remote import FETCH, RemoteSettings
from memo.config import Numbers
from memo.evaluation.folds import Fold
from memo.multitask.excerpt import HEAD, Excerpt, Truncation
from memo.settings import Settings, load_config
from memo.tuning.task import LabelledCorpus, load_task, open_task, task_file
from memo.tuning.together import Divided, check_leaks

UNLABELLED = "unlabelled"
"""Split of texts without labels."""


class MemberSettings(Settings):
    """A corpus of a system.

    Attributes:
        task: name of its task, or its YAML file.
        longest, truncation: what of a text is read; see `Excerpt`.
    """

    task: str
    longest: int = Field(ge=1)
    truncation: Truncation = HEAD


class SystemSettings(Settings):
    """A task file of several tasks that are learned at once.

    Attributes:
        name: of the whole.
        system: what learns them.
        members: their corpora; fold f of the whole is fold f of each.
        each_session: every session of a corpus is a task of its own.
        seeds: every fold is trained once with each.
    """

    name: str
    system: str
    members: tuple[MemberSettings, ...] = Field(min_length=1)
    each_session: bool = False
    seeds: Numbers = (1, 2, 3)


@dataclass(frozen=True)
class Member:
    """One task of a system.

    Attributes:
        name: of the task, or of its session.
        corpus: its clips, and others that are not its own.
        folds: sample numbers of its clips.
        unlabelled: int64 (u,), its clips without a label that may be read.
        excerpt: what of a text is read.
    """

    name: str
    corpus: LabelledCorpus
    folds: Sequence[Fold]
    unlabelled: NDArray[np.int64]
    excerpt: Excerpt

    @property
    def divided(self) -> Divided:
        """What is compared with other members."""
        return Divided(self.name, self.corpus, self.folds, self.unlabelled)

    @property
    def traits(self) -> tuple[str, ...]:
        """What is told of each clip; () of a task with one class a clip."""
        return self.corpus.task.traits

    @property
    def outputs(self) -> int:
        """Numbers that a network answers with: a class's or a trait's each."""
        return len(self.traits) or len(self.corpus.classes)

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.traits or self.corpus.classes

    @property
    def targets(self) -> NDArray[np.int64]:
        """int64 (n, T): the class of every clip of the corpus, or the class of every trait."""
        return self.corpus.traits if self.traits else self.corpus.labels[:, None]


def load_system(name: str) -> SystemSettings:
    """The system of this name in `configs/tasks/`, or in a file of one's own.

    Raises:
        UserError: the file has a mistake.
    """
    return load_config(SystemSettings, task_file(name), [])


def open_members(
    system: SystemSettings, chosen: Sequence[str] | None, remote: RemoteSettings = FETCH
) -> list[Member]:
    """Open and check the corpora.

    Args:
        system: which.
        chosen: names of the tasks that are learned; None takes all.
        remote: how corpora at URLs are read.

    Raises:
        UserError: anything that does not fit.
    """
    members = [
        one for settings in system.members for one in _open(settings, system.each_session, remote)
    ]
    names = [one.name for one in members]
    for name in chosen or ():
        if name not in names:
            raise UserError(f"members: {system.name} has no {name!r}, only {', '.join(names)}")
    if len(set(names)) < len(names):
        raise UserError(f"task {system.name}: two members have the same name")
    members = [one for one in members if chosen is None or one.name in chosen]
    check_leaks([one.divided for one in members])
    return members


def with_excerpts(
    members: Sequence[Member], longest: Mapping[str, int], truncation: Mapping[str, Truncation]
) -> list[Member]:
    """The members with something else read of the texts of some tasks.

    Args:
        members: that are learned.
        longest: by name of the task, see `Excerpt`.
        truncation: likewise.

    Raises:
        UserError: a name is of no task that is learned.
    """
    learned = list(dict.fromkeys(one.corpus.task.name for one in members))
    for setting, names in (("longest", longest), ("truncation", truncation)):
        for name in names:
            if name not in learned:
                known = ", ".join(learned)
                raise UserError(f"{setting}: no task {name!r} is learned, only {known}")
    return [
        replace(
            one,
            excerpt=Excerpt(
                longest.get(one.corpus.task.name, one.excerpt.longest),
                truncation.get(one.corpus.task.name, one.excerpt.truncation),
            ),
        )
        for one in members
    ]


def _open(settings: MemberSettings, each_session: bool, remote: RemoteSettings) -> list[Member]:
    task = load_task(settings.task)
    corpus = open_task(task, remote)
    free = np.array([split == UNLABELLED for split in corpus.groups.split]) & (corpus.labels < 0)
    excerpt = Excerpt(settings.longest, settings.truncation)
    whole = Member(task.name, corpus, corpus.folds, np.flatnonzero(free), excerpt)
    if not each_session:
        return [whole]
    sessions = np.array(corpus.groups.session)
    if "" in sessions:
        raise UserError(f"each_session: clips of {task.dataset} have no session")
    order = dict.fromkeys(sessions.tolist())  # as they stand in the corpus
    return [_of_session(whole, name, sessions == name) for name in order]


def _of_session(whole: Member, name: str, own: NDArray[np.bool_]) -> Member:
    """The clips of one session as a task."""
    folds = [
        Fold(*(part[own[part]] for part in (fold.train, fold.valid, fold.test)))
        for fold in whole.folds
    ]
    for number, fold in enumerate(folds):
        _check_session(whole, f"task {whole.name}: session {name!r}, fold {number}", fold)
    return Member(name, whole.corpus, folds, whole.unlabelled[own[whole.unlabelled]], whole.excerpt)


def _check_session(whole: Member, where: str, fold: Fold) -> None:
    """A session is validated, tested, and has more than one answer to learn."""
    remedy = "take other folds, or each_session: false"
    for part, what in (("train", "train"), ("valid", "validate"), ("test", "test")):
        if not len(getattr(fold, part)):
            raise UserError(f"{where}: no clips to {what}; {remedy}")
    alone = whole.corpus.constant_trait(fold.train)
    classes = np.unique(whole.corpus.labels[fold.train])
    if not whole.traits and len(classes) < 2:
        alone = whole.corpus.classes[classes[0]]
    if alone is not None:
        raise UserError(f"{where}: {alone} alone to train on; {remedy}")
