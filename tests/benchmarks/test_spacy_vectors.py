import numpy as np
import pytest

from benchmarks.spacy_vectors import hash_word, vectors_of


@pytest.mark.parametrize(
    ("word", "number"), [("coffee", 3197928453018144401), ("apple", 8566208034543834098)]
)
def test_words_have_the_numbers_of_spacy_s_manual(word: str, number: int) -> None:
    assert hash_word(word) == number


def test_a_contraction_has_the_mean_of_its_parts() -> None:
    table = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]], dtype=np.float32)
    rows = {hash_word(word): row for row, word in enumerate(("do", "n't", "can't"))}
    found = dict(vectors_of(["do", "don’t", "can’t", "won't", "unheard"], rows, table))
    assert {word: one.tolist() for word, one in found.items()} == {
        "do": [1, 0],
        "don’t": [2, 1],
        "can’t": [5, 5],
    }
