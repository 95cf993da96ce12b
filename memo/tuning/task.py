"""A task file: which corpus, which classes, which folds. One YAML file in `configs/tasks/` a task.

Labels are read once, and everything that does not fit is refused before anything is trained.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator

from data_pipeline.clip import BadSampleError
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.reader import Split, open_dataset
from data_pipeline.shards.remote import FETCH, RemoteSettings
from data_pipeline.stream import Samples
from memo.config import DatasetPlace, Numbers
from memo.evaluation.folds import Fold, FoldSettings, Groups, make_folds
from memo.objectives.base import Modality
from memo.settings import Settings, load_config

TASKS = Path(__file__).parents[2] / "configs" / "tasks"


class Wording(Settings):
    """How a language asks for the emotion.

    Attributes:
        template: what follows the utterance; `[MASK]` is where the answer stands.
        words: class -> label words; several are averaged.
    """

    template: str
    words: Mapping[str, tuple[str, ...]]


class TaskSettings(Settings):
    """A labelled task.

    Attributes:
        name: of the task.
        dataset: folder of the built corpus, or its URL.
        label: which of the clips' labels.
        traits: labels each of which is told on its own, instead of `label` (multi-label); `classes`
            are then the two answers, the positive one last.
        classes: in the order of all tables.
        merge: label in the corpus -> class, where they differ in name or are merged.
        ignore: labels whose clips are left out, e.g. those on which the raters disagree.
        modalities: those that the corpus has.
        folds: how it is divided.
        seeds: every fold is trained once with each.
        language: of clips that do not say theirs.
        wording: language -> template and label words, for prompts.
    """

    name: str
    dataset: DatasetPlace
    label: str = "emotion"
    traits: tuple[str, ...] = ()
    classes: tuple[str, ...] = Field(min_length=2)
    merge: Mapping[str, str] = {}
    ignore: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = Field(("text", "face", "speech"), min_length=1)
    folds: FoldSettings
    seeds: Numbers = (1, 2, 3)
    language: str = "en"
    wording: Mapping[str, Wording] = {}

    @model_validator(mode="after")
    def _each_class_once(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: {', '.join(self.classes)}: each can stand there once")
        return self

    @model_validator(mode="after")
    def _two_answers(self) -> Self:
        if self.traits and len(self.classes) != 2:
            raise ValueError("traits have two answers: give two classes")
        return self


@dataclass(frozen=True)
class Labelled:
    """Clips and their classes: what a model is trained and tested on.

    Attributes:
        samples: clips.
        labels: int64 (n,), class of each of them; -1: not to be used. Of a multi-label task 0.
        classes: their names.
        modalities: those that the clips have.
        language: of clips that do not say theirs.
        own: bool (n, C), the classes among which each clip is answered; None: all of them.
    """

    samples: Samples
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    modalities: tuple[Modality, ...]
    language: str
    own: NDArray[np.bool_] | None = field(default=None, kw_only=True)

    def answers(
        self, samples: NDArray[np.int64], probabilities: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """The most probable class of clips among those that theirs can be, int64 (m,).

        Args:
            samples: int64 (m,), their numbers.
            probabilities: (m, C).
        """
        if self.own is not None:
            probabilities = np.where(self.own[samples], probabilities, -1)
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class LabelledCorpus(Labelled):
    """The clips of all splits of a corpus, with its task.

    Attributes:
        task: the settings.
        features: what the rows are.
        split: the clips.
        groups: speaker, session and split of each clip.
        traits: int64 (n, K), each trait's class, of a multi-label task; K = 0 of others.
    """

    task: TaskSettings
    features: FeatureSchema
    split: Split
    groups: Groups
    traits: NDArray[np.int64]

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds, numbered through all samples; only labelled clips are in them.

        Raises:
            UserError: see `make_folds`; or a class that a training part lacks, or a trait that has
                one answer there.
        """
        used = np.flatnonzero(self.labels >= 0)
        numbers = used.tolist()
        groups = Groups(
            speaker=[self.groups.speaker[at] for at in numbers],
            session=[self.groups.session[at] for at in numbers],
            split=[self.groups.split[at] for at in numbers],
            text=[self.groups.text[at] for at in numbers],
        )
        folds = [
            Fold(used[one.train], used[one.valid], used[one.test])
            for one in make_folds(self.task.folds, groups)
        ]
        for number, fold in enumerate(folds):
            self._check_classes(number, fold)
        return folds

    def _check_classes(self, number: int, fold: Fold) -> None:
        where = f"task {self.task.name}: fold {number}"
        if constant := self.constant_trait(fold.train):
            raise UserError(
                f"{where} has {constant} alone to train on; take fewer folds or leave the trait out"
            )
        if self.task.traits:
            return
        missing = set(range(len(self.classes))) - set(self.labels[fold.train].tolist())
        if missing:
            raise UserError(
                f"{where} has no {self.task.classes[min(missing)]!r} to train on; take fewer folds "
                "or merge the class"
            )

    def constant_trait(self, samples: NDArray[np.int64]) -> str | None:
        """A trait that all of some samples answer alike, with the answer; None if there is none."""
        for trait, column in zip(self.task.traits, self.traits[samples].T, strict=True):
            if len(set(column.tolist())) < 2:
                return f"{trait}={self.classes[column[0]]}"
        return None


