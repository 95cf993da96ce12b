"""Post-LayerNorm transformer encoder (Vaswani et al. 2017; Devlin et al. 2019) on packed tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from memo.config import ModelSpec
from memo.model.attention import Backend, packed_attention
from memo.model.dropout import Dropout


class Attention(nn.Module):
    """Multi-head self-attention inside each sequence, with its output projection.

    Args:
        spec: the model's sizes.
        backend: of `packed_attention`.

    Attributes:
        qkv: Linear D -> 3 D, queries, keys and values, heads contiguous in each.
        output: Linear D -> D.
    """

    def __init__(self, spec: ModelSpec, backend: Backend) -> None:
        super().__init__()
        self.heads = spec.heads
        self.probability = spec.attention_dropout
        self.backend: Backend = backend
        self.qkv = nn.Linear(spec.hidden, 3 * spec.hidden)
        self.output = nn.Linear(spec.hidden, spec.hidden)

    def forward(self, hidden: Tensor, cu_seqlens: Tensor, seqlens: tuple[int, ...]) -> Tensor:
        """(N, D) -> (N, D)."""
        tokens, width = hidden.shape
        qkv = self.qkv(hidden).view(tokens, 3, self.heads, width // self.heads)
        dropout = self.probability if self.training else 0.0
        context = packed_attention(qkv, cu_seqlens, seqlens, dropout, self.backend)
        projected: Tensor = self.output(context.reshape(tokens, width))
        return projected


class FeedForward(nn.Module):
    """Linear D -> F, GELU (erf), Linear F -> D.

    Args:
        spec: the model's sizes.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.expand = nn.Linear(spec.hidden, spec.ffn)
        self.output = nn.Linear(spec.ffn, spec.hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        result: Tensor = self.output(F.gelu(self.expand(hidden)))
        return result


class Layer(nn.Module):
    """x = LN(x + dropout(attention(x))); x = LN(x + dropout(feed_forward(x))).

    Args:
        spec: the model's sizes.
        backend: of `packed_attention`.
    """

    def __init__(self, spec: ModelSpec, backend: Backend) -> None:
        super().__init__()
        self.attention = Attention(spec, backend)
        self.attention_norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.feed_forward = FeedForward(spec)
        self.norm = nn.LayerNorm(spec.hidden, spec.layer_norm_eps)
        self.dropout = Dropout(spec.dropout)

    def forward(self, hidden: Tensor, cu_seqlens: Tensor, seqlens: tuple[int, ...]) -> Tensor:
        """(N, D) -> (N, D)."""
        attended = self.dropout(self.attention(hidden, cu_seqlens, seqlens))
        hidden = self.attention_norm(hidden + attended)
        result: Tensor = self.norm(hidden + self.dropout(self.feed_forward(hidden)))
        return result


def even_rows(hidden: Tensor) -> Tensor:
    """Packed tokens (N, D) for a stack of layers, in bf16 on a CPU filled up with rows of zeros.

    There oneDNN compiles a kernel for every new number of rows, which takes longer than a layer of
    a thousand tokens; filled up, at most an eighth longer, there are few numbers. What the layers
    make of these rows is to be thrown away.
    """
    rows = len(hidden)
    filled = even_count(rows, hidden.device, hidden.dtype)
    return hidden if filled == rows else F.pad(hidden, (0, 0, 0, filled - rows))


def even_count(rows: int, device: torch.device, dtype: torch.dtype) -> int:
    """How many rows `even_rows` makes of so many on a device."""
    if device.type != "cpu" or dtype != torch.bfloat16:
        return rows
    step = max(2 ** (rows.bit_length() - 4), 32) if rows else 1
    return rows + -rows % step


class Encoder(nn.Module):
    """The stack of layers.

    Args:
        spec: the model's sizes.
        backend: of `packed_attention`.
        recompute: keep only each layer's input and compute the rest again in the backward pass.
    """

    def __init__(self, spec: ModelSpec, backend: Backend = "auto", recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.layers = nn.ModuleList(Layer(spec, backend) for _ in range(spec.layers))

    def forward(self, hidden: Tensor, cu_seqlens: Tensor, seqlens: tuple[int, ...]) -> Tensor:
        """Encode packed tokens.

        Args:
            hidden: (N, D).
            cu_seqlens: int32 (S + 1,), where each sequence begins.
            seqlens: the S lengths.

        Returns:
            (N, D), the last layer's output.
        """
        return self.states(hidden, cu_seqlens, seqlens)[-1]

    def states(self, hidden: Tensor, cu_seqlens: Tensor, seqlens: tuple[int, ...]) -> list[Tensor]:
        """The input and every layer's output, (N, D) each; see `forward`."""
        states, tokens = [hidden], len(hidden)
        hidden = even_rows(hidden)
        for layer in self.layers:
            if self.recompute and torch.is_grad_enabled():
                hidden = checkpoint(layer, hidden, cu_seqlens, seqlens, use_reentrant=False)
            else:
                hidden = layer(hidden, cu_seqlens, seqlens)
            states.append(hidden[:tokens])
        return states
