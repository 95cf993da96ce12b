"""ASP-MTL on words with vectors, or on a backbone with an adapter for all and one for each task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch
from memo.heads.adversary import reversal_weight
from memo.heads.asp_mtl import AspNetwork, TaskTexts
from memo.heads.base import LABEL
from memo.multitask.backbones import upper_states, word_states
from memo.multitask.base import System, TaskKind, TextSystem
from memo.multitask.batches import JointBatch, Sampling, TaskBatch
from memo.multitask.config import AspSettings
from memo.multitask.encoders import AdapterEncoder, UpperLayers, WordEncoder
from memo.multitask.probes import told_tasks, typical_words
from memo.multitask.setup import (
    Blueprint,
    Followup,
    Recipe,
    SystemFold,
    SystemSetup,
    View,
    register,
)
from memo.multitask.texts import TokenStates
from memo.multitask.transfer import CHANNELS, Learner, TransferSystem
from memo.objectives.base import LossSum
from memo.tuning.config import FinetuneConfig
from memo.tuning.setup import pretrained_parts

ADVERSARY, DIFFERENCE = "adversary", "difference"


class AspSystem(TextSystem):
    """The network, its weights, and the growth of the reversal.

    Args:
        tasks: K of them.
        network: with K output layers.
        settings: weights of the losses.
    """

    def __init__(
        self, tasks: Sequence[TaskKind], network: AspNetwork, settings: AspSettings
    ) -> None:
        super().__init__(tasks)
        self.network = network
        self._settings = settings
        self.weights: Mapping[str, float] = {
            one.name: settings.weights.get(one.name, 1.0) for one in tasks
        }
        if settings.sharing == "asp":
            # What is of all kinds together is a mean over the step; in the paper's total (equation
            # 15) each kind of it adds its own, as each adds its label loss.
            kinds = len(tasks) if _sampling(settings) == "all" else 1
            both = {ADVERSARY: float(kinds), DIFFERENCE: settings.difference * kinds}
            self.weights = {**self.weights, **both}

    def logits(self, texts: PackedBatch, task: int) -> Tensor:
        """See the base class."""
        return self.network.logits(self.network.encode(texts, task), task)

    def counts(self, task: int, texts: PackedBatch, labelled: bool) -> dict[str, int]:
        """See the base class; the difference is one a batch."""
        found = super().counts(task, texts, labelled)
        if self._settings.sharing == "asp":
            found |= {ADVERSARY: len(texts.seqlens), DIFFERENCE: 1}
        return found

    def forward(self, batch: JointBatch) -> dict[str, LossSum]:  # type: ignore[override]  # joint
        """See the base class."""
        settings = self._settings
        weight = reversal_weight(self.progress, settings.adversary, settings.steepness)
        losses = self.network([_task_texts(one) for one in batch.parts], weight)
        found: dict[str, LossSum] = {}
        for part, own in zip(batch.parts, losses, strict=True):
            own[self.tasks[part.task].name] = own.pop(LABEL)
            for name, loss in own.items():
                found[name] = found[name].plus(loss) if name in found else loss
        return self.all_losses(found, batch.parts[0].texts.cu_seqlens.float())

    def traces(self, texts: PackedBatch, task: int) -> dict[str, Tensor]:
        """How often the discriminator recognises the task."""
        if self._settings.sharing != "asp":
            return {}
        shared = self.network.encode(texts, task).shared
        assert shared is not None, "asp has a shared encoder"
        numbers = torch.full((len(shared),), task, device=shared.device)
        found = self.network.discriminator(shared, numbers, 0.0)
        return {"recognised": found.metric_sum / found.count.clamp(min=1)}


def _sampling(settings: AspSettings) -> Sampling:
    return settings.sampling or ("all" if settings.sharing == "asp" else "uniform")


def _task_texts(batch: TaskBatch) -> TaskTexts:
    labels = batch.texts.targets[LABEL].values[:, 0] if batch.labelled else None
    return TaskTexts(batch.task, batch.texts, labels)


@register
class AspMtl(Recipe):
    """Many tasks of one class a text."""

    name: ClassVar[str] = "asp_mtl"
    joint: ClassVar[bool] = True

    def check(self, setup: SystemSetup) -> None:
        """See the base class."""
        if setup.config.distribution.activation_checkpointing:
            raise UserError(
                "distribution.activation_checkpointing does not go with changing adapters"
            )
        settings = setup.config.asp_mtl
        if setup.backbone is not None:
            _check_backbone(setup.config, setup.backbone.spec.layers)
        if settings.unlabelled and not any(len(one.unlabelled) for one in setup.members):
            raise UserError("asp_mtl.unlabelled: the corpus has no split 'unlabelled'")
        for member in setup.members:
            if member.traits:
                raise UserError(f"asp_mtl: task {member.name} has several labels a text")
        names = [one.name for one in setup.members]
        left = setup.config.asp_mtl.leave_out
        if left is not None and (left not in names or len(names) < 3):
            raise UserError(f"asp_mtl.leave_out: {left!r} is none of three or more tasks")
        if left is not None and setup.config.asp_mtl.sharing == "alone":
            raise UserError("asp_mtl.leave_out: nothing is shared with sharing=alone")
        if left is not None and setup.config.distribution.zero_stage == 3:
            raise UserError("asp_mtl.leave_out needs whole parameters: zero_stage=2 or less")
        weighed = [name for name in names if name != left]  # that one has a network of its own
        unknown = [name for name in setup.config.asp_mtl.weights if name not in weighed]
        if unknown:
            raise UserError(f"asp_mtl.weights: there is no task {unknown[0]!r} among the trained")

    def views(self, setup: SystemSetup) -> list[View]:
        """See the base class; of a task that is left out, both ways to learn it."""
        left = _left_out(setup)
        return super().views(setup) if left is None else [View(name, left) for name in CHANNELS]

    def build(self, blueprint: Blueprint) -> System:
        """See the base class."""
        config, settings = blueprint.config, blueprint.config.asp_mtl
        words = blueprint.backbone is None
        reader, encoder = _word_encoders(blueprint) if words else _adapter_encoders(blueprint)
        outputs = [one.outputs for one in blueprint.kinds]
        network = AspNetwork(
            reader,
            encoder,
            outputs,
            settings.sharing,
            settings.normalised,
            settings.dropout,
            settings.one_output,
        )
        system = AspSystem(blueprint.kinds, network, settings)
        if not words:
            _freeze_backbone(system, config.mode)
        return system

    def first(self, setup: SystemSetup) -> SystemSetup:
        """See the base class: the tasks that are not left out."""
        left = _left_out(setup)
        if left is None:
            return setup
        others = [one for number, one in enumerate(setup.members) if number != left]
        return replace(setup, members=others)

    def then(self, fold: SystemFold, trained: System) -> Sequence[Followup]:
        """See the base class: the left-out task, single-channel and bi-channel."""
        setup, left = fold.setup, _left_out(fold.setup)
        if left is None:
            return ()
        assert isinstance(trained, AspSystem), "that was built"
        alone = replace(setup, members=[setup.members[left]], recipe=Learner())
        build = partial(TransferSystem, alone.kinds[0], trained.network)
        return [
            Followup(name, replace(fold, setup=alone), partial(build, both))
            for name, both in CHANNELS.items()
        ]

    def examine(self, fold: SystemFold, system: System) -> dict[str, Any]:
        """See the base class: whether a linear probe tells the tasks by the shared states."""
        assert isinstance(system, AspSystem), "that was built"
        found: dict[str, Any] = {}
        if system.network.shared is not None and len(fold.setup.members) > 1:
            found["task told by shared states"] = told_tasks(fold, system.network)
        whole = fold.setup.config.distribution.zero_stage < 3
        if fold.vocabulary is not None and whole:
            found["typical"] = typical_words(fold, fold.vocabulary, system.network)
        return found

    def sampling(self, config: FinetuneConfig) -> Sampling:
        """See the base class."""
        return _sampling(config.asp_mtl)

    def reads_unlabelled(self, config: FinetuneConfig) -> bool:
        """See the base class."""
        return config.asp_mtl.unlabelled


def _check_backbone(config: FinetuneConfig, layers: int) -> None:
    """Adapters stand in layers that the backbone has, above those that stay as they are.

    They are all that is private of a task: the same for all where they are not trained.
    """
    if config.mode == "linear" and config.asp_mtl.sharing in ("sp", "asp"):
        raise UserError(
            f"asp_mtl.sharing={config.asp_mtl.sharing}: --mode linear trains neither shared nor "
            "private encoders; take adapter or full, or sharing=fs"
        )
    if config.adapter.kind != "houlsby":
        raise UserError("asp_mtl: a backbone's adapters are adapter.kind=houlsby")
    upper, frozen = config.asp_mtl.upper_layers or layers, config.frozen_layers
    if upper + frozen > layers:
        raise UserError(
            f"asp_mtl.upper_layers={upper} and frozen_layers={frozen}: the backbone has {layers}"
        )


def _left_out(setup: SystemSetup) -> int | None:
    """Number of the task that is left out."""
    name = setup.config.asp_mtl.leave_out
    names = [one.name for one in setup.members]
    return names.index(name) if name in names else None


def _word_encoders(blueprint: Blueprint) -> tuple[nn.Module, Callable[[], nn.Module]]:
    words, settings = word_states(blueprint), blueprint.config.asp_mtl
    return words, lambda: WordEncoder(words.width, settings)


def _adapter_encoders(blueprint: Blueprint) -> tuple[nn.Module, Callable[[], nn.Module]]:
    config, backbone = blueprint.config, blueprint.backbone
    assert backbone is not None, "that is asked for"
    settings, cls_id = config.asp_mtl, backbone.tokenizer.cls_id
    body, _ = pretrained_parts(backbone, config)
    sets = (settings.sharing != "alone") + (settings.sharing != "fs") * len(blueprint.kinds)
    layers = settings.upper_layers or body.spec.layers
    upper = UpperLayers(body, layers, cls_id, sets, config.adapter.size)
    tokens, numbers = upper_states(TokenStates(body, cls_id), blueprint), count()
    return tokens, lambda: AdapterEncoder(upper, next(numbers))


def _freeze_backbone(system: AspSystem, mode: str) -> None:
    """`full` trains all, `adapter` adapters and the LayerNorms beside them, `linear` neither."""
    for name, parameter in system.named_parameters():
        below, upper = ".reader." in name, ".upper." in name
        added = upper and (".adapters." in name or "norm." in name)
        trained = mode == "full" or (mode == "adapter" and added)
        frozen = ".reader.below." in name
        parameter.requires_grad_(not frozen and (trained or not (below or upper)))
