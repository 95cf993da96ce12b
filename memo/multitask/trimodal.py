"""The trimodal system: seven classifiers, and what they are compared with.

- `seven`: a classifier for every subset, all trained; that of exactly what is there answers.
- `concat`: one classifier of all three, trained on all samples; what is absent is zero.
- `mean`: the same; what is absent is the mean over the samples of the first task's training part
  that have it, measured before the first epoch and after every one.
- `late`: a classifier of each modality; the mean of the answers of what is there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipeline.clip import BadSampleError
from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch, TargetSpec
from data_pipeline.stream import Transform
from memo.heads.base import LABEL
from memo.heads.trimodal import TrimodalNetwork
from memo.multitask.backbones import freeze, token_states, word_states
from memo.multitask.base import System, TaskKind
from memo.multitask.batches import TaskBatch
from memo.multitask.config import ImageSettings, TrimodalSettings
from memo.multitask.image_rows import image_rows
from memo.multitask.images import ImageNetwork
from memo.multitask.members import Member
from memo.multitask.posts import (
    CLIP,
    POST,
    PRESENT,
    ClipEncoder,
    ClipTransform,
    Losing,
    PostEncoder,
    PostTransform,
    clip_specs,
    post_specs,
)
from memo.multitask.setup import (
    Blueprint,
    Recipe,
    SystemFold,
    SystemSetup,
    View,
    register,
    window,
)
from memo.objectives.base import LossSum
from memo.tuning.setup import Backbone, check_features

FILLED = ("concat", "mean")
"""Fusions with one classifier, which always reads three states: something stands for the absent."""


def pattern_names(modalities: Sequence[str]) -> list[str]:
    """Names of the seven patterns, the complete one first."""
    sizes = range(len(modalities), 0, -1)
    return ["+".join(one) for size in sizes for one in combinations(modalities, size)]


class TrimodalSystem(System):
    """Encoders and classifiers.

    Args:
        tasks: the first is asked for; others give it training samples.
        encoder: batch -> (S, 3, width).
        modalities: their names.
        settings: how they are fused.
    """

    means: Tensor
    """float32 (3, width), what stands for the absent; zero but of `mean`."""

    def __init__(
        self,
        tasks: Sequence[TaskKind],
        encoder: nn.Module,
        modalities: Sequence[str],
        settings: TrimodalSettings,
    ) -> None:
        super().__init__(tasks)
        self.encoder = encoder
        self.fusion = settings.fusion
        chosen: dict[str, list[tuple[int, ...]]] = {
            "concat": [(0, 1, 2)],
            "mean": [(0, 1, 2)],
            "late": [(0,), (1,), (2,)],
        }
        self.network = TrimodalNetwork(
            modalities, settings.width, tasks[0].outputs, chosen.get(self.fusion)
        )
        self.register_buffer("means", torch.zeros(3, settings.width))
        self.weights: Mapping[str, float] = {
            self.network.name(one): 1.0 for one in self.network.subsets
        }

    def counts(self, task: int, texts: PackedBatch, labelled: bool) -> dict[str, int]:
        """See the base class: samples that have what a classifier needs."""
        del task, labelled
        needs = self._trained_on(texts.targets[PRESENT].values)
        return {
            self.network.name(one): int(needs[:, list(one)].all(dim=1).sum())
            for one in self.network.subsets
        }

    def forward(self, batch: TaskBatch) -> dict[str, LossSum]:
        """See the base class."""
        present = self._trained_on(batch.texts.targets[PRESENT].values)
        labels = batch.texts.targets[LABEL].values[:, 0]
        states = self._filled(self.encoder(batch.texts), batch.texts.targets[PRESENT].values)
        found: dict[str, LossSum] = self.network(states, present, labels)
        return found

    def _trained_on(self, present: Tensor) -> Tensor:
        """What counts as present in training: all of it, if something stands for the rest."""
        return torch.ones_like(present) if self.fusion in FILLED else present

    def _filled(self, states: Tensor, present: Tensor) -> Tensor:
        """States (S, 3, width) with what stands for those that are absent, zeros or means."""
        return torch.where(present[:, :, None], states, self.means.to(states.dtype))

    @torch.no_grad()
    def calibrate(
        self, batches: Iterable[PackedBatch], over_ranks: Callable[[Tensor], Tensor]
    ) -> None:
        """See the base class: the mean states of what is there."""
        if self.fusion != "mean":
            return
        sums = torch.zeros_like(self.means, dtype=torch.float64)
        counts = sums.new_zeros(3, 1)
        for batch in batches:
            present = batch.targets[PRESENT].values[:, :, None].double()  # (S, 3, 1)
            sums += (self.encoder(batch) * present).sum(dim=0)
            counts += present.sum(dim=0)
        self.means.copy_(over_ranks(sums) / over_ranks(counts).clamp(min=1))

    def answers(self, texts: PackedBatch, task: int) -> dict[str, Tensor]:
        """See the base class: under every pattern of visible modalities."""
        del task
        states, there = self.encoder(texts), texts.targets[PRESENT].values
        names = self.network.modalities
        found = {}
        for pattern in pattern_names(names):
            seen = torch.tensor([name in pattern.split("+") for name in names])
            present = there & seen.to(there.device)
            answers = self._answer(states, present)
            found[pattern] = answers.masked_fill(~present.any(dim=1, keepdim=True), torch.nan)
        return found

    def _answer(self, states: Tensor, present: Tensor) -> Tensor:
        """Probabilities (S, C) from what is present, bool (S, 3)."""
        if self.fusion == "seven":
            return self.network.predict(states, present)
        if self.fusion == "late":
            each = self.network.logits(states).softmax(dim=2)  # (3, S, C)
            shares = present.T[:, :, None].float()
            return (each * shares).sum(dim=0) / shares.sum(dim=0).clamp(min=1)
        return self.network.logits(self._filled(states, present))[0].softmax(dim=1)


@register
class Trimodal(Recipe):
    """Image, text and tags of posts, or text, face and speech of clips with a backbone."""

    name: ClassVar[str] = "trimodal"
    reads_tags: ClassVar[bool] = True
    reads_rows: ClassVar[bool] = True

    def check(self, setup: SystemSetup) -> None:
        """See the base class."""
        first, *others = setup.members
        for member in setup.members:
            if member.traits:
                raise UserError(f"trimodal: task {member.name} has several labels a sample")
        for member in others:
            unknown = set(member.corpus.classes) - set(first.corpus.classes)
            if unknown:
                raise UserError(
                    f"trimodal: task {member.name} has the class {min(unknown)!r}, {first.name} "
                    f"has only {', '.join(first.corpus.classes)}"
                )
        if setup.backbone is None:
            ImageNetwork(setup.config.trimodal.image)
            _check_posts(first)
            return
        _check_clips(setup, setup.backbone)

    def views(self, setup: SystemSetup) -> list[View]:
        """The first task under each pattern of visible modalities."""
        return [View(name, 0) for name in pattern_names(_modalities(setup))]

    def samples(
        self, fold: SystemFold, member: Member, part: NDArray[np.int64], training: bool
    ) -> tuple[Transform, Mapping[str, TargetSpec]]:
        """See the base class."""
        setup, settings = fold.setup, fold.setup.config.trimodal
        classes = setup.members[0].corpus.classes
        number = np.array([classes.index(name) for name in member.corpus.classes])
        labels = number[member.corpus.labels[part]]
        losing = Losing(settings.lost if training else 0.0, fold.seed)
        if setup.backbone is not None:
            limits, spec = setup.config.limits, setup.backbone.spec
            modalities = member.corpus.modalities
            transform = ClipTransform(fold.cut(member), limits, spec, labels, modalities, losing)
            return transform, clip_specs()
        rows, image = None, settings.image
        if image.frozen:
            signals = fold.keeping.signals
            rows = image_rows(member.corpus.split, image, fold.ranks, signals)[part]
        posts = PostTransform(
            fold.cut(member), fold.tags, settings.longest_tags, labels, rows, image.size, losing
        )
        return posts, post_specs(image_form(image, rows))

    def build(self, blueprint: Blueprint) -> System:
        """See the base class."""
        kinds, settings = blueprint.kinds, blueprint.config.trimodal
        if blueprint.backbone is not None:
            tokens, modes = token_states(blueprint)
            clips = ClipEncoder(tokens.backbone, settings.width)
            system = TrimodalSystem(kinds, clips, CLIP, settings)
            freeze(system, "encoder.backbone.", modes, blueprint.config.frozen_layers)
            return system
        images = ImageNetwork(settings.image)
        posts = PostEncoder(
            images=None if settings.image.frozen else images,
            image_width=images.width,
            words=word_states(blueprint),
            tags=blueprint.tags,
            tag_width=settings.tag_width,
            filters=settings.filters,
            width=settings.width,
            dropout=settings.dropout,
        )
        return TrimodalSystem(kinds, posts, POST, settings)


def image_form(settings: ImageSettings, rows: NDArray[np.float32] | None) -> TargetSpec:
    """What stands beside a post: its image, or a row (n, D) of a frozen network's."""
    if rows is None:
        return TargetSpec(torch.uint8, (3, settings.size, settings.size))
    return TargetSpec(torch.float32, (rows.shape[1],))


