"""What a stack of layers is given, and what it gives back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memo.model.encoder import Encoder, even_rows
from tests.memo.model.packed import small_spec


@given(rows=st.integers(1, 20_000))
def test_few_numbers_of_rows_in_bf16(rows: int) -> None:
    hidden = torch.zeros(rows, 1, dtype=torch.bfloat16)
    filled = len(even_rows(hidden))
    assert rows <= filled <= max(rows * 1.125, rows + 31)
    assert filled % 32 == 0
    assert len(even_rows(hidden.float())) == rows


def test_there_are_eight_numbers_of_rows_between_powers_of_two() -> None:
    rows = torch.zeros(8192, 1, dtype=torch.bfloat16)
    assert len({len(even_rows(rows[:count])) for count in range(4097, 8193)}) == 8


def test_nothing_stays_nothing() -> None:
    assert len(even_rows(torch.zeros(0, 4, dtype=torch.bfloat16))) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_those_of_the_tokens_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = Encoder(small_spec()).to(dtype).eval()
    seqlens = (17, 30)
    hidden = torch.randn(47, small_spec().hidden).to(dtype)
    states = encoder.states(hidden, torch.tensor([0, 17, 47], dtype=torch.int32), seqlens)
    for begin, end in ((0, 17), (17, 47)):
        own = hidden[begin:end]
        alone = encoder.states(own, torch.tensor([0, len(own)]).int(), (len(own),))
        for whole, part in zip(states, alone, strict=True):
            assert len(whole) == len(hidden)
            torch.testing.assert_close(whole[begin:end], part, atol=0.06, rtol=0)
