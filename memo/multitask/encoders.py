"""One state of each text: from words' vectors, or by a backbone's upper layers with adapters."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from memo.model.memobert import MemoBert
from memo.multitask.config import AspSettings
from memo.multitask.texts import filled, through_layers
from memo.tuning.adapter import Bottleneck
from memo.words.encoders import MeanWords, PooledCnn, WordLstm, pool_words


class WordEncoder(nn.Module):
    """One of the encoders of words.

    Args:
        vectors: D, width of the words' vectors.
        settings: which encoder.
    """

    def __init__(self, vectors: int, settings: AspSettings) -> None:
        super().__init__()
        self.vectors = vectors
        self.settings = settings
        self.encoder = _word_encoder(vectors, settings)
        self.width = self.encoder.width

    def forward(self, rows: Tensor, texts: PackedBatch) -> Tensor:
        """(L, D), S texts -> (S, d)."""
        state: Tensor = self.encoder(*filled(rows, texts))
        return state[: len(texts.seqlens)]

    def idle(self, rows: Tensor) -> Tensor:
        """Zero, through all parameters; `rows` is (0, D)."""
        word = rows.sum(dim=0)[None, None]  # (1, 1, D)
        state: Tensor = self.encoder(word, torch.ones(1, dtype=torch.int64, device=rows.device))
        return state[:0].sum()

    def fresh(self) -> "WordEncoder":
        """A new one of the same kind."""
        return WordEncoder(self.vectors, self.settings)


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


class UpperLayers(nn.Module):
    """A backbone's upper layers with several sets of adapters; a text's state is its tokens' mean.

    Args:
        backbone: loses these layers, so that it ends below them.
        layers: how many.
        cls_id: number of the piece that begins a window.
        encoders: how many sets.
        size: of the bottlenecks.
    """

    def __init__(
        self, backbone: MemoBert, layers: int, cls_id: int, encoders: int, size: int
    ) -> None:
        super().__init__()
        self.width = backbone.spec.hidden
        self._cls_id = cls_id
        whole = list(backbone.encoder.layers)
        cut = len(whole) - layers
        backbone.encoder.layers = nn.ModuleList(whole[:cut])
        self.layers = nn.ModuleList(whole[cut:])
        for layer in self.layers:
            for name in ("attention", "feed_forward"):
                adapters = [Bottleneck(self.width, size) for _ in range(encoders)]
                layer.add_module(name, ManyAdapters(layer.get_submodule(name), adapters))

    @property
    def many(self) -> list[ManyAdapters]:
        """Where the adapters stand."""
        return [one for one in self.modules() if isinstance(one, ManyAdapters)]

    def forward(self, rows: Tensor, texts: PackedBatch, number: int) -> Tensor:
        """(L, D), S texts -> (S, D), through one set of adapters."""
        for one in self.many:
            one.chosen = number
        states = filled(through_layers(self.layers, rows, texts, self._cls_id), texts)
        return pool_words(states.vectors, states.lengths, "mean")[: len(texts.seqlens)]


class AdapterEncoder(nn.Module):
    """One set of adapters in a backbone's upper layers.

    Args:
        upper: the layers, the same for all encoders.
        number: of the set.
    """

    def __init__(self, upper: UpperLayers, number: int) -> None:
        super().__init__()
        self.upper = upper
        self.number = number
        self.width = upper.width

    def forward(self, rows: Tensor, texts: PackedBatch) -> Tensor:
        """(L, D), S texts -> (S, D)."""
        state: Tensor = self.upper(rows, texts, self.number)
        return state

    def idle(self, rows: Tensor) -> Tensor:
        """Zero, through its adapters; `rows` is (0, D)."""
        sums: list[Tensor] = [one.adapters[self.number](rows).sum() for one in self.upper.many]
        return torch.stack(sums).sum()

    def fresh(self) -> "AdapterEncoder":
        """A copy of the layers, frozen, with new adapters."""
        upper = deepcopy(self.upper).requires_grad_(requires_grad=False)
        for one in upper.many:
            old = one.adapters[self.number]
            assert isinstance(old, Bottleneck), "they all are"
            new = Bottleneck(self.width, old.down.out_features)
            one.adapters[self.number] = new.to(old.down.weight.device)
        return AdapterEncoder(upper, self.number)
