"""Shared-private networks: what each loss reaches, and what is shared."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memo.heads.asp_mtl import AspNetwork, Sharing, Transfer
from memo.heads.gates import States
from memo.words.encoders import WordLstm

TASKS = (2, 2, 3)


def network(sharing: Sharing) -> AspNetwork:
    torch.manual_seed(0)
    return AspNetwork(lambda: WordLstm(5, 4), TASKS, sharing)


def texts(seed: int = 0) -> States:
    rng = torch.Generator().manual_seed(seed)
    return States(torch.randn(3, 6, 5, generator=rng), torch.tensor([6, 2, 4]))


LABELS = torch.tensor([1, 0, 1])


def reached(module: nn.Module) -> bool:
    return any(one.grad is not None and bool(one.grad.any()) for one in module.parameters())


@pytest.mark.parametrize("sharing", ["fs", "sp", "asp"])
def test_a_batch_trains_the_shared_and_its_own_parts(sharing: Sharing) -> None:
    model = network(sharing)
    found = model(texts(), 1, LABELS, 0.05)
    found["label"].sum.backward()
    assert reached(model.shared)
    assert [reached(one) for one in model.outputs] == [False, True, False]
    own = [False, True, False] if sharing != "fs" else []
    assert [reached(one) for one in model.private] == own
    assert set(found) == {"label"} | ({"adversary", "difference"} if sharing == "asp" else set())


def test_the_label_loss_is_that_of_both_states() -> None:
    model = network("sp")
    shared, private = model.shared(*texts()), model.private[2](*texts())
    logits = model.outputs[2](torch.cat([shared, private], dim=1))
    found = model(texts(), 2, LABELS, 0.0)["label"]
    torch.testing.assert_close(found.sum, F.cross_entropy(logits, LABELS, reduction="sum"))
    assert found.metric_sum.item() == (logits.argmax(dim=1) == LABELS).sum().item()
    assert found.count.item() == 3


def test_unlabelled_text_enters_the_adversarial_losses_alone() -> None:
    model = network("asp")
    found = model(texts(), 0, None, 0.05)
    assert set(found) == {"adversary", "difference"}
    assert network("sp")(texts(), 0, None, 0.05) == {}


def test_the_encoder_is_pushed_against_the_discriminator() -> None:
    """The shared encoder's gradient is -lambda times that of recognising the task."""
    model = network("asp")
    model(texts(), 1, LABELS, 0.05)["adversary"].sum.backward()
    pushed = [one.grad.clone() for one in model.shared.parameters() if one.grad is not None]
    logits = model.discriminator.output(model.shared(*texts()))
    plain = F.cross_entropy(logits, torch.tensor([1, 1, 1]), reduction="sum")
    gradients = torch.autograd.grad(plain, list(model.shared.parameters()))
    for found, gradient in zip(pushed, gradients, strict=True):
        torch.testing.assert_close(found, -0.05 * gradient)
    assert not reached(model.private)


def test_the_difference_is_equation_14() -> None:
    model = network("asp")
    shared, private = model.shared(*texts()), model.private[1](*texts())
    expected = torch.linalg.matrix_norm(shared.T @ private) ** 2
    torch.testing.assert_close(model(texts(), 1, None, 0.05)["difference"].sum, expected)


def test_a_new_task_leaves_the_shared_encoder_as_it_is() -> None:
    model = network("asp")
    for private in (None, WordLstm(5, 4)):
        transfer = Transfer(model.shared, 2, private)
        logits: Tensor = transfer(texts())
        assert logits.shape == (3, 2)
        logits.sum().backward()
        assert not reached(transfer.shared)
        assert reached(transfer.output)
        assert private is None or reached(private)
