"""Encoders: text by text they give what they give in a batch, and what is written out by hand."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from memo.words.encoders import (
    Pooling,
    WordCnn,
    WordEmbedding,
    WordLstm,
    pool_words,
)

TEXTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=4)


class Words(NamedTuple):
    numbers: Tensor
    lengths: Tensor


def fill_up(texts: Sequence[Sequence[int]]) -> Words:
    rows = [torch.tensor(text) for text in texts]
    return Words(pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]))


def embedding() -> WordEmbedding:
    torch.manual_seed(0)
    return WordEmbedding(torch.randn(10, 6), frozen=True)


@settings(max_examples=30)
@given(TEXTS)
def test_filling_up_changes_nothing(texts: list[list[int]]) -> None:
    table = embedding()
    cnn, lstm = WordCnn(6, (1, 2, 3), 4), WordLstm(6, 5, layers=2, both=True)
    words = fill_up(texts)
    assert words.lengths.tolist() == [len(text) for text in texts]
    vectors = table(words.numbers)
    maps, last = cnn(vectors, words.lengths), lstm(vectors, words.lengths)
    for at, text in enumerate(texts):
        alone = fill_up([text])
        of_one = table(alone.numbers)
        for found, own in zip(maps, cnn(of_one, alone.lengths), strict=True):
            torch.testing.assert_close(found[at, : len(text)], own[0])
            assert not found[at, len(text) :].any()
        torch.testing.assert_close(last[at], lstm(of_one, alone.lengths)[0])
        for how in ("max", "mean", "min"):
            pooled = pool_words(maps[0], words.lengths, how)
            torch.testing.assert_close(
                pooled[at], pool_words(cnn(of_one, alone.lengths)[0], alone.lengths, how)[0]
            )


@given(st.lists(st.integers(1, 9), min_size=33, max_size=70))
@settings(max_examples=10)
def test_an_lstm_reads_many_texts_as_it_reads_each(lengths: list[int]) -> None:
    torch.manual_seed(0)
    lstm, vectors = WordLstm(3, 2, both=True), torch.randn(len(lengths), 9, 3)
    found = lstm(vectors, torch.tensor(lengths))
    for at, length in enumerate(lengths):
        alone = lstm(vectors[at : at + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(found[at], alone[0])


@pytest.mark.parametrize("size", [1, 3])
def test_a_filter_sees_its_words(size: int) -> None:
    table, cnn = embedding(), WordCnn(6, (size,), 2)
    vectors = table(torch.tensor([[1, 2, 3, 4]]))
    (found,) = cnn(vectors, torch.tensor([4]))
    weights, bias = cnn.convolutions[0].parameters()
    weight = weights.reshape(2, 6, size)
    rows = [*vectors[0], torch.zeros(6), torch.zeros(6)]
    for at in range(4):
        window = torch.stack(rows[at : at + size])  # (size, 6)
        expected = [max(0.0, ((weight[f].T * window).sum() + bias[f]).item()) for f in range(2)]
        assert found[0, at].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("how", "expected"), [("max", 3.0), ("mean", 1.0), ("min", -1.0)])
def test_pooling_takes_the_text_alone(how: Pooling, expected: float) -> None:
    states = torch.tensor([[[1.0], [3.0], [-1.0], [99.0]]])
    assert pool_words(states, torch.tensor([3]), how).item() == expected


def test_both_directions_are_those_of_torch_on_packed_texts() -> None:
    table, lstm = embedding(), WordLstm(6, 5, both=True)
    reference = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    for suffix, direction in zip(("", "_reverse"), lstm.directions, strict=True):
        for name, parameter in direction.named_parameters():
            getattr(reference, name + suffix).data.copy_(parameter)
    words = fill_up([[1, 2, 3, 4], [5], [6, 7]])
    vectors = table(words.numbers)
    packed = pack_padded_sequence(vectors, words.lengths, batch_first=True, enforce_sorted=False)
    _, (last, _) = reference(packed)  # (2, 3, 5)
    torch.testing.assert_close(lstm(vectors, words.lengths), torch.cat([*last], dim=1))
    assert lstm.width == 10


def test_stacked_layers_are_those_of_torch_on_packed_texts() -> None:
    table, lstm = embedding(), WordLstm(6, 5, layers=2)
    (direction,) = lstm.directions
    reference = nn.LSTM(6, 5, num_layers=2, batch_first=True)
    reference.load_state_dict(direction.state_dict())
    words = fill_up([[1, 2, 3, 4], [5], [6, 7]])
    vectors = table(words.numbers)
    packed = pack_padded_sequence(vectors, words.lengths, batch_first=True, enforce_sorted=False)
    _, (last, _) = reference(packed)  # (2, 3, 5), the upper layer's last
    torch.testing.assert_close(lstm(vectors, words.lengths), last[1])
    assert lstm.width == 5


def test_forget_gates_begin_open() -> None:
    """On words of zeros a cell keeps sigmoid(1) of its state at every step."""
    lstm = WordLstm(6, 5).directions[0]
    assert isinstance(lstm, nn.LSTM)
    weights = [one for name, one in lstm.named_parameters() if "weight" in name]
    with torch.no_grad():
        for one in weights:
            one.zero_()
        start = torch.zeros(1, 1, 5), torch.ones(1, 1, 5)
        _, (_, cells) = lstm(torch.zeros(1, 3, 6), start)
    torch.testing.assert_close(
        cells, torch.full((1, 1, 5), torch.tensor(1.0).sigmoid().item() ** 3)
    )


def test_frozen_vectors_stay() -> None:
    for frozen in (True, False):
        table = WordEmbedding(torch.randn(4, 3), frozen)
        assert table.table.weight.requires_grad == (not frozen)
