"""A clip's text and rows as the model takes them: cut to the limits, of the right width."""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import BadSampleError
from memo.tokenizer import Tokenizer
from memo.tokenizer.base import TokenizedText


def cut_text(tokenizer: Tokenizer, text: str | None, limit: int) -> TokenizedText:
    """The pieces of a text, without [CLS] and [SEP]: the whole words that fit into the limit.

    Of a first word that is longer than the limit a part is kept.
    """
    pieces = tokenizer.encode(text or "")
    length = whole_words(pieces.word, limit)
    return TokenizedText(pieces.ids[:length], pieces.word[:length])


def whole_words(words: NDArray[np.int64], limit: int) -> int:
    """How many pieces to keep: the whole words within the limit, or a part of the first word."""
    if len(words) <= limit:
        return len(words)
    kept = int(np.searchsorted(words, words[limit]))  # where the first word that is cut begins
    return kept or limit


def cut_rows(
    member: str, rows: NDArray[np.float16] | None, limit: int, dim: int
) -> NDArray[np.float16]:
    """The first rows; (0, dim) if there are none.

    Args:
        member: suffix of the member that holds them, for messages.
        rows: (T, dim).
        limit: most rows.
        dim: of the model.

    Raises:
        BadSampleError: rows of another size than the model's.
    """
    if rows is None:
        return np.zeros((0, dim), dtype=np.float16)
    if rows.shape[1] != dim:
        raise BadSampleError(member, f"has rows of {rows.shape[1]}, not of {dim}")
    return rows[:limit]