def task_file(name: str) -> Path:
    """The file of the task of this name in `configs/tasks/`, or a YAML file of one's own.

    Raises:
        UserError: there is none (lists those there are).
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).exists():
            raise UserError(f"there is no task file {name}")
        return Path(name)
    path = TASKS / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(one.stem for one in TASKS.glob("*.yaml")))
        raise UserError(f"there is no task {name!r}; known are: {known}; or give a YAML file")
    return path


def is_system(name: str) -> bool:
    """Whether a task file describes a system.

    Raises:
        UserError: there is no such file.
    """
    try:
        found = yaml.safe_load(task_file(name).read_text("utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False  # the reader of tasks says what is wrong
    return isinstance(found, Mapping) and "system" in found


def load_task(name: str) -> TaskSettings:
    """The task of this name; see `task_file`.

    Raises:
        UserError: there is none, or the file has a mistake.
    """
    return load_config(TaskSettings, task_file(name), [])


def load_single_task(name: str) -> TaskSettings:
    """A task with one class a clip; see `task_file`.

    Raises:
        UserError: there is none, the file has a mistake, or it is of several tasks or labels.
    """
    if is_system(name):
        raise UserError(f"task {name} is a system of several tasks: give it alone, by --task")
    task = load_task(name)
    if task.traits:
        raise UserError(f"task {task.name} has several labels a clip: make it a part of --task sog")
    return task


def open_task(task: TaskSettings, remote: RemoteSettings = FETCH) -> LabelledCorpus:
    """Open the corpus and read every clip's label and group.

    Args:
        task: the settings.
        remote: how a corpus at a URL is read.

    Raises:
        UserError: the corpus is missing, has no such label, lacks a class, or has one that the
            task neither names, merges nor ignores.
    """
    dataset = open_dataset(task.dataset, remote)
    samples = dataset.whole()
    wanted = task.traits or (task.label,)
    speakers, sessions, texts, found = [], [], [], []
    names: set[str] = set()
    for sample in range(len(samples)):
        try:
            clip = samples.read_record(sample)
        except BadSampleError as error:
            raise UserError(
                f"{task.dataset}: clip {samples.location(sample)[1]} is broken ({error}); "
                "'memo data repair' writes a dataset without it"
            ) from None
        speakers.append(clip.speaker)
        sessions.append(clip.session)
        texts.append(sha256((clip.text or clip.key).encode()).hexdigest())
        given = [clip.labels.get(name) for name in wanted]
        found.append([None if label is None else str(label) for label in given])
        names.update(clip.labels)
    _check_names(task, wanted, names)
    columns = [_classes(task, [row[at] for row in found]) for at in range(len(wanted))]
    traits = np.stack(columns, axis=1)  # (n, K)
    labels = columns[0]
    if task.traits:
        labels = np.where((traits >= 0).all(axis=1), 0, -1)
    splits = [shard.split for shard in samples.shards for _ in range(shard.samples)]
    return LabelledCorpus(
        samples=samples,
        labels=labels,
        classes=task.classes,
        modalities=task.modalities,
        language=task.language,
        task=task,
        features=dataset.info.features,
        split=samples,
        groups=Groups(speakers, sessions, splits, texts),
        traits=traits if task.traits else traits[:, :0],
    )


def _check_names(task: TaskSettings, wanted: Sequence[str], names: Collection[str]) -> None:
    """The labels that are asked for must be among those of the clips."""
    for name in wanted:
        if name not in names:
            known = f"they have {', '.join(sorted(names))}" if names else "they have none"
            raise UserError(
                f"task {task.name}: no clip of {task.dataset} has a label {name!r}; {known}"
            )


def _classes(task: TaskSettings, found: list[str | None]) -> NDArray[np.int64]:
    """The class of every clip's label of some name; -1 of none and of those that are left out."""
    counts = Counter(label for label in found if label is not None)
    merged = {label: task.merge.get(label, label) for label in counts}
    unknown = [
        label
        for label, name in merged.items()
        if name not in task.classes and label not in task.ignore
    ]
    if unknown:
        into = f", merged into {merged[unknown[0]]!r}" if unknown[0] in task.merge else ""
        raise UserError(
            f"task {task.name}: clips are labelled {unknown[0]!r}{into}, which is none of "
            f"{', '.join(task.classes)}; put it into classes, merge or ignore"
        )
    for name in task.classes:
        if not any(merged[label] == name and label not in task.ignore for label in counts):
            raise UserError(
                f"task {task.name}: no clip of {task.dataset} is labelled {name!r}; labels are: "
                f"{', '.join(sorted(counts))}"
            )
    number = {name: at for at, name in enumerate(task.classes)}
    return np.array(
        [-1 if label is None or label in task.ignore else number[merged[label]] for label in found],
        dtype=np.int64,
    )
