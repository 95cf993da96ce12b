"""Gates against their formulas written out number by number."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memo.heads.gates import Gate, GateName, PublishedDenseGate, States, align_length, cosine


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def softmax(values: list[float]) -> list[float]:
    exponents = [math.exp(one) for one in values]
    return [one / sum(exponents) for one in exponents]


def by_hand(name: GateName, own: list[list[float]], other: list[list[float]], w: Tensor) -> Tensor:
    """One sample, (T, C) and (T', C)."""
    rows = []
    for at, h in enumerate(own):
        if name == "cag":
            scores = [
                sum(w[i, j].item() * h[j] * c[i] for i in range(len(c)) for j in range(len(h)))
                for c in other
            ]
            weights = softmax(scores)
            passed = [
                sum(a * c[i] for a, c in zip(weights, other, strict=True)) for i in range(len(h))
            ]
        elif name == "sig":
            passed = [sigmoid(c) for c in other[at]]
        elif name == "silg":
            passed = [sigmoid(c) * c for c in other[at]]
        else:
            passed = [a * c for a, c in zip(softmax(other[at]), other[at], strict=True)]
        rows.append([one + more for one, more in zip(h, passed, strict=True)])
    return torch.tensor(rows)


def whole(vectors: Tensor) -> States:
    return States(vectors, torch.full((len(vectors),), vectors.shape[1]))


@pytest.mark.parametrize("name", ["sig", "silg", "sog", "cag"])
def test_gates_are_their_formulas(name: GateName) -> None:
    torch.manual_seed(0)
    gate = Gate(name, 4)
    own, other = torch.randn(2, 3, 4), torch.randn(2, 5 if name == "cag" else 3, 4)
    weight = gate.bilinear.weight if name == "cag" else torch.zeros(0)
    expected = torch.stack(
        [by_hand(name, own[at].tolist(), other[at].tolist(), weight) for at in range(2)]
    )
    torch.testing.assert_close(gate(whole(own), [whole(other)]), expected)
    of_two = gate(whole(own), [whole(other), whole(other)]) - own
    torch.testing.assert_close(of_two, 2 * (expected - own))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
def test_lengths_meet_at_both_ends(pairs: list[tuple[int, int]]) -> None:
    """Each text for itself, however far the batch is filled up."""
    own_lengths, lengths = (torch.tensor(one) for one in zip(*pairs, strict=True))
    own = States(torch.zeros(len(pairs), 9, 2), own_lengths)
    ramp = torch.arange(9.0).view(1, 9, 1).expand(len(pairs), 9, 2)
    aligned = align_length(States(ramp, lengths), own)[:, :, 0]
    for row, (length, others) in zip(aligned.tolist(), pairs, strict=True):
        assert not any(row[length:])
        for at, value in enumerate(row[:length]):
            begin, end = at * others // length, -(-(at + 1) * others // length)
            assert value == pytest.approx(sum(range(begin, end)) / (end - begin), abs=1e-5)


@pytest.mark.parametrize("name", ["sig", "silg", "sog", "cag"])
def test_filling_up_changes_nothing(name: GateName) -> None:
    torch.manual_seed(0)
    gate = Gate(name, 4)
    own, other = torch.randn(1, 3, 4), torch.randn(1, 5, 4)
    filled = [
        States(torch.cat([one, torch.randn(1, 2, 4)], dim=1), torch.tensor([one.shape[1]]))
        for one in (own, other)
    ]
    torch.testing.assert_close(
        gate(filled[0], [filled[1]])[:, :3], gate(whole(own), [whole(other)])
    )
    torch.testing.assert_close(cosine(*filled), cosine(whole(own), whole(other)))


def test_the_published_form_of_the_dense_level() -> None:
    own, other = torch.randn(2, 1, 5), torch.randn(2, 1, 5)
    names: tuple[GateName, ...] = ("sig", "sog", "cag")
    for name in names:
        found = PublishedDenseGate(name)(whole(own), [whole(other)])
        torch.testing.assert_close(found, own / (1 + torch.exp(-other)))
    found = PublishedDenseGate("silg")(whole(own), [whole(other)])
    torch.testing.assert_close(found, own + own / (1 + torch.exp(-own)))


def test_cosine_of_equal_and_of_orthogonal_states() -> None:
    own = torch.randn(3, 4, 6)
    assert cosine(whole(own), whole(2 * own)).item() == pytest.approx(1)
    first, second = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 3.0]]])
    assert cosine(whole(first), whole(second)).item() == pytest.approx(0)
