"""Self-attention inside each sequence of a packed batch, with several backends.

| backend | how | where `auto` takes it |
|---|---|---|
| `loop` | one small softmax attention per sequence, own backward pass | CPU |
| `padded` | pads inside the attention alone; `scaled_dot_product_attention` with a mask | GPU |
| `varlen` | `torch.nn.attention.varlen` (FlashAttention) | GPU in half precision, dropout 0 |

All of them compute softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, equation 1) over the tokens of
the same sequence, then drop attention weights as BERT does.

`loop` is written out because it is faster on a CPU than torch's fused kernel at these lengths
(48 sequences of 30 to 140 tokens, heads of 64, forward and backward, one thread: 0.85 of the time
of a loop over `scaled_dot_product_attention`, 0.6 with dropout, for which torch takes a slow path).
Meta tensors, of which the memory of a step is told, have its sizes and nothing to compute.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from memo.model.dropout import keep_mask

Backend: TypeAlias = Literal["auto", "loop", "padded", "varlen"]


def packed_attention(
    qkv: Tensor,
    cu_seqlens: Tensor,
    seqlens: Sequence[int],
    dropout: float = 0.0,
    backend: Backend = "auto",
) -> Tensor:
    """Attention of every token to the tokens of its own sequence.

    Args:
        qkv: (N, 3, H, d), queries, keys and values of N packed tokens; with the backend `loop`
            there may be more rows behind them, which become zero.
        cu_seqlens: int32 (S + 1,), where each sequence begins; the last is N.
        seqlens: the S lengths as Python numbers.
        dropout: probability of dropping an attention weight; 0 outside of training.
        backend: see the module's table.

    Returns:
        (N, H, d).
    """
    if len(qkv) == 0:
        return qkv[:, 2]  # in the graph, so that every parameter has its (zero) gradient
    if backend == "auto":
        backend = choose_backend(qkv.device, qkv.dtype, dropout, qkv.shape[-1])
    if backend == "loop":
        return _loop(qkv, seqlens, dropout)
    if backend == "padded":
        return _padded(qkv, cu_seqlens, seqlens, dropout)
    return _varlen(qkv, cu_seqlens, seqlens, dropout)


def choose_backend(
    device: torch.device, dtype: torch.dtype, dropout: float, head_size: int
) -> Backend:
    """The fastest backend that can do it; on a GPU `varlen`, which has no dropout."""
    if device.type == "cpu":
        return "loop"
    half = dtype in {torch.bfloat16, torch.float16}
    fits = half and dropout == 0 and head_size % 8 == 0
    return "varlen" if device.type == "cuda" and fits else "padded"


def _varlen(qkv: Tensor, cu_seqlens: Tensor, seqlens: Sequence[int], dropout: float) -> Tensor:
    """FlashAttention over packed sequences; it has no dropout."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  # needs a GPU build

    if dropout:
        message = "the attention backend 'varlen' has no dropout; set attention_dropout to 0"
        raise ValueError(message)
    query, key, value = qkv.unbind(1)  # (N, H, d) each
    longest = max(seqlens)
    output = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, longest, longest)
    assert isinstance(output, Tensor)
    return output


def _padded(qkv: Tensor, cu_seqlens: Tensor, seqlens: Sequence[int], dropout: float) -> Tensor:
    """Pad, attend with a mask, and take the padding out again; without a device round trip."""
    tokens, longest = len(qkv), max(seqlens)
    begins, lengths = cu_seqlens[:-1].long(), cu_seqlens.diff().long()  # (S,)
    place = torch.arange(longest, device=qkv.device)  # (T,)
    rows = (begins[:, None] + place).clamp(max=tokens - 1)  # (S, T), junk beyond a sequence's end
    query, key, value = qkv[rows].permute(2, 0, 3, 1, 4)  # (S, H, T, d)
    real = place < lengths[:, None]  # (S, T)
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=real[:, None, None], dropout_p=dropout
    )
    shifts = torch.arange(len(lengths), device=qkv.device) * longest - begins  # (S,)
    home = torch.repeat_interleave(shifts, lengths, output_size=tokens)
    home = home + torch.arange(tokens, device=qkv.device)  # (N,), rows of the S x T
    return output.transpose(1, 2).flatten(0, 1)[home]


def _loop(qkv: Tensor, seqlens: Sequence[int], dropout: float) -> Tensor:
    """Attend sequence by sequence (CPU)."""
    output: Tensor = _LoopAttention.apply(qkv, tuple(seqlens), dropout)  # type: ignore[no-untyped-call]
    return output


class _LoopAttention(torch.autograd.Function):
    """Softmax attention per sequence, the weights kept for the backward pass.

    With weights P, dropout factors M and upstream gradient G: dV = (P M)^T G,
    dS = softmax'(P, M * (G V^T)), dQ = dS K / sqrt(d), dK = dS^T Q / sqrt(d).
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, seqlens: tuple[int, ...], dropout: float) -> Tensor:  # noqa: ANN401
        tokens, _, heads, size = qkv.shape
        output = qkv.new_empty(tokens, heads, size)
        weights = qkv.new_empty(heads * sum(n * n for n in seqlens))
        factors = None
        if dropout:
            factors = keep_mask(len(weights), dropout, qkv.dtype, qkv.device)
        for rows, square, shape in _sequences(() if qkv.is_meta else seqlens, heads):
            query, key, value = qkv[rows].permute(1, 2, 0, 3)  # (H, n, d)
            attend = weights[square].view(shape)  # (H, n, n)
            attend.baddbmm_(query, key.mT, beta=0, alpha=size**-0.5)
            torch.softmax(attend, -1, out=attend)
            if factors is not None:
                attend = attend * factors[square].view(shape)
            output[rows].transpose(0, 1).baddbmm_(attend, value, beta=0)
        output[sum(seqlens) :] = 0
        ctx.seqlens = seqlens
        ctx.save_for_backward(qkv, weights, factors)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        qkv, weights, factors = ctx.saved_tensors
        _, _, heads, size = qkv.shape
        result = torch.empty_like(qkv)
        for rows, square, shape in _sequences(() if qkv.is_meta else ctx.seqlens, heads):
            query, key, value = qkv[rows].permute(1, 2, 0, 3)  # (H, n, d)
            d_query, d_key, d_value = result[rows].permute(1, 2, 0, 3)
            upstream = gradient[rows].transpose(0, 1)
            attend = weights[square].view(shape)
            d_attend = upstream @ value.mT  # (H, n, n)
            dropped = attend
            if factors is not None:
                kept = factors[square].view(shape)
                dropped = attend * kept
                d_attend.mul_(kept)
            d_value.baddbmm_(dropped.mT, upstream, beta=0)
            d_score = torch.ops.aten._softmax_backward_data(d_attend, attend, -1, attend.dtype)
            d_query.baddbmm_(d_score, key, beta=0, alpha=size**-0.5)
            d_key.baddbmm_(d_score.mT, query, beta=0, alpha=size**-0.5)
        result[sum(ctx.seqlens) :] = 0
        return result, None, None


def _sequences(
    seqlens: Sequence[int], heads: int
) -> Iterator[tuple[slice, slice, tuple[int, int, int]]]:
    """For each sequence its tokens, its piece of the flat weights, and the shape of that piece."""
    squares = [heads * length * length for length in seqlens]
    ends = zip(accumulate(seqlens), accumulate(squares), strict=True)
    for length, square, (row_end, square_end) in zip(seqlens, squares, ends, strict=True):
        if length:
            shape = (heads, length, length)
            yield slice(row_end - length, row_end), slice(square_end - square, square_end), shape
