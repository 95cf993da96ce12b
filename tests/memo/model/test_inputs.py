"""Rows of two bytes as the model takes them."""

import numpy as np
import pytest

from memo.model.inputs import PIECE, to_float32

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)


def test_every_number_is_the_one_that_numpy_has() -> None:
    """More of them than one piece; among them the smallest, infinity and what is no number."""
    assert len(EVERY) > 2 * PIECE
    found = to_float32(EVERY.reshape(256, 256))
    assert found.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(found, EVERY.astype(np.float32).reshape(256, 256))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (1, 1), (75, 342)])
def test_what_is_not_to_be_written_to_can_be_read(shape: tuple[int, int]) -> None:
    content = np.random.default_rng(0).normal(size=shape).astype(np.float16).tobytes()
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float16]] = np.frombuffer(content, np.float16)
    found = to_float32(rows.reshape(shape))
    assert found.tobytes() == rows.astype(np.float32).tobytes()
    found += 1  # its own memory
