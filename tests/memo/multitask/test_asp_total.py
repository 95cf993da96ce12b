"""The total loss of ASP-MTL, against equation 15 written out."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.packing import PackedBatch
from memo.heads.asp_mtl import AspNetwork
from memo.multitask.asp_mtl import AspSystem
from memo.multitask.base import TaskKind
from memo.multitask.batches import JointBatch, TaskBatch
from memo.multitask.config import AspSettings
from memo.multitask.encoders import WordEncoder
from memo.multitask.texts import WordStates
from memo.words.encoders import WordEmbedding
from tests.memo.multitask.small_system import pack_texts

KINDS = [TaskKind(name, 2, multi_label=False) for name in ("one", "two", "three")]
ALPHA = {"two": 0.25}
LAMBDA, GAMMA = 0.3, 0.2
LABELS = torch.tensor([0, 0])


def system(**settings: object) -> AspSystem:
    torch.manual_seed(0)
    chosen = AspSettings.model_validate(
        {"hidden": 4, "adversary": LAMBDA, "difference": GAMMA, "weights": ALPHA, **settings}
    )
    states = WordStates(WordEmbedding(torch.randn(9, 5), frozen=True))
    encoder = lambda: WordEncoder(5, chosen)  # noqa: E731
    network = AspNetwork(states, encoder, [2, 2, 2], "asp", chosen.normalised)
    return AspSystem(KINDS, network, chosen)


def texts(kind: int) -> PackedBatch:
    return pack_texts([[2 + kind, 3, 4], [8 - kind, 2]])


def step(model: AspSystem, kinds: list[int]) -> Tensor:
    """The total as the engine makes it of a step with a batch of each of these kinds."""
    parts = [
        TaskBatch(one, texts(one), True, model.counts(one, texts(one), labelled=True))
        for one in kinds
    ]
    batch = JointBatch(tuple(parts))
    losses = model(batch)
    shares = [losses[name].sum * w / max(batch.count(name), 1) for name, w in model.weights.items()]
    return torch.stack(shares).sum()


def by_the_paper(model: AspSystem, kinds: list[int]) -> Tensor:
    """Equation 15 with the reversal as the minimax that it stands for, to be differentiated."""
    network, terms = model.network, []
    assert network.shared is not None
    for kind in kinds:
        batch = texts(kind)
        rows = model.network.reader.rows(batch)  # type: ignore[operator]
        shared, private = network.shared(rows, batch), network.private[kind](rows, batch)
        logits = network.output(kind)(torch.cat([shared, private], 1))
        label = F.cross_entropy(logits, LABELS) * ALPHA.get(KINDS[kind].name, 1.0)
        numbers = torch.full((2,), kind)
        told = F.cross_entropy(network.discriminator.output(shared), numbers)
        terms += [label, -LAMBDA * told, GAMMA * (shared.T @ private).square().sum()]
    return torch.stack(terms).sum()


def gradient(module: nn.Module, loss: Tensor) -> Tensor:
    parts = torch.autograd.grad(loss, list(module.parameters()))
    return torch.cat([one.flatten() for one in parts])


@pytest.mark.parametrize(
    ("sampling", "kinds"), [(None, [0, 1, 2]), ("all", [0, 1, 2]), ("uniform", [1])]
)
def test_every_kind_adds_its_own_to_the_total(sampling: str | None, kinds: list[int]) -> None:
    """lambda, gamma and alpha weigh the same in a step of all kinds as in one of a single kind."""
    model = system(sampling=sampling)
    assert model.network.shared is not None
    for part in (model.network.shared, model.network.private[1]):
        found = gradient(part, step(model, kinds))
        torch.testing.assert_close(found, gradient(part, by_the_paper(model, kinds)))
        assert found.any()
