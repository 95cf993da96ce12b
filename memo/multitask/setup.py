"""From settings to what all folds of a system share; the contract of a system's recipe.

A recipe is one file of this package: its model, what its samples are like, and how it is trained.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import memo.multitask
from data_pipeline.clip import BadSampleError
from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.packing import TargetSpec
from data_pipeline.plan import check_budget
from data_pipeline.quarantine import Quarantine
from data_pipeline.stream import BatchMaker, Placement, Transform
from data_pipeline.subset import Subset, SubsetLengths
from memo.evaluation.folds import Fold
from memo.multitask.base import System, TaskKind
from memo.multitask.batches import Sampling
from memo.multitask.idle import check_settings
from memo.multitask.members import (
    Member,
    SystemSettings,
    load_system,
    open_members,
    with_excerpts,
)
from memo.multitask.texts import (
    Cut,
    SharedStates,
    StateStore,
    TextTransform,
    cut_pieces,
    cut_words,
    label_specs,
)
from memo.training.distributed import Ranks
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Keeping
from memo.tuning.setup import Backbone, open_backbone
from memo.tuning.together import check_folds
from memo.words.contractions import with_parts
from memo.words.coverage import Coverage, coverage_of
from memo.words.vectors import Lookup, read_vectors
from memo.words.vocabulary import Vocabulary, count_words, split_words


class View(NamedTuple):
    """What scores are reported of: a task, or a task in some way.

    Attributes:
        name: for tables.
        task: its number.
    """

    name: str
    task: int


@dataclass(frozen=True)
class Blueprint:
    """What a system's model is built from; its values are loaded, or trained, afterwards.

    Attributes:
        config: the settings.
        kinds: what each task asks.
        backbone: what tuning starts from; None for words.
        table: float32 (V, D), vectors of the vocabulary's words; None with a backbone.
        tags: numbers of tags in use.
        store: keeps the states of a backbone that nothing changes; None keeps nothing.
    """

    config: FinetuneConfig
    kinds: Sequence[TaskKind]
    backbone: Backbone | None
    table: Tensor | None
    tags: int
    store: StateStore | None = None


@dataclass(frozen=True)
class SystemSetup:
    """What all folds of a system share.

    Attributes:
        config: the settings.
        system: which tasks.
        recipe: what learns them, and how.
        members: opened and checked.
        backbone: what tuning starts from; None for the original's words.
        lookup: vectors of a file of words, or of their parts; None trains them, or needs none.
        states: what frozen layers have read for this run and others of this process.
    """

    config: FinetuneConfig
    system: SystemSettings
    recipe: "Recipe"
    members: Sequence[Member]
    backbone: Backbone | None
    lookup: Lookup | None
    states: SharedStates

    @property
    def kinds(self) -> list[TaskKind]:
        """What each task asks."""
        return [TaskKind(one.name, one.outputs, bool(one.traits)) for one in self.members]

    @property
    def store(self) -> StateStore | None:
        """Keeps what frozen layers have read, if all folds and seeds have the same ones."""
        config = self.config
        frozen = (config.mode == "linear" or config.frozen_layers > 0) and not config.direct
        # At stage 3 every forward pass is one of all ranks, whatever each has kept.
        if not frozen or config.distribution.zero_stage == 3:
            return None
        assert self.backbone is not None, "the settings are checked"
        # Sizes and pieces are those of the folder; dropout decides which attention can be taken.
        backbone = self.backbone.checkpoint.folder.absolute(), self.backbone.sha256
        read = config.mode, config.sog.layer, config.frozen_layers, config.attention_dropout
        precise = config.distribution.precision, config.distribution.zero_stage > 0
        return self.states.of((*backbone, *read, *precise), int(config.kept_gib * 2**30))

    @cached_property
    def views(self) -> list[View]:
        """What scores are reported of."""
        return self.recipe.views(self)

    @property
    def fold_count(self) -> int:
        """Folds that a task has; as many as any, unless some are asked for."""
        return len(self.members[0].folds)

    @property
    def dims(self) -> tuple[int, int]:
        """Columns of face and speech rows."""
        spec = self.backbone.spec if self.backbone else None
        return (spec.face_dim, spec.speech_dim) if spec else (0, 0)

    def limits(self, member: Member) -> LengthLimits:
        """What of a task's samples is read."""
        limits, rows = self.config.limits, self.recipe.reads_rows and self.backbone is not None
        face, speech = (limits.face, limits.speech) if rows else (0, 0)
        return LengthLimits(member.excerpt.longest, face, speech)

    def longest(self, member: Member) -> int:
        """Tokens of a task's longest possible sample, with [CLS] and [SEP] of all windows."""
        length = self.limits(member).longest
        if self.backbone is None:
            return length
        return length + 2 * ((member.excerpt.longest - 1) // window(self.backbone))


@dataclass(frozen=True)
class SystemFold:
    """One fold of a system with one seed.

    Attributes:
        setup: what all folds share.
        number: of the fold.
        seed: of new weights, order, dropout.
        ranks: this process among the others.
        quarantine: takes the samples that cannot be used.
        keeping: where the training is kept until the fold is done.
        vocabulary: words of the training parts and of unlabelled texts; None with a backbone.
        coverage: how many of these have a vector in the file; None without one.
    """

    setup: SystemSetup
    number: int
    seed: int
    ranks: Ranks
    quarantine: Quarantine
    keeping: Keeping
    vocabulary: Vocabulary | None
    coverage: Coverage | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return f"fold {self.number}, seed {self.seed}"

    def part(self, task: int) -> Fold:
        """The fold of a task."""
        return self.setup.members[task].folds[self.number]

    def maker(
        self, task: int, part: NDArray[np.int64], training: bool = False, alone: bool = False
    ) -> BatchMaker:
        """What makes micro-batches of some samples of a task.

        Args:
            task: its number.
            part: int64 (n,), samples of its corpus.
            training: they are trained on.
            alone: every rank makes all of them.
        """
        setup, member = self.setup, self.setup.members[task]
        transform, specs = setup.recipe.samples(self, member, part, training)
        face_dim, speech_dim = setup.dims
        return BatchMaker(
            split=Subset(member.corpus.samples, part, f"{member.name}, {self.name}"),
            transform=transform,
            specs=specs,
            face_dim=face_dim,
            speech_dim=speech_dim,
            lengths=_lengths(setup, member, part),
            token_budget=setup.config.batch.token_budget,
            placement=Placement() if alone else self.ranks.placement,
            quarantine=self.quarantine,
        )

    def cut(self, member: Member) -> Cut:
        """How a task's texts are cut."""
        if self.vocabulary is not None:
            return cut_words(self.vocabulary, member.excerpt)
        backbone = self.setup.backbone
        assert backbone is not None, "there are words or a backbone"
        return cut_pieces(backbone.tokenizer, member.excerpt, window(backbone))

    @cached_property
    def tags(self) -> Vocabulary:
        """Every tag that the training parts have twice or more, if the system reads tags."""
        if not self.setup.recipe.reads_tags or self.setup.backbone is not None:
            return Vocabulary([])
        tags = (tag for member in self.setup.members for tag in _own_tags(member, self.number))
        return Vocabulary.counted(Counter(tags), fewest=2)

    def texts(self) -> Iterator[str]:
        """Of all training parts, and unlabelled ones; broken ones are left to the quarantine."""
        for member in self.setup.members:
            yield from _own_texts(member, self.number)


@dataclass(frozen=True)
class Followup:
    """A training that follows another.

    Attributes:
        view: name of what is reported of it.
        fold: of one task.
        build: makes its model.
    """

    view: str
    fold: SystemFold
    build: Callable[[], System]


class Recipe(ABC):
    """One system: its model, its samples, its training."""

    name: ClassVar[str]
    """In task files."""

    reads_tags: ClassVar[bool] = False
    """Whether samples have tags besides their text, for an original's backbone."""

    reads_rows: ClassVar[bool] = False
    """Whether samples have face and speech rows besides their text, for the pretrained backbone."""

    joint: ClassVar[bool] = False
    """Whether the batches of a step are read several at once, as `JointBatch`."""

    def check(self, setup: SystemSetup) -> None:
        """Refuse settings that the system cannot honour.

        Raises:
            UserError: says which.
        """
        del setup

    def views(self, setup: SystemSetup) -> list[View]:
        """What scores are reported of; each task unless a system knows better."""
        return [View(one.name, number) for number, one in enumerate(setup.members)]

    def samples(
        self, fold: SystemFold, member: Member, part: NDArray[np.int64], training: bool
    ) -> tuple[Transform, Mapping[str, TargetSpec]]:
        """What makes examples of a task's clips, and the form of their targets; of texts."""
        del training
        face_dim, speech_dim = fold.setup.dims
        targets = member.targets[part]
        transform = TextTransform(fold.cut(member), targets, face_dim, speech_dim)
        return transform, label_specs(targets.shape[1])

    @abstractmethod
    def build(self, blueprint: Blueprint) -> System:
        """The model with its initial weights, drawn from torch's generator; frozen is marked so."""

    def first(self, setup: SystemSetup) -> SystemSetup:
        """What is trained first; all of it, unless a system knows better."""
        return setup

    def then(self, fold: SystemFold, trained: System) -> Sequence[Followup]:
        """What is trained afterwards, upon the model that was trained first."""
        del fold, trained
        return ()

    def examine(self, fold: SystemFold, system: System) -> Mapping[str, Any]:
        """What is measured of a trained model beyond its scores, as JSON has it."""
        del fold, system
        return {}

    def sampling(self, config: FinetuneConfig) -> Sampling:
        """What a step sees."""
        del config
        return "all"

    def reads_unlabelled(self, config: FinetuneConfig) -> bool:
        """Whether unlabelled texts come along."""
        del config
        return False


_REGISTRY: dict[str, type[Recipe]] = {}


def register(recipe: type[Recipe]) -> type[Recipe]:
    """Class decorator: make a recipe known under its name."""
    if recipe.name in _REGISTRY:
        message = f"two systems are called {recipe.name!r}"
        raise ValueError(message)
    _REGISTRY[recipe.name] = recipe
    return recipe


def find_recipe(name: str) -> Recipe:
    """The recipe of a system.

    Raises:
        UserError: there is none (names those there are).
    """
    for module in pkgutil.iter_modules(memo.multitask.__path__, "memo.multitask."):
        importlib.import_module(module.name)
    if name not in _REGISTRY:
        raise UserError(f"there is no system {name!r}; known are: {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]()


def set_up_system(config: FinetuneConfig, states: SharedStates) -> SystemSetup:
    """Open and check everything; nothing is written.

    Args:
        config: the settings.
        states: what frozen layers have read for other runs of this process.

    Raises:
        UserError: anything that does not fit.
    """
    assert config.task is not None, "a system is a task"
    system = load_system(config.task)
    recipe = find_recipe(system.system)
    check_settings(config, system)
    members = open_members(system, config.members, config.remote)
    members = with_excerpts(members, config.longest, config.truncation)
    backbone = open_backbone(config) if config.backbone == "memo" else None
    vectors = config.words.vectors
    lookup = with_parts(read_vectors(vectors)) if vectors and backbone is None else None
    setup = SystemSetup(config, system, recipe, members, backbone, lookup, states)
    recipe.check(setup)
    check_folds(config.folds, [one.divided for one in members], f"task {system.name}")
    check_budget(max(setup.longest(one) for one in members), config.batch.token_budget)
    return setup


def open_fold(
    setup: SystemSetup,
    number: int,
    seed: int,
    ranks: Ranks,
    quarantine: Quarantine,
    keeping: Keeping,
) -> SystemFold:
    """A fold with its vocabulary."""
    fold = SystemFold(setup, number, seed, ranks, quarantine, keeping, None)
    if setup.backbone is not None:
        return fold
    words, counts = setup.config.words, count_words(fold.texts())
    vocabulary = Vocabulary.counted(counts, words.fewest, words.most)
    coverage = coverage_of(vocabulary, counts, setup.lookup) if setup.lookup else None
    return replace(fold, vocabulary=vocabulary, coverage=coverage)


def _own_texts(member: Member, fold: int) -> Iterator[str]:
    for sample in (*member.folds[fold].train.tolist(), *member.unlabelled.tolist()):
        try:
            yield member.corpus.split.read_text(sample) or ""
        except BadSampleError:
            continue


def _own_tags(member: Member, fold: int) -> Iterator[str]:
    """Tags of the training part, in lower case."""
    for sample in member.folds[fold].train.tolist():
        try:
            tags = member.corpus.split.read_record(sample).tags
        except BadSampleError:
            continue
        yield from (tag.lower() for tag in tags)


def window(backbone: Backbone) -> int:
    """Pieces of a window, without [CLS] and [SEP]."""
    return backbone.spec.max_positions - 2


def _lengths(setup: SystemSetup, member: Member, part: NDArray[np.int64]) -> SubsetLengths:
    """Upper bounds of the samples' tokens."""
    limits = setup.limits(member)
    split, backbone = member.corpus.split, setup.backbone
    if backbone is None:
        lengths = TokenLengths(split, lambda text: len(split_words(text)), "words-1", limits)
    else:
        tokenizer = backbone.tokenizer
        lengths = TokenLengths(split, tokenizer.count, tokenizer.fingerprint, limits)
    return SubsetLengths(lengths, part, setup.longest(member) - limits.longest)
