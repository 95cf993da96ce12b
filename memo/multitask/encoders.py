"""One state of each text: from words with vectors, or from a backbone with one of many adapters."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from memo.model.encoder import Layer
from memo.model.memobert import MemoBert
from memo.multitask.config import AspSettings
from memo.multitask.texts import TextStates, TokenStates
from memo.tuning.adapter import Bottleneck
from memo.words.encoders import MeanWords, PooledCnn, WordLstm, pool_words


class WordEncoder(nn.Module):
    """Vectors of words, then one of the encoders.

    Args:
        texts: the vectors, the same for all encoders.
        settings: which encoder.
    """

    def __init__(self, texts: TextStates, settings: AspSettings) -> None:
        super().__init__()
        self.texts = texts
        self.settings = settings
        self.encoder = _word_encoder(texts.width, settings)
        self.width = self.encoder.width

    def forward(self, batch: PackedBatch) -> Tensor:
        """(S, d)."""
        state: Tensor = self.encoder(*self.texts(batch))
        return state[: len(batch.seqlens)]

    def fresh(self) -> "WordEncoder":
        """A new one on the same vectors."""
        return WordEncoder(self.texts, self.settings)


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

    @property
    def many(self) -> list[ManyAdapters]:
        """Where the adapters stand."""
        return [one for one in self.modules() if isinstance(one, ManyAdapters)]

    def forward(self, batch: PackedBatch, number: int) -> Tensor:
        """(S, d), through one set of adapters."""
        for one in self.many:
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

    def fresh(self) -> "AdapterEncoder":
        """A copy of the backbone, frozen, with new adapters."""
        adapted = deepcopy(self.adapted).requires_grad_(requires_grad=False)
        for one in adapted.many:
            old = one.adapters[self.number]
            assert isinstance(old, Bottleneck), "they all are"
            new = Bottleneck(self.width, old.down.out_features)
            one.adapters[self.number] = new.to(old.down.weight.device)
        return AdapterEncoder(adapted, self.number)
