"""Shared-private networks: what each loss reaches, and what is shared."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.packing import PackedBatch
from memo.heads.asp_mtl import AspNetwork, Sharing, TaskTexts, Transfer
from memo.multitask.base import TaskKind
from memo.multitask.config import AspSettings
from memo.multitask.encoders import WordEncoder
from memo.multitask.texts import WordStates
from memo.multitask.transfer import TransferSystem
from memo.objectives.base import LossSum
from memo.words.encoders import WordEmbedding
from tests.memo.multitask.small_system import pack_texts

TASKS = (2, 2, 3)


def reader() -> WordStates:
    table = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    return WordStates(WordEmbedding(table, frozen=True))


def encoder() -> WordEncoder:
    return WordEncoder(5, AspSettings(hidden=4))


def network(sharing: Sharing) -> AspNetwork:
    torch.manual_seed(0)
    return AspNetwork(reader(), encoder, TASKS, sharing)


def texts() -> PackedBatch:
    return pack_texts([[2, 3, 4, 5, 6, 7], [8, 2], [4, 3, 2, 8]])


def shared_of(model: AspNetwork) -> nn.Module:
    assert model.shared is not None
    return model.shared


def private_states(model: AspNetwork, task: int) -> Tensor:
    states: Tensor = model.private[task](reader().rows(texts()), texts())
    return states


LABELS = torch.tensor([1, 0, 1])


def losses(
    model: AspNetwork, task: int, labels: Tensor | None, weight: float
) -> dict[str, LossSum]:
    (found,) = model([TaskTexts(task, texts(), labels)], weight)
    return dict(found)


def reached(module: nn.Module) -> bool:
    return any(one.grad is not None and bool(one.grad.any()) for one in module.parameters())


@pytest.mark.parametrize("sharing", ["fs", "sp", "asp"])
def test_a_batch_trains_the_shared_and_its_own_parts(sharing: Sharing) -> None:
    model = network(sharing)
    found = losses(model, 1, LABELS, 0.05)
    found["label"].sum.backward()
    assert reached(shared_of(model))
    assert [reached(one) for one in model.outputs] == [False, True, False]
    own = [False, True, False] if sharing != "fs" else []
    assert [reached(one) for one in model.private] == own
    assert set(found) == {"label"} | ({"adversary", "difference"} if sharing == "asp" else set())


def test_tasks_of_as_many_classes_begin_alike_and_part() -> None:
    first, second, third = (one.state_dict()["weight"] for one in network("fs").outputs)
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()
    assert len(third) == 3


def test_one_output_layer_serves_tasks_of_as_many_classes() -> None:
    model = AspNetwork(reader(), encoder, TASKS, "fs", one_output=True)
    assert [len(one.state_dict()["weight"]) for one in model.outputs] == [2, 3]
    states = model.encode(texts(), 0)
    torch.testing.assert_close(model.logits(states, 0), model.logits(states, 1))
    assert model.logits(states, 2).shape == (3, 3)
    losses(model, 1, LABELS, 0.0)["label"].sum.backward()
    assert [reached(one) for one in model.outputs] == [True, False]


def test_the_label_loss_is_that_of_both_states() -> None:
    model = network("sp")
    shared, private = model.shared_states(texts()), private_states(model, 2)
    logits = model.outputs[2](torch.cat([shared, private], dim=1))
    found = losses(model, 2, LABELS, 0.0)["label"]
    torch.testing.assert_close(found.sum, F.cross_entropy(logits, LABELS, reduction="sum"))
    assert found.metric_sum.item() == (logits.argmax(dim=1) == LABELS).sum().item()
    assert found.count.item() == 3


def test_unlabelled_text_enters_the_adversarial_losses_alone() -> None:
    found = losses(network("asp"), 0, None, 0.05)
    assert (found["label"].sum.item(), found["label"].count.item()) == (0, 0)
    assert found["adversary"].count.item() == 3
    assert found["difference"].sum.item() > 0


@pytest.mark.parametrize("sharing", ["alone", "fs", "sp", "asp"])
def test_every_parameter_gets_a_gradient_from_every_batch(sharing: Sharing) -> None:
    model = network(sharing)
    for labels in (LABELS, None):
        model.zero_grad()
        torch.stack([one.sum for one in losses(model, 1, labels, 0.05).values()]).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name


def test_the_encoder_is_pushed_against_the_discriminator() -> None:
    """The shared encoder's gradient is -lambda times that of recognising the task."""
    model = network("asp")
    losses(model, 1, LABELS, 0.05)["adversary"].sum.backward()
    pushed = [one.grad.clone() for one in shared_of(model).parameters() if one.grad is not None]
    logits = model.discriminator.output(model.shared_states(texts()))
    plain = F.cross_entropy(logits, torch.tensor([1, 1, 1]), reduction="sum")
    trained = [one for one in shared_of(model).parameters() if one.requires_grad]
    gradients = torch.autograd.grad(plain, trained)
    for found, gradient in zip(pushed, gradients, strict=True):
        torch.testing.assert_close(found, -0.05 * gradient)
    assert not reached(model.private)


def test_the_difference_is_equation_14() -> None:
    model = network("asp")
    shared, private = model.shared_states(texts()), private_states(model, 1)
    expected = torch.linalg.matrix_norm(shared.T @ private) ** 2
    torch.testing.assert_close(losses(model, 1, None, 0.05)["difference"].sum, expected)


@pytest.mark.parametrize("sharing", ["alone", "fs", "sp", "asp"])
def test_batches_that_are_read_at_once_have_the_losses_of_each(sharing: Sharing) -> None:
    model = network(sharing)
    others = pack_texts([[3, 3], [2, 7, 8]])
    batches = [TaskTexts(2, texts(), LABELS), TaskTexts(0, others, LABELS[:2])]
    for together, one in zip(model(batches, 0.05), batches, strict=True):
        (alone,) = model([one], 0.05)
        torch.testing.assert_close(together, alone)


def test_a_new_task_leaves_the_shared_encoder_as_it_is() -> None:
    model = network("asp")
    for private in (None, encoder()):
        transfer = Transfer(model.reader, shared_of(model), 2, private)
        logits: Tensor = transfer(texts())
        assert logits.shape == (3, 2)
        logits.sum().backward()
        assert not reached(transfer.shared)
        assert reached(transfer.output)
        assert private is None or reached(private)


@pytest.mark.parametrize("both", [False, True])
def test_a_left_out_task_has_the_dropout_of_the_others(both: bool) -> None:
    """Behind an output layer that changes nothing: twice the states, or zeros."""
    torch.manual_seed(0)
    trained = AspNetwork(reader(), encoder, TASKS, "sp", dropout=0.5)
    width = 8 if both else 4
    system = TransferSystem(TaskKind("new", width, multi_label=False), trained, both)
    nn.init.eye_(system.network.output.weight)
    nn.init.zeros_(system.network.output.bias)
    states = system.eval().logits(texts(), 0)
    dropped = system.train().logits(texts(), 0)
    kept = dropped != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(dropped[kept], 2 * states[kept])
