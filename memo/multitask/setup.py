"""From settings to what all folds of a system share, and to the model of one of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data_pipeline.clip import BadSampleError
from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.plan import check_budget
from data_pipeline.quarantine import Quarantine
from data_pipeline.stream import BatchMaker, Placement
from data_pipeline.subset import Subset, SubsetLengths
from memo.evaluation.folds import Fold
from memo.heads.asp_mtl import AspNetwork
from memo.multitask.asp_mtl import AdaptedBackbone, AdapterEncoder, AspSystem, WordEncoder
from memo.multitask.base import System, TaskKind
from memo.multitask.members import Member, SystemSettings, load_system, open_members
from memo.multitask.sog import SogSystem
from memo.multitask.texts import (
    Cut,
    TextStates,
    TextTransform,
    TokenStates,
    WordStates,
    cut_pieces,
    cut_words,
    label_specs,
)
from memo.training.distributed import Ranks
from memo.tuning.base import Parts, TuningMode, parse_mode
from memo.tuning.config import FinetuneConfig
from memo.tuning.setup import Backbone, open_backbone, pretrained_parts
from memo.words.encoders import WordEmbedding
from memo.words.vectors import Lookup, read_vectors, train_vectors, vector_table
from memo.words.vocabulary import Vocabulary, split_words

MODES = ("full", "linear", "adapter")
"""How a backbone of a system can be trained."""


@dataclass(frozen=True)
class SystemSetup:
    """What all folds of a system share.

    Attributes:
        config: the settings.
        system: which tasks.
        members: opened and checked.
        backbone: what tuning starts from; None for the original's words.
        lookup: vectors of a file of words; None trains them, or needs none.
    """

    config: FinetuneConfig
    system: SystemSettings
    members: Sequence[Member]
    backbone: Backbone | None
    lookup: Lookup | None

    @property
    def kinds(self) -> list[TaskKind]:
        """What each task asks."""
        return [TaskKind(one.name, one.outputs, bool(one.traits)) for one in self.members]

    @property
    def fold_count(self) -> int:
        """Folds that every task has."""
        return min(len(one.folds) for one in self.members)


def set_up_system(config: FinetuneConfig) -> SystemSetup:
    """Open and check everything; nothing is written.

    Raises:
        UserError: anything that does not fit.
    """
    assert config.task is not None, "a system is a task"
    system = load_system(config.task)
    _check_settings(config, system)
    members = open_members(system, config.members)
    backbone = open_backbone(config) if config.backbone == "memo" else None
    words = config.words
    lookup = read_vectors(words.vectors) if words.vectors and backbone is None else None
    setup = SystemSetup(config, system, members, backbone, lookup)
    if config.folds is not None and not set(config.folds) <= set(range(setup.fold_count)):
        raise UserError(
            f"folds={list(config.folds)}: there are the folds 0 to {setup.fold_count - 1}"
        )
    longest = max(_longest(setup, one) for one in members)
    check_budget(longest, config.batch.token_budget)
    return setup


def _check_settings(config: FinetuneConfig, system: SystemSettings) -> None:
    """Settings that a system cannot honour."""
    if config.mode not in MODES:
        raise UserError(f"--mode: a system's backbone is tuned by {', '.join(MODES)}")
    for name, given in (
        ("modalities", config.modalities),
        ("prompt.template", config.prompt.template),
    ):
        if given is not None:
            raise UserError(f"{name} is for a single task, {system.name} is a system")
    if config.training.fraction != 1:
        raise UserError("training.fraction is for a single task")
    maml = system.system == "sog" and config.sog.training == "maml"
    if maml and config.distribution.zero_stage == 3:
        raise UserError(
            "sog.training=maml needs whole parameters: distribution.zero_stage=2 or less"
        )
    if system.system == "asp_mtl" and config.distribution.activation_checkpointing:
        raise UserError("distribution.activation_checkpointing does not go with changing adapters")


@dataclass(frozen=True)
class SystemFold:
    """One fold of a system with one seed.

    Attributes:
        setup: what all folds share.
        number: of the fold.
        seed: of new weights, order, dropout, vectors.
        ranks: this process among the others.
        quarantine: takes the texts that cannot be used.
        vocabulary: the words of the training parts; None with a backbone.
    """

    setup: SystemSetup
    number: int
    seed: int
    ranks: Ranks
    quarantine: Quarantine
    vocabulary: Vocabulary | None

    @property
    def name(self) -> str:
        """For messages."""
        return f"fold {self.number}, seed {self.seed}"

    def part(self, task: int) -> Fold:
        """The fold of a task."""
        return self.setup.members[task].folds[self.number]

    def maker(self, task: int, part: NDArray[np.int64], alone: bool = False) -> BatchMaker:
        """What makes micro-batches of some texts of a task.

        Args:
            task: its number.
            part: int64 (n,), samples of its corpus.
            alone: every rank makes all of them.
        """
        setup, member = self.setup, self.setup.members[task]
        spec = setup.backbone.spec if setup.backbone else None
        face_dim, speech_dim = (spec.face_dim, spec.speech_dim) if spec else (0, 0)
        return BatchMaker(
            split=Subset(member.corpus.samples, part, f"{member.name}, {self.name}"),
            transform=TextTransform(self._cut(member), member.targets[part], face_dim, speech_dim),
            specs=label_specs(member.targets.shape[1]),
            face_dim=face_dim,
            speech_dim=speech_dim,
            lengths=_lengths(setup, member, part),
            token_budget=setup.config.batch.token_budget,
            placement=Placement() if alone else self.ranks.placement,
            quarantine=self.quarantine,
        )

    def _cut(self, member: Member) -> Cut:
        if self.vocabulary is not None:
            return cut_words(self.vocabulary, member.longest)
        backbone = self.setup.backbone
        assert backbone is not None, "there are words or a backbone"
        return cut_pieces(backbone.tokenizer, member.longest, _window(backbone))


def open_fold(
    setup: SystemSetup, number: int, seed: int, ranks: Ranks, quarantine: Quarantine
) -> SystemFold:
    """A fold with its vocabulary."""
    vocabulary = None
    if setup.backbone is None:
        texts = (text for member in setup.members for text in _own_texts(member, number))
        words = setup.config.words
        vocabulary = Vocabulary.of(texts, words.fewest, words.most)
    return SystemFold(setup, number, seed, ranks, quarantine, vocabulary)


def _own_texts(member: Member, fold: int) -> Iterator[str]:
    """Texts of the training part, and unlabelled ones; broken ones are left to the quarantine."""
    for sample in (*member.folds[fold].train.tolist(), *member.unlabelled.tolist()):
        try:
            yield member.corpus.split.read_text(sample) or ""
        except BadSampleError:
            continue


def _window(backbone: Backbone) -> int:
    """Pieces of a window, without [CLS] and [SEP]."""
    return backbone.spec.max_positions - 2


def _longest(setup: SystemSetup, member: Member) -> int:
    """Tokens of the longest possible text."""
    if setup.backbone is None:
        return member.longest + 2
    return member.longest + 2 * -(-member.longest // _window(setup.backbone))


def _lengths(setup: SystemSetup, member: Member, part: NDArray[np.int64]) -> SubsetLengths:
    """Upper bounds of the texts' tokens."""
    limits = LengthLimits(member.longest, 0, 0)
    split, backbone = member.corpus.split, setup.backbone
    if backbone is None:
        lengths = TokenLengths(split, lambda text: len(split_words(text)), "words-1", limits)
    else:
        tokenizer = backbone.tokenizer
        lengths = TokenLengths(split, tokenizer.count, tokenizer.fingerprint, limits)
    return SubsetLengths(lengths, part, _longest(setup, member) - limits.longest)


