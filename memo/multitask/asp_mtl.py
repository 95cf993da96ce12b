"""ASP-MTL on words with vectors, or on a backbone with an adapter for all and one for each task."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor, nn

from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch
from memo.heads.adversary import reversal_weight
from memo.heads.asp_mtl import AspNetwork
from memo.heads.base import LABEL
from memo.model.encoder import Layer
from memo.model.memobert import MemoBert
from memo.multitask.backbones import word_states
from memo.multitask.base import System, TaskKind
from memo.multitask.batches import Sampling, TaskBatch
from memo.multitask.config import AspSettings
from memo.multitask.setup import Recipe, SystemFold, SystemSetup, register
from memo.multitask.texts import TextStates, TokenStates
from memo.objectives.base import LossSum
from memo.tuning.adapter import Bottleneck
from memo.tuning.config import FinetuneConfig
from memo.tuning.setup import pretrained_parts
from memo.words.encoders import MeanWords, PooledCnn, WordLstm, pool_words

ADVERSARY, DIFFERENCE = "adversary", "difference"


class AspSystem(System):
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
            self.weights = {**self.weights, ADVERSARY: 1.0, DIFFERENCE: settings.difference}

    def logits(self, texts: PackedBatch, task: int) -> Tensor:
        """See the base class."""
        return self.network.logits(self.network.encode(texts, task), task)

    def counts(self, task: int, texts: PackedBatch, labelled: bool) -> dict[str, int]:
        """See the base class; the difference is a sum over batches."""
        found = super().counts(task, texts, labelled)
        if self._settings.sharing == "asp":
            found |= {ADVERSARY: len(texts.seqlens), DIFFERENCE: 1}
        return found

    def forward(self, batch: TaskBatch) -> dict[str, LossSum]:
        """See the base class."""
        settings = self._settings
        weight = reversal_weight(self.progress, settings.adversary, settings.steepness)
        labels = batch.texts.targets[LABEL].values[:, 0] if batch.labelled else None
        found = self.network(batch.texts, batch.task, labels, weight)
        found[self.tasks[batch.task].name] = found.pop(LABEL)
        return self.all_losses(found, batch.texts.cu_seqlens.float())

    def traces(self, texts: PackedBatch, task: int) -> dict[str, Tensor]:
        """How often the discriminator recognises the task."""
        if self._settings.sharing != "asp":
            return {}
        shared = self.network.encode(texts, task).shared
        assert shared is not None, "asp has a shared encoder"
        numbers = torch.full((len(shared),), task, device=shared.device)
        found = self.network.discriminator(shared, numbers, 0.0)
        return {"recognised": found.metric_sum / found.count.clamp(min=1)}


class WordEncoder(nn.Module):
    """Vectors of words, then one of the encoders.

    Args:
        texts: the vectors, the same for all encoders.
        settings: which encoder.
    """

    def __init__(self, texts: TextStates, settings: AspSettings) -> None:
        super().__init__()
        self.texts = texts
        self.encoder = _word_encoder(texts.width, settings)
        self.width = self.encoder.width

    def forward(self, batch: PackedBatch) -> Tensor:
        """(S, d)."""
        state: Tensor = self.encoder(*self.texts(batch))
        return state[: len(batch.seqlens)]


def _word_encoder(width: int, settings: AspSettings) -> WordLstm | PooledCnn | MeanWords:
    hidden = settings.hidden
    if settings.encoder == "cnn":
        return PooledCnn(width, (3, 4, 5), hidden)
    if settings.encoder == "dnn":
        return MeanWords(width, hidden)
    layers = 2 if settings.encoder == "stacked" else 1
    return WordLstm(width, hidden, layers, both=settings.encoder == "bilstm")


class ManyAdapters(nn.Module):
    """A module whose output passes one of several bottlenecks.

    Args:
        inner: gives (N, D).
        adapters: of the shared encoder and of each private one.

    Attributes:
        chosen: number of the one that is passed.
    """

    def __init__(self, inner: nn.Module, adapters: Sequence[Bottleneck]) -> None:
        super().__init__()
        self.inner = inner
        self.adapters = nn.ModuleList(adapters)
        self.chosen = 0

    def forward(self, *arguments: object) -> Tensor:
        """As the inner module."""
        adapted: Tensor = self.adapters[self.chosen](self.inner(*arguments))
        return adapted


class AdaptedBackbone(nn.Module):
    """A backbone with several sets of adapters; a text's state is the mean of its tokens'.

    Args:
        backbone: gets the adapters, in place.
        cls_id: number of the piece that begins a window.
        encoders: how many sets.
        size: of the bottlenecks.
    """

    def __init__(self, backbone: MemoBert, cls_id: int, encoders: int, size: int) -> None:
        super().__init__()
        self.tokens = TokenStates(backbone, cls_id)
        self.width = self.tokens.width
        for layer in backbone.encoder.layers:
            assert isinstance(layer, Layer), "the encoder is made of them"
            for name in ("attention", "feed_forward"):
                adapters = [Bottleneck(self.width, size) for _ in range(encoders)]
                layer.add_module(name, ManyAdapters(layer.get_submodule(name), adapters))
        self._many = [one for one in backbone.modules() if isinstance(one, ManyAdapters)]

    def forward(self, batch: PackedBatch, number: int) -> Tensor:
        """(S, d), through one set of adapters."""
        for one in self._many:
            one.chosen = number
        states = self.tokens(batch)
        pooled = pool_words(states.vectors, states.lengths, "mean")
        return pooled[: len(batch.seqlens)]


class AdapterEncoder(nn.Module):
    """One set of adapters of a backbone.

    Args:
        adapted: the backbone, the same for all encoders.
        number: of the set.
    """

    def __init__(self, adapted: AdaptedBackbone, number: int) -> None:
        super().__init__()
        self.adapted = adapted
        self.number = number
        self.width = adapted.width

    def forward(self, batch: PackedBatch) -> Tensor:
        """(S, d)."""
        state: Tensor = self.adapted(batch, self.number)
        return state


@register
class AspMtl(Recipe):
    """Many tasks of one class a text."""

    name: ClassVar[str] = "asp_mtl"

    def check(self, setup: SystemSetup) -> None:
        """See the base class."""
        if setup.config.distribution.activation_checkpointing:
            raise UserError(
                "distribution.activation_checkpointing does not go with changing adapters"
            )
        for member in setup.members:
            if member.traits:
                raise UserError(f"asp_mtl: task {member.name} has several labels a text")
        names = [one.name for one in setup.members]
        unknown = [name for name in setup.config.asp_mtl.weights if name not in names]
        if unknown:
            raise UserError(f"asp_mtl.weights: there is no task {unknown[0]!r}")

    def build(self, fold: SystemFold) -> System:
        """See the base class."""
        setup, settings = fold.setup, fold.setup.config.asp_mtl
        encoder = _word_encoders(fold) if setup.backbone is None else _adapter_encoders(fold)
        outputs = [one.outputs for one in setup.kinds]
        network = AspNetwork(
            encoder, outputs, settings.sharing, settings.normalised, settings.dropout
        )
        system = AspSystem(setup.kinds, network, settings)
        if setup.backbone is not None:
            _freeze_backbone(system, setup.config.mode)
        return system

    def sampling(self, config: FinetuneConfig) -> Sampling:
        """See the base class."""
        return config.asp_mtl.sampling

    def reads_unlabelled(self, config: FinetuneConfig) -> bool:
        """See the base class."""
        return config.asp_mtl.unlabelled and config.asp_mtl.sharing == "asp"


def _word_encoders(fold: SystemFold) -> Callable[[], nn.Module]:
    words, settings = word_states(fold), fold.setup.config.asp_mtl
    return lambda: WordEncoder(words, settings)


def _adapter_encoders(fold: SystemFold) -> Callable[[], nn.Module]:
    setup, sharing = fold.setup, fold.setup.config.asp_mtl.sharing
    assert setup.backbone is not None, "that is asked for"
    body, _ = pretrained_parts(setup.backbone, setup.config)
    sets = (sharing != "alone") + (sharing != "fs") * len(setup.members)
    cls_id = setup.backbone.tokenizer.cls_id
    adapted = AdaptedBackbone(body, cls_id, sets, setup.config.adapter.size)
    numbers = count()
    return lambda: AdapterEncoder(adapted, next(numbers))


def _freeze_backbone(system: AspSystem, mode: str) -> None:
    """`full` trains all, `adapter` adapters and LayerNorms, `linear` neither."""
    for name, parameter in system.named_parameters():
        added = ".adapters." in name or "norm." in name
        trained = mode == "full" or (mode == "adapter" and added)
        parameter.requires_grad_(trained or ".backbone." not in name)
