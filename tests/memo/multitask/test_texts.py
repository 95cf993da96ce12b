"""Texts of any length: words, windows of a backbone, and states that come back in their places."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from data_pipeline.clip import BadSampleError, Clip
from memo.model.memobert import MemoBert
from memo.multitask.excerpt import Excerpt
from memo.multitask.texts import (
    FrozenTokenStates,
    StateStore,
    TextTransform,
    TokenStates,
    WordStates,
    cut_pieces,
    cut_words,
    fill_up,
    in_windows,
)
from memo.tokenizer import train_sentencepiece
from memo.tokenizer.base import Tokenizer
from memo.words.encoders import WordEmbedding
from memo.words.vocabulary import Vocabulary
from tests.memo.model.packed import small_spec
from tests.memo.multitask.small_system import pack_texts

DIMS = (6, 5)
"""Of the small model's rows."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = ["the glad cat sat on the mat and the sad dog ran home again"] * 5
    return train_sentencepiece(texts, tmp_path_factory.mktemp("tokenizer"), 40)


@given(words=st.integers(1, 60), longest=st.integers(1, 50), window=st.integers(1, 9))
def test_windows_hold_the_first_pieces_in_order(
    words: int, longest: int, window: int, tokenizer: Tokenizer
) -> None:
    text = " ".join(["cat", "dog", "home"][at % 3] for at in range(words))
    found = cut_pieces(tokenizer, Excerpt(longest), window)(text)
    inside = [one for one in found.tolist() if one not in (tokenizer.cls_id, tokenizer.sep_id)]
    whole = tokenizer.encode(text).ids.tolist()
    assert inside == whole[: len(inside)]
    assert len(inside) <= longest
    assert len(found) == len(inside) + 2 * -(-len(inside) // window)
    starts = np.flatnonzero(found == tokenizer.cls_id)
    assert (np.diff([*starts, len(found)]) <= window + 2).all()


def test_a_text_in_windows_is_as_many_texts(tokenizer: Tokenizer) -> None:
    """The states of a long text are those of its windows, each read on its own."""
    spec = small_spec(vocab_size=tokenizer.vocab_size)
    model = MemoBert(spec).eval()
    texts = TokenStates(model, tokenizer.cls_id)
    cut = cut_pieces(tokenizer, Excerpt(30), 4)
    long, short = cut("the glad cat sat on the mat again"), cut("dog")
    states = texts(pack_texts([long.tolist(), short.tolist()], DIMS))
    assert states.lengths.tolist() == [len(long), len(short)]
    starts = [*np.flatnonzero(long == tokenizer.cls_id).tolist(), len(long)]
    windows = [long[a:b].tolist() for a, b in pairwise(starts)]
    assert len(windows) > 1
    alone = torch.cat([texts(pack_texts([window], DIMS)).vectors[0] for window in windows])
    torch.testing.assert_close(states.vectors[0], alone, atol=1e-5, rtol=1e-5)
    assert not states.vectors[1, len(short) :].any()


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5), more=st.integers(0, 2))
def test_rows_are_filled_up_as_torch_does(lengths: list[int], more: int) -> None:
    rows = torch.randn(sum(lengths), 3, generator=torch.Generator().manual_seed(0))
    rows.requires_grad_()
    longest = max(lengths) + more
    found = fill_up(rows, torch.tensor(lengths), longest)
    expected = pad_sequence(list(rows.split(lengths)), batch_first=True)
    expected = torch.nn.functional.pad(expected, (0, 0, 0, more))
    assert torch.equal(found, expected)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((one * weight).sum(), rows)[0] for one in (found, expected)]
    assert torch.equal(*gradients)


def test_no_texts_are_one_empty_text(tokenizer: Tokenizer) -> None:
    embedding = WordStates(WordEmbedding(torch.randn(5, 3), frozen=False))
    states = embedding(pack_texts([]))
    assert (states.vectors.shape, states.lengths.tolist()) == ((1, 1, 3), [1])
    states.vectors.sum().backward()
    backbone = TokenStates(MemoBert(small_spec()), 2)
    assert backbone(pack_texts([], DIMS)).vectors.shape == (1, 1, 32)
    assert in_windows(pack_texts([]), tokenizer.cls_id).seqlens == ()


def test_ten_thousand_words_are_cut_and_no_text_is_named() -> None:
    vocabulary = Vocabulary(["cat"])
    transform = TextTransform(cut_words(vocabulary, Excerpt(50)), np.array([[1]]), 0, 0)
    assert len(transform(Clip("a", text="cat " * 10_000), 0, 0).text_ids) == 50
    for text in (None, "", "  \n"):
        with pytest.raises(BadSampleError, match="has no text"):
            transform(Clip("a", text=text), 0, 0)


def frozen(room: int) -> FrozenTokenStates:
    torch.manual_seed(0)
    model = MemoBert(small_spec(dropout=0.5)).requires_grad_(requires_grad=False)
    return FrozenTokenStates(TokenStates(model, 2), None, StateStore(room))


def test_a_frozen_backbone_has_no_dropout_and_reads_a_text_once() -> None:
    texts, both = frozen(2**20), pack_texts([[2, 3, 4], [2, 5]], DIMS)
    assert torch.equal(frozen(0).train().rows(both), frozen(0).rows(both))
    plain = TokenStates(texts.backbone, 2).rows(both)
    first = texts.rows(both)
    torch.testing.assert_close(first, plain.half().float(), atol=0, rtol=0)
    texts.backbone.add_module("encoder", torch.nn.Identity())  # nothing can be read any more
    assert torch.equal(texts.rows(pack_texts([[2, 5], [2, 3, 4]], DIMS)), first[[3, 4, 0, 1, 2]])
    with pytest.raises(AttributeError):
        texts.rows(pack_texts([[2, 5], [2, 6]], DIMS))


def test_what_has_no_room_is_read_again() -> None:
    width, both = small_spec().hidden, pack_texts([[2, 3, 4], [2, 5]], DIMS)
    texts = frozen(3 * width * 2)  # of three tokens, in 16 bits
    assert torch.equal(texts.rows(both), texts.rows(both))
    assert torch.equal(texts.rows(both), frozen(0).rows(both))
    texts.backbone.add_module("encoder", torch.nn.Identity())
    assert len(texts.rows(pack_texts([[2, 3, 4]], DIMS))) == 3
    with pytest.raises(AttributeError):
        texts.rows(pack_texts([[2, 5]], DIMS))


def test_a_frozen_backbone_reads_nothing() -> None:
    assert frozen(100).rows(pack_texts([], DIMS)).shape == (0, small_spec().hidden)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_any_layer_of_a_frozen_backbone_can_be_read(layer: int) -> None:
    model, texts = MemoBert(small_spec()).eval(), pack_texts([[2, 3, 4]], DIMS)
    expected = model.states(texts)[layer].half().float()
    assert torch.equal(FrozenTokenStates(TokenStates(model, 2), layer, None).rows(texts), expected)
