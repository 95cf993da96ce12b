"""SoG on words with vectors or on a backbone's tokens (Li et al., 2022)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch
from memo.heads.maml import maml_loss
from memo.heads.sog import SogNetwork, SogOutput
from memo.multitask.backbones import freeze, token_states, upper_states, word_states
from memo.multitask.base import System, TaskKind, TextSystem, task_loss
from memo.multitask.batches import Sampling, TaskBatch
from memo.multitask.config import MamlSettings, SogSettings
from memo.multitask.setup import Blueprint, Recipe, SystemSetup, register
from memo.multitask.texts import FrozenTokenStates, TextStates
from memo.objectives.base import LossSum
from memo.tuning.config import FinetuneConfig

MAML = "maml"
"""The one loss of a MAML-like step."""


@dataclass(frozen=True)
class Episode:
    """A MAML-like step: one task's batch, and k batches of each other task.

    Attributes:
        inner: whose step is judged.
        outer: by these.
    """

    inner: TaskBatch
    outer: tuple[TaskBatch, ...]

    @property
    def tokens(self) -> int:
        """Words or pieces."""
        return sum(one.tokens for one in (self.inner, *self.outer))

    def count(self, name: str) -> int:
        """One episode."""
        return int(name == MAML)

    def to(self, device: torch.device) -> Self:
        """The batches with every tensor on a device."""
        outer = tuple(one.to(device) for one in self.outer)
        return replace(self, inner=self.inner.to(device), outer=outer)


class SogSystem(TextSystem):
    """Gated branches, all of which read the text in question.

    Args:
        tasks: K of them.
        texts: gives the states of words or tokens.
        settings: gate, places, training.
        widths: words that a filter sees, unless the settings say.
    """

    def __init__(
        self,
        tasks: Sequence[TaskKind],
        texts: TextStates,
        settings: SogSettings,
        widths: Sequence[int],
    ) -> None:
        super().__init__(tasks)
        self.texts = texts
        self.network = SogNetwork(
            texts.width,
            [one.outputs for one in tasks],
            None if settings.gate == "none" else settings.gate,
            settings.places,
            settings.published_dense,
            settings.widths or widths,
            settings.filters,
            settings.dropout,
            settings.pooling,
        )
        self._maml = settings.maml if settings.training == "maml" else None
        self.weights = {MAML: 1.0} if self._maml else {one.name: 1.0 for one in tasks}

    def output(self, texts: PackedBatch) -> SogOutput:
        """Answers of every branch."""
        found: SogOutput = self.network([self.texts(texts)] * len(self.tasks))
        return found

    def logits(self, texts: PackedBatch, task: int) -> Tensor:
        """See the base class."""
        return self.output(texts).logits[task][: len(texts.seqlens)]

    def traces(self, texts: PackedBatch, task: int) -> dict[str, Tensor]:
        """Cosine similarity of the branches behind each place."""
        del task
        return {f"cosine/{place}": one for place, one in self.output(texts).cosines().items()}

    def forward(self, batch: TaskBatch | Episode) -> dict[str, LossSum]:
        """See the base class; of an episode the MAML-like loss."""
        if isinstance(batch, Episode):
            assert self._maml is not None, "episodes are for it alone"
            return {MAML: self._episode(batch, self._maml)}
        logits = [one[: len(batch.texts.seqlens)] for one in self.output(batch.texts).logits]
        found = self.loss_of(lambda _, task: logits[task], batch)
        # Every parameter gets a gradient from every batch, so that all ZeRO stages do the same.
        idle = torch.stack([one.sum() * 0 for one in logits]).sum()
        found = found._replace(sum=found.sum + idle)
        return self.all_losses({self.tasks[batch.task].name: found}, found.sum)

    def loss_of(self, logits: Callable[..., Tensor], batch: TaskBatch) -> LossSum:
        """Loss of a batch by what gives its logits."""
        kind = self.tasks[batch.task]
        return task_loss(logits(batch.texts, batch.task), batch.texts, kind.multi_label)

    def _episode(self, episode: Episode, settings: MamlSettings) -> LossSum:
        def mean_loss(batch: TaskBatch) -> Callable[[Callable[..., object]], Tensor]:
            def of(model: Callable[..., object]) -> Tensor:
                logits = model(batch.texts, batch.task)
                assert isinstance(logits, Tensor), "`_Logits` gives them"
                found = self.loss_of(lambda *_: logits, batch)
                return found.sum / max(float(found.count), 1.0)

            return of

        loss = maml_loss(
            _Logits(self),
            mean_loss(episode.inner),
            [mean_loss(one) for one in episode.outer],
            settings.rate,
            settings.weight,
            settings.first_order,
        )
        return LossSum(loss, loss.new_ones(()), loss.detach())


class _Logits(torch.nn.Module):
    """A system as a function of a text batch and a task, for `functional_call`."""

    def __init__(self, system: SogSystem) -> None:
        super().__init__()
        self.system = system

    def forward(self, texts: PackedBatch, task: int) -> Tensor:
        return self.system.logits(texts, task)


@register
class Sog(Recipe):
    """Emotion and personality, or any other tasks of texts."""

    name: ClassVar[str] = "sog"

    def check(self, setup: SystemSetup) -> None:
        """See the base class."""
        config = setup.config
        maml = config.sog.training == "maml"
        if maml and config.distribution.activation_checkpointing:
            raise UserError("sog.training=maml does not go with activation_checkpointing")
        through = setup.backbone is not None and config.mode != "linear"
        if maml and through and not config.sog.maml.first_order:
            raise UserError(
                "sog.training=maml through a backbone needs sog.maml.first_order=true, for its "
                "attention has no second derivative"
            )
        if maml and setup.config.distribution.zero_stage == 3:
            raise UserError(
                "sog.training=maml needs whole parameters: distribution.zero_stage=2 or less"
            )
        if setup.backbone is not None and (config.sog.layer or 0) > setup.backbone.spec.layers:
            layers = setup.backbone.spec.layers
            raise UserError(f"sog.layer={config.sog.layer}: the backbone has {layers}")
        if maml and len(setup.members) < 2:
            raise UserError("sog.training=maml needs two tasks or more")
        batch = setup.config.batch
        whole = batch.global_batch * max(setup.longest(one) for one in setup.members)
        if maml and batch.token_budget < whole:
            raise UserError(
                f"sog.training=maml takes whole batches: batch.token_budget={whole} is needed, or "
                "a smaller batch.global_batch"
            )

    def build(self, blueprint: Blueprint) -> System:
        """See the base class."""
        kinds, settings = blueprint.kinds, blueprint.config.sog
        if blueprint.backbone is None:
            return SogSystem(kinds, word_states(blueprint), settings, (3, 4, 5))
        tokens, modes = token_states(blueprint)
        if blueprint.config.mode == "linear":
            tokens = FrozenTokenStates(tokens, settings.layer, blueprint.store)
        system = SogSystem(kinds, upper_states(tokens, blueprint), settings, (1,))
        freeze(system, "texts.backbone.", modes)
        return system

    def sampling(self, config: FinetuneConfig) -> Sampling:
        """See the base class."""
        samplings: dict[str, Sampling] = {"joint": "all", "maml": "episodes"}
        return samplings.get(config.sog.training, "alternating")
