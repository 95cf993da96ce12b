"""Adapters: a few weights beside the frozen backbone's.

`houlsby` is a bottleneck with a residual after attention and after the feed-forward layer, with
LayerNorms of its own (Houlsby et al., ICML 2019, section 2.1; initial weights as in the ETRI
system: truncated normal of 1e-3, so that the model begins as the pretrained one). `lora` adds a
low-rank update to the attention's two projections (Hu et al., ICLR 2022, equation 3), and leaves
all else as it is.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memo.model.encoder import Layer
from memo.model.memobert import MemoBert
from memo.tuning.base import Parts, TuningMode, register
from memo.tuning.config import AdapterSettings

NEARLY_NOTHING = 1e-3
"""Standard deviation of a new bottleneck's weights."""


class Bottleneck(nn.Module):
    """x + up(GELU(down(x))).

    Args:
        width: D.
        size: of the bottleneck.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        for parameter in self.parameters():
            bound = 2 * NEARLY_NOTHING
            nn.init.trunc_normal_(parameter, std=NEARLY_NOTHING, a=-bound, b=bound)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        change: Tensor = self.up(F.gelu(self.down(hidden)))
        return hidden + change


class Adapted(nn.Module):
    """A module whose output passes a bottleneck.

    Args:
        inner: gives (N, D).
        adapter: (N, D) -> (N, D).
    """

    def __init__(self, inner: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.inner = inner
        self.adapter = adapter

    def forward(self, *arguments: object) -> Tensor:
        """As the inner module."""
        adapted: Tensor = self.adapter(self.inner(*arguments))
        return adapted


class LowRankUpdate(nn.Module):
    """up(down(x)), without biases; begins at zero.

    Args:
        inputs: width of x.
        outputs: width of the update.
        rank: between them.
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs)."""
        update: Tensor = self.up(self.down(hidden))
        return update


class LowRank(nn.Module):
    """inner(x) + scale * up(down(x)); the update begins at zero.

    Args:
        inner: the frozen projection.
        rank: of the update.
        scale: its factor.
    """

    def __init__(self, inner: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.inner = inner
        self.scale = scale
        self.adapter = LowRankUpdate(inner.in_features, inner.out_features, rank)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, inner's input) -> (N, inner's output)."""
        projected: Tensor = self.inner(hidden)
        update: Tensor = self.adapter(hidden)
        return projected + self.scale * update

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One projection that does the same."""
        self.inner.weight += self.scale * self.adapter.up.weight @ self.adapter.down.weight
        return self.inner


def add_adapters(backbone: MemoBert, settings: AdapterSettings) -> None:
    """Put adapters into every layer of the encoder, in place; drawn from torch's generator."""
    for layer in backbone.encoder.layers:
        assert isinstance(layer, Layer), "the encoder is made of them"
        if settings.kind == "houlsby":
            width = backbone.spec.hidden
            for name in ("attention", "feed_forward"):
                adapter = Bottleneck(width, settings.size)
                layer.add_module(name, Adapted(layer.get_submodule(name), adapter))
        else:
            for name in ("qkv", "output"):
                inner = layer.attention.get_submodule(name)
                assert isinstance(inner, nn.Linear), "a projection"
                update = LowRank(inner, settings.size, settings.scale)
                layer.attention.add_module(name, update)


def merge_low_rank(module: nn.Module) -> None:
    """Put every low-rank update into the projection that it stands beside, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, LowRank):
            module.add_module(name, child.merged())
        else:
            merge_low_rank(child)


@register
class Adapter(TuningMode):
    """Adapters, of bottlenecks the encoder's LayerNorms as well, and the classification head."""

    name: ClassVar[str] = "adapter"

    def __init__(self, alone: bool) -> None:
        super().__init__(alone)
        self._norms = True

    def extend(self, parts: Parts) -> None:
        """Put them into the encoder."""
        self._norms = parts.config.adapter.kind == "houlsby"
        add_adapters(parts.backbone, parts.config.adapter)

    def trains(self, name: str) -> bool:
        """What is new, and of bottlenecks the LayerNorms of the encoder's layers.

        A prompt's head stays frozen: it is the pretrained one.
        """
        in_layer = self._norms and name.startswith("backbone.encoder.layers.")
        norm = in_layer and (".norm." in name or ".attention_norm." in name)
        return ".adapter." in name or norm or (name.startswith("head.") and self.alone)