def _check_posts(member: Member) -> None:
    """A corpus of posts has images, texts and tags."""
    missing = set(POST)
    for sample in range(len(member.corpus.samples)):
        try:
            clip = member.corpus.samples.read(sample)
        except BadSampleError:
            continue
        there = {"image": clip.image, "text": clip.text, "tags": clip.tags}
        missing -= {name for name, value in there.items() if value}
        if not missing:
            return
    raise UserError(
        f"trimodal: {member.corpus.task.dataset} has no {min(missing)}; posts have image, text and "
        "tags (clips with face and speech need --backbone memo)"
    )


def _check_clips(setup: SystemSetup, backbone: Backbone) -> None:
    """Clips have text, face and speech as the backbone knows them, within its positions."""
    first, spec, limits = setup.members[0], backbone.spec, setup.config.limits
    for name in CLIP:
        if name not in first.corpus.modalities:
            raise UserError(
                f"trimodal: task {first.name} has no {name}; a backbone reads text, face and "
                "speech (posts with images and tags need --backbone original)"
            )
    for member in setup.members:
        check_features(member.corpus, backbone)
        for what, length, table in (
            ("longest", member.excerpt.longest, window(backbone)),
            ("limits.face", limits.face, spec.max_face),
            ("limits.speech", limits.speech, spec.max_speech),
        ):
            if length > table:
                raise UserError(f"task {member.name}: {what}={length}, the model has {table}")


def _modalities(setup: SystemSetup) -> tuple[str, ...]:
    return POST if setup.backbone is None else CLIP
