"""The gated network against one put together by hand."""

import pytest
import torch
from torch import Tensor

from memo.heads.gates import Gate, GateName, PublishedDenseGate, States
from memo.heads.sog import PLACES, Place, SogNetwork
from memo.words.encoders import Pooling


def states(batch: int, length: int, seed: int = 0) -> States:
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([length, *[length - 2] * (batch - 1)])
    return States(torch.randn(batch, length, 6, generator=rng), lengths)


def network(gate: GateName | None, *places: Place, published: bool = False) -> SogNetwork:
    torch.manual_seed(0)
    made = SogNetwork(6, (7, 5), gate, places, published, widths=(2, 3), filters=4)
    return made.eval()


def by_hand(model: SogNetwork, texts: list[States]) -> list[Tensor]:
    """Without gates: each branch alone."""
    logits = []
    for task, (vectors, lengths) in enumerate(texts):
        rows = []
        for row, length in zip(vectors, lengths.tolist(), strict=True):
            own = []
            for convolution in model.branches[task].convolutions:  # type: ignore[union-attr]
                size = convolution.kernel_size[0]
                text = torch.cat([row[:length], torch.zeros(size - 1, row.shape[1])])
                windows = [text[at : at + size].T for at in range(length)]
                found = [
                    ((convolution.weight * one).sum(dim=(1, 2)) + convolution.bias).relu()
                    for one in windows
                ]
                over = torch.stack(found)
                own.append(over.amax(dim=0) if model.pooling == "max" else over.mean(dim=0))
            rows.append(torch.cat(own))
        logits.append(model.outputs[task](torch.stack(rows)))
    return logits


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_without_a_gate_every_task_is_alone(pooling: Pooling) -> None:
    model = network(None, *PLACES)
    model.pooling = pooling
    texts = [states(3, 7), states(3, 5, seed=1)]
    for found, expected in zip(model(texts).logits, by_hand(model, texts), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("gate", ["sig", "silg", "sog", "cag"])
def test_a_gate_lets_the_other_branch_in_where_it_stands(gate: GateName, place: Place) -> None:
    texts = [states(2, 7), states(2, 7, seed=1)]
    model = network(gate, place)
    vectors = texts[1].vectors.clone().requires_grad_()
    found = model([texts[0], States(vectors, texts[1].lengths)])
    (reached,) = torch.autograd.grad(found.logits[0].sum(), vectors)
    assert reached.any()
    alone = network(None)([texts[0], States(vectors, texts[1].lengths)])
    (reached,) = torch.autograd.grad(alone.logits[0].sum(), vectors, allow_unused=True)
    assert reached is None


@pytest.mark.parametrize("published", [False, True])
def test_the_dense_gate_is_applied_to_the_maxima(published: bool) -> None:
    texts = [states(2, 6)] * 2
    model = network("sig", "dense", published=published)
    plain = network(None)
    dense = []
    for task in range(2):
        linear = plain.outputs[task]
        plain.outputs[task] = torch.nn.Identity()
        dense.append(plain(texts).logits[task])
        plain.outputs[task] = linear
    own, other = (States(one[:, None], torch.ones(2, dtype=torch.int64)) for one in dense)
    gate = PublishedDenseGate("sig") if published else Gate("sig", 8)
    torch.testing.assert_close(model(texts).logits[0], model.outputs[0](gate(own, [other])[:, 0]))


def test_equal_branches_have_a_cosine_of_one() -> None:
    model = network("sig", *PLACES)  # no state is zero behind it
    model.branches[1].load_state_dict(model.branches[0].state_dict())
    found = model([states(2, 6)] * 2)
    for place in PLACES:
        assert found.cosines()[place].item() == pytest.approx(1, abs=1e-5)


def test_texts_of_different_length_meet() -> None:
    gates: tuple[GateName, ...] = ("sig", "cag")
    for gate in gates:
        model = network(gate, "convolution")
        found = model([states(2, 9), states(2, 4, seed=1)])
        assert [one.shape for one in found.logits] == [(2, 7), (2, 5)]
