"""Gates against their formulas written out number by number."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memo.heads.gates import Gate, GateName, PublishedDenseGate, align_length, cosine


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


@pytest.mark.parametrize("name", ["sig", "silg", "sog", "cag"])
def test_gates_are_their_formulas(name: GateName) -> None:
    torch.manual_seed(0)
    gate = Gate(name, 4)
    lengths = (3, 5) if name == "cag" else (3, 3)
    own, other = (torch.randn(2, length, 4) for length in lengths)
    weight = gate.bilinear.weight if name == "cag" else torch.zeros(0)
    expected = torch.stack(
        [by_hand(name, own[at].tolist(), other[at].tolist(), weight) for at in range(2)]
    )
    torch.testing.assert_close(gate(own, other), expected)


@given(st.integers(1, 9), st.integers(1, 9))
def test_lengths_meet_at_both_ends(length: int, others: int) -> None:
    other = torch.arange(float(others)).view(1, others, 1).expand(1, others, 2)
    aligned = align_length(other, length)[0, :, 0].tolist()
    assert len(aligned) == length
    for at, value in enumerate(aligned):
        begin, end = at * others // length, -(-(at + 1) * others // length)
        assert value == pytest.approx(sum(range(begin, end)) / (end - begin))


def test_the_published_form_of_the_dense_level() -> None:
    own, other = torch.randn(2, 1, 5), torch.randn(2, 1, 5)
    for name in ("sig", "sog", "cag"):
        found = PublishedDenseGate(name)(own, other)
        torch.testing.assert_close(found, own / (1 + torch.exp(-other)))
    torch.testing.assert_close(
        PublishedDenseGate("silg")(own, other), own + own / (1 + torch.exp(-own))
    )


def test_cosine_of_equal_and_of_orthogonal_states() -> None:
    own = torch.randn(3, 4, 6)
    assert cosine(own, 2 * own).item() == pytest.approx(1)
    first = torch.tensor([[[1.0, 0.0]]])
    assert cosine(first, torch.tensor([[[0.0, 3.0]]])).item() == pytest.approx(0)
