"""What is read of a long text, against the definition said word by word."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memo.multitask.excerpt import Excerpt


def _fitting(lengths: list[int], room: int) -> int:
    """Pieces of the whole words, in order, that fit; of a first word that is too long a part."""
    taken = 0
    for length in lengths:
        if taken + length > room:
            break
        taken += length
    return taken or min(room, sum(lengths))


@given(lengths=st.lists(st.integers(1, 6), max_size=30), longest=st.integers(1, 40))
def test_head_and_tail_are_whole_words_of_both_ends(lengths: list[int], longest: int) -> None:
    words = np.repeat(np.arange(len(lengths)), lengths)
    total = len(words)
    found = Excerpt(longest, "head+tail").places(words).tolist()
    if total <= longest:
        assert found == list(range(total))
        return
    head = _fitting(lengths, longest // 4) if longest >= 4 else 0
    tail = _fitting(lengths[::-1], longest - head)
    assert found == [*range(head), *range(total - tail, total)]
    assert 0 < len(found) <= longest


@given(lengths=st.lists(st.integers(1, 6), max_size=30), longest=st.integers(1, 40))
def test_a_head_is_whole_words_of_the_beginning(lengths: list[int], longest: int) -> None:
    words = np.repeat(np.arange(len(lengths)), lengths)
    assert Excerpt(longest).places(words).tolist() == list(range(_fitting(lengths, longest)))
