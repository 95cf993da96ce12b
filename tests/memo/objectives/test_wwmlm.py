"""Logits in chunks, against their formula in numpy and against all of them at once."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from memo.config import ModelSpec
from memo.model.memobert import MemoBert
from memo.objectives import wwmlm
from memo.objectives.wwmlm import WholeWordMLM

PIECES = 40


@pytest.fixture
def head(spec: ModelSpec) -> WholeWordMLM:
    torch.manual_seed(1)
    head = WholeWordMLM(spec)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


@pytest.fixture
def hidden(spec: ModelSpec) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(PIECES, spec.hidden, requires_grad=True)


@pytest.fixture
def values(spec: ModelSpec) -> Tensor:
    torch.manual_seed(3)
    return torch.randint(0, spec.vocab_size, (PIECES,))


FACTORS = torch.linspace(-1, 2, PIECES)
"""Of the pieces' losses, so that each has a gradient of its own."""


def results(
    head: WholeWordMLM, hidden: Tensor, values: Tensor, backbone: MemoBert
) -> dict[str, Tensor]:
    """Losses, metrics and the gradients of all that has one."""
    loss, metric = head.scores(hidden, values, backbone)
    trained = {
        "hidden": hidden,
        "weight": backbone.text.word.weight,
        **dict(head.named_parameters()),
    }
    gradients = torch.autograd.grad((loss * FACTORS).sum(), list(trained.values()))
    found = {"loss": loss.detach(), "metric": metric}
    return found | dict(zip(trained, gradients, strict=True))


def in_numpy(
    rows: NDArray[np.float64], values: Tensor, weight: NDArray[np.float64], bias: Tensor
) -> dict[str, NDArray[np.float64]]:
    """Losses, and gradients of the logits' weights: softmax less one at the piece."""
    logits = rows @ weight.T + bias.detach().double().numpy()
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    shares = exponentials / exponentials.sum(1, keepdims=True)
    hits = np.eye(len(weight))[values.numpy()]
    errors = (shares - hits) * FACTORS.double().numpy()[:, None]
    loss = -np.log((shares * hits).sum(1))
    return {"loss": loss, "weight": errors.T @ rows, "bias": errors.sum(0)}


@pytest.mark.parametrize("pieces", [0, 1, 7, 20])
def test_chunks_give_what_all_at_once_gives(
    pieces: int,
    head: WholeWordMLM,
    hidden: Tensor,
    values: Tensor,
    backbone: MemoBert,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once = results(head, hidden, values, backbone)
    monkeypatch.setattr(wwmlm, "LOGITS", pieces * head.spec.vocab_size + 5)
    with patch.object(wwmlm, "checkpoint", wraps=checkpoint) as called:
        found = results(head, hidden, values, backbone)
    assert called.call_count == -(-PIECES // max(pieces, 1))
    for name, one in at_once.items():
        torch.testing.assert_close(found[name], one, rtol=1e-6, atol=1e-6 * float(one.abs().max()))
    rows = head.transform(hidden).detach().double().numpy()
    weight = backbone.text.word.weight.detach().double().numpy()
    for name, wanted in in_numpy(rows, values, weight, head.bias).items():
        np.testing.assert_allclose(
            found[name].numpy(), wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max()
        )


def test_up_to_a_chunk_it_is_one_product_to_the_bit(
    head: WholeWordMLM,
    hidden: Tensor,
    values: Tensor,
    backbone: MemoBert,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wwmlm, "LOGITS", PIECES * head.spec.vocab_size)
    logits = F.linear(head.transform(hidden), backbone.text.word.weight, head.bias)
    with patch.object(wwmlm, "checkpoint") as called:
        loss, _ = head.scores(hidden, values, backbone)
    assert torch.equal(loss, F.cross_entropy(logits, values, reduction="none"))
    called.assert_not_called()


def test_a_gradient_is_handed_on_once_whatever_the_chunks(
    head: WholeWordMLM,
    hidden: Tensor,
    values: Tensor,
    backbone: MemoBert,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DeepSpeed reduces a parameter's gradient when it is handed on."""
    monkeypatch.setattr(wwmlm, "LOGITS", head.spec.vocab_size)
    handed: list[tuple[int, ...]] = []
    for parameter in (backbone.text.word.weight, head.bias):
        parameter.register_post_accumulate_grad_hook(lambda one: handed.append(tuple(one.shape)))
    head(hidden, values, backbone).sum.backward()
    assert sorted(handed) == [(head.spec.vocab_size,), (head.spec.vocab_size, head.spec.hidden)]


def test_without_gradients_chunks_give_the_same(
    head: WholeWordMLM,
    hidden: Tensor,
    values: Tensor,
    backbone: MemoBert,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, metric = head.scores(hidden, values, backbone)
    monkeypatch.setattr(wwmlm, "LOGITS", 7 * head.spec.vocab_size)
    with torch.no_grad():
        found = head.scores(hidden, values, backbone)
    torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-6, atol=1e-6)
    assert torch.equal(found.metric, metric)
    assert 0 < found.metric.sum() < PIECES or not metric.any()


def test_in_half_precision_the_chunks_gradients_add_up(
    head: WholeWordMLM,
    hidden: Tensor,
    values: Tensor,
    backbone: MemoBert,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once and a piece at a time; 40 sums in bf16 have lost a hundredth of the bias'."""
    head.bfloat16()
    backbone.text.word.bfloat16()
    at_once = results(head, hidden.bfloat16(), values, backbone)
    monkeypatch.setattr(wwmlm, "LOGITS", head.spec.vocab_size)
    found = results(head, hidden.bfloat16(), values, backbone)
    for name, most in (("bias", 0.004), ("weight", 0.02)):
        one, other = at_once[name].float(), found[name].float()
        assert (other - one).norm() < most * one.norm()
