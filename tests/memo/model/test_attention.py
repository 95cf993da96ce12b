"""Every backend against attention written out with a mask over the whole batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memo.model.attention import Backend, choose_backend, packed_attention

HEADS, SIZE = 3, 8
CPU = torch.device("cpu")


def reference(qkv: Tensor, seqlens: list[int]) -> Tensor:
    """(N, 3, H, d) -> (N, H, d): all pairs of tokens, those of different sequences masked."""
    query, key, value = qkv.permute(1, 2, 0, 3)  # (H, N, d)
    owner = torch.repeat_interleave(torch.arange(len(seqlens)), torch.tensor(seqlens))
    scores = (query @ key.mT / math.sqrt(qkv.shape[-1])).masked_fill(
        owner[:, None] != owner, -torch.inf
    )
    context: Tensor = scores.softmax(-1) @ value
    return context.transpose(0, 1)


def random_qkv(seqlens: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Leaf (N, 3, H, d), cu_seqlens, and an upstream gradient (N, H, d)."""
    generator = torch.Generator().manual_seed(sum(seqlens))
    tokens = sum(seqlens)
    qkv = torch.randn(tokens, 3, HEADS, SIZE, generator=generator, requires_grad=True)
    upstream = torch.randn(tokens, HEADS, SIZE, generator=generator)
    return qkv, torch.tensor([0, *seqlens]).cumsum(0).int(), upstream


@pytest.mark.parametrize("backend", ["loop", "padded"])
@given(seqlens=st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(max_examples=30)
def test_backend_equals_masked_attention(backend: Backend, seqlens: list[int]) -> None:
    qkv, cu_seqlens, upstream = random_qkv(seqlens)
    wanted = reference(qkv, seqlens)
    (wanted_gradient,) = torch.autograd.grad(wanted, qkv, upstream)
    output = packed_attention(qkv, cu_seqlens, seqlens, backend=backend)
    (gradient,) = torch.autograd.grad(output, qkv, upstream)
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, wanted_gradient, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["loop", "padded"])
def test_empty_sequence_disturbs_nobody(backend: Backend) -> None:
    qkv, _, upstream = random_qkv([4, 7])
    wanted = reference(qkv, [4, 7])
    (wanted_gradient,) = torch.autograd.grad(wanted, qkv, upstream)
    cu_seqlens = torch.tensor([0, 4, 4, 11], dtype=torch.int32)
    output = packed_attention(qkv, cu_seqlens, [4, 0, 7], backend=backend)
    (gradient,) = torch.autograd.grad(output, qkv, upstream)
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradient, wanted_gradient, atol=1e-5, rtol=0)


def test_no_tokens_keep_the_graph() -> None:
    qkv = torch.empty(0, 3, HEADS, SIZE, requires_grad=True)
    output = packed_attention(qkv, torch.zeros(1, dtype=torch.int32), [])
    assert output.shape == (0, HEADS, SIZE)
    (gradient,) = torch.autograd.grad(output.sum(), qkv)
    assert gradient.shape == qkv.shape


def test_loop_dropout_has_the_gradient_of_what_it_computed() -> None:
    """With the same draws the function is deterministic, so finite differences apply."""
    seqlens = [3, 5]
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(8, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    cu_seqlens = torch.tensor([0, 3, 8], dtype=torch.int32)

    def attend(values: Tensor) -> Tensor:
        torch.manual_seed(7)
        return packed_attention(values, cu_seqlens, seqlens, 0.4, "loop")

    plain = packed_attention(qkv, cu_seqlens, seqlens, 0.0, "loop")
    assert not torch.allclose(attend(qkv), plain)
    assert torch.autograd.gradcheck(attend, (qkv,))


def test_loop_dropout_drops_weights_without_bias() -> None:
    """With one constant value everywhere, the expected output is that constant."""
    qkv = torch.ones(64, 3, HEADS, SIZE)
    cu_seqlens = torch.tensor([0, 64], dtype=torch.int32)
    torch.manual_seed(0)
    outputs = [packed_attention(qkv, cu_seqlens, [64], 0.25, "loop") for _ in range(20)]
    per_head = torch.stack(outputs)[..., 0]  # each is a mean of 64 weights of 0 or 4/3
    assert per_head.mean().item() == pytest.approx(1, abs=0.01)
    assert per_head.std().item() == pytest.approx(math.sqrt(0.25 / 0.75 / 64), rel=0.1)


def test_auto_takes_what_the_device_can_do() -> None:
    cuda = torch.device("cuda")
    assert choose_backend(CPU, torch.float32, 0.1, 64) == "loop"
    assert choose_backend(cuda, torch.bfloat16, 0.0, 64) == "varlen"
    assert choose_backend(cuda, torch.bfloat16, 0.1, 64) == "padded"
    assert choose_backend(cuda, torch.float32, 0.0, 64) == "padded"
    assert choose_backend(cuda, torch.bfloat16, 0.0, 20) == "padded"


def test_varlen_refuses_dropout() -> None:
    qkv, cu_seqlens, _ = random_qkv([4])
    with pytest.raises(ValueError, match="has no dropout"):
        packed_attention(qkv, cu_seqlens, [4], 0.1, "varlen")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlashAttention needs a CUDA GPU")
def test_varlen_equals_padded() -> None:
    seqlens = [30, 7, 64]
    size = (sum(seqlens), 3, 4, 64)
    qkv = torch.randn(size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    cu_seqlens = torch.tensor([0, *seqlens], device="cuda").cumsum(0).int()
    outputs = [
        packed_attention(qkv, cu_seqlens, seqlens, backend=backend)
        for backend in ("varlen", "padded")
    ]
    gradients = [torch.autograd.grad(output.square().sum(), qkv)[0] for output in outputs]
    torch.testing.assert_close(*outputs, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(*gradients, atol=5e-2, rtol=5e-2)


def test_rows_behind_all_sequences_are_zero_and_change_nothing() -> None:
    seqlens = [4, 7]
    qkv, cu_seqlens, upstream = random_qkv(seqlens)
    wanted = packed_attention(qkv, cu_seqlens, seqlens, backend="loop")
    (wanted_gradient,) = torch.autograd.grad(wanted, qkv, upstream)
    more = torch.cat([qkv.detach(), torch.full_like(qkv[:5], 3.0)]).requires_grad_()
    output = packed_attention(more, cu_seqlens, seqlens, backend="loop")
    behind = torch.ones(5, HEADS, SIZE)
    (gradient,) = torch.autograd.grad(output, more, torch.cat([upstream, behind]))
    for found, expected in ((output, wanted), (gradient, wanted_gradient)):
        torch.testing.assert_close(found[:11], expected)
        assert not found[11:].any()