def build_system(fold: SystemFold) -> System:
    """The model with its initial weights, drawn from the seed; what is frozen is marked so."""
    torch.manual_seed(fold.seed)
    setup = fold.setup
    build = _build_sog if setup.system.system == "sog" else _build_asp
    return build(fold)


def _build_sog(fold: SystemFold) -> System:
    setup = fold.setup
    texts, modes = _text_states(fold)
    widths = (3, 4, 5) if setup.backbone is None else (1,)
    system = SogSystem(setup.kinds, texts, setup.config.sog, widths)
    _freeze(system, "texts.backbone.", modes)
    return system


def _build_asp(fold: SystemFold) -> System:
    setup, settings = fold.setup, fold.setup.config.asp_mtl
    kinds = setup.kinds
    encoder: Callable[[], nn.Module]
    if setup.backbone is None:
        words = _word_states(fold)
        encoder = lambda: WordEncoder(words, settings)  # noqa: E731
    else:
        body, _ = pretrained_parts(setup.backbone, setup.config)
        sets = (settings.sharing != "alone") + (settings.sharing != "fs") * len(kinds)
        adapted = AdaptedBackbone(
            body, setup.backbone.tokenizer.cls_id, sets, setup.config.adapter.size
        )
        numbers = count()
        encoder = lambda: AdapterEncoder(adapted, next(numbers))  # noqa: E731
    network = AspNetwork(
        encoder,
        [one.outputs for one in kinds],
        settings.sharing,
        settings.normalised,
        settings.dropout,
    )
    system = AspSystem(kinds, network, settings)
    if setup.backbone is not None and setup.config.mode != "full":
        for name, parameter in system.named_parameters():
            inside = ".backbone." in name
            parameter.requires_grad_(
                not inside
                or (setup.config.mode == "adapter" and (".adapters." in name or "norm." in name))
            )
    return system


def _text_states(fold: SystemFold) -> tuple[TextStates, Sequence[TuningMode]]:
    """Words, or a backbone's tokens and how the backbone is trained."""
    setup = fold.setup
    if setup.backbone is None:
        return _word_states(fold), ()
    body, mlm = pretrained_parts(setup.backbone, setup.config)
    modes = parse_mode(setup.config.mode)
    parts = Parts(setup.config, body, mlm, setup.backbone.tokenizer, 2, None)
    for mode in modes:
        mode.extend(parts)
    return TokenStates(body, setup.backbone.tokenizer.cls_id), modes


def _freeze(system: System, prefix: str, modes: Sequence[TuningMode]) -> None:
    """Freeze what the modes do not train of a backbone; everything else is trained."""
    for name, parameter in system.named_parameters():
        if name.startswith(prefix):
            inside = f"backbone.{name.removeprefix(prefix)}"
            parameter.requires_grad_(any(mode.trains(inside) for mode in modes))


def _word_states(fold: SystemFold) -> TextStates:
    """Vectors of the vocabulary's words, from a file or trained on the fold's own texts."""
    setup, words, vocabulary = fold.setup, fold.setup.config.words, fold.vocabulary
    assert vocabulary is not None, "words have one"
    lookup = setup.lookup
    if lookup is None:
        texts = [text for one in setup.members for text in _own_texts(one, fold.number)]
        lookup = train_vectors(texts, words.width, fold.seed)
    table, _ = vector_table(vocabulary, lookup, words.spread, fold.seed)
    return WordStates(WordEmbedding(torch.from_numpy(table), words.frozen))
