"""Vectors of contractions, out of files that have their parts."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from memo.words.contractions import parts_of, with_parts
from memo.words.vectors import read_vectors, vector_table
from memo.words.vocabulary import UNKNOWN, Vocabulary, split_words

# By hand, after the Penn Treebank's guidelines.
PARTS = {
    "don't": ["do", "n't"],
    "can't": ["ca", "n't"],
    "won't": ["wo", "n't"],
    "wasn't": ["was", "n't"],
    "i'm": ["i", "'m"],
    "it's": ["it", "'s"],
    "you're": ["you", "'re"],
    "we've": ["we", "'ve"],
    "they'll": ["they", "'ll"],
    "she'd": ["she", "'d"],
    "couldn't've": ["could", "n't", "'ve"],
    "i'd've": ["i", "'d", "'ve"],
}
WHOLE = ["n't", "'s", "'tis", "nt", "s", "cannot", "o'clock", "o'reilly", "rock'n'roll", "5'10", ""]


@pytest.mark.parametrize("word", PARTS)
def test_contractions_are_cut_as_the_penn_treebank_cuts_them(word: str) -> None:
    assert parts_of(word) == PARTS[word]


@pytest.mark.parametrize("word", WHOLE)
def test_other_words_stay_whole(word: str) -> None:
    assert parts_of(word) == [word]


ROWS = {
    "do": [1.0, 2.0], "n't": [4.0, -2.0], "i": [0.5, 8.0], "'m": [-1.5, 0.0], "'d": [3.0, 3.0],
    "'ve": [2.5, 1.0], "can't": [7.0, 7.0], "good": [9.0, -9.0],
}  # fmt: skip
MEANS = {
    "do": [1.0, 2.0], "good": [9.0, -9.0],
    "can't": [7.0, 7.0], "can’t": [7.0, 7.0],
    "don't": [2.5, 0.0], "don’t": [2.5, 0.0],
    "i'm": [-0.5, 4.0], "i’m": [-0.5, 4.0],
    "i'd've": [2.0, 4.0],
}  # fmt: skip
"""By hand; a word that the file has whole is never cut."""
ABSENT = ["wasn't", "we've", "i's", "don'tcha", "unheard", "’"]
"""Not all of their parts are there, or they are none."""


def write_text(path: Path) -> None:
    lines = [" ".join([word, *map(str, row)]) for word, row in ROWS.items()]
    path.write_text("\n".join(lines) + "\n")


def write_binary(path: Path) -> None:
    rows = [word.encode() + b" " + struct.pack("<2f", *row) for word, row in ROWS.items()]
    path.write_bytes(f"{len(ROWS)} 2\n".encode() + b"\n".join(rows) + b"\n")


@pytest.mark.parametrize("write", [write_text, write_binary])
def test_a_contraction_has_the_mean_of_its_parts(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / "vectors")
    lookup = with_parts(read_vectors(tmp_path / "vectors"))
    found = {word: lookup(word) for word in MEANS}
    assert {word: one is not None and one.tolist() for word, one in found.items()} == MEANS
    assert {one.dtype for one in found.values() if one is not None} == {np.dtype(np.float32)}
    assert [lookup(word) for word in ABSENT] == [None] * len(ABSENT)


def test_the_words_of_a_text_meet_the_parts(tmp_path: Path) -> None:
    """As a run makes its table; what is drawn for the others does not change by it."""
    write_text(tmp_path / "vectors")
    lookup = read_vectors(tmp_path / "vectors")
    vocabulary = Vocabulary(split_words("Don't DON’T I'm unheard wasn't good"))
    table = vector_table(vocabulary, with_parts(lookup), 0.25, seed=3)
    known = [MEANS[word] for word in ("don't", "don’t", "i'm", "good")]
    assert table[[2, 3, 4, 7]].tolist() == known
    np.testing.assert_allclose(table[UNKNOWN], np.mean(known, axis=0))
    drawn = vector_table(vocabulary, lookup, 0.25, seed=3)[[5, 6]]
    assert table[[5, 6]].tolist() == drawn.tolist()


def test_a_file_with_all_words_gives_what_it_gave_to_the_bit(tmp_path: Path) -> None:
    write_binary(tmp_path / "vectors")
    lookup = read_vectors(tmp_path / "vectors")
    vocabulary = Vocabulary(list(ROWS))
    tables = [vector_table(vocabulary, one, 0.1, seed=0) for one in (lookup, with_parts(lookup))]
    assert tables[0].tobytes() == tables[1].tobytes()
