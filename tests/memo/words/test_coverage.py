"""How many words have a vector."""

import numpy as np

from memo.words.contractions import with_parts
from memo.words.coverage import Coverage, coverage_of
from memo.words.vocabulary import Vocabulary, count_words

VECTORS = {word: np.ones(2, np.float32) for word in ("do", "n't", "cat", "once", "elsewhere")}


def test_words_and_their_occurrences_are_counted() -> None:
    """Those that the vocabulary leaves out (`once`) do not count, nor those of other texts."""
    counts = count_words(["The cat, the dog.", "Don't! The cat don't."] * 2 + ["once"])
    vocabulary = Vocabulary.counted(counts, fewest=2)
    assert set(vocabulary.words) == {"the", "cat", "don't", ",", ".", "!", "dog"}
    parted = coverage_of(vocabulary, counts, with_parts(VECTORS.get))
    assert parted == Coverage(words=7, found=2, share=(4 + 4) / (6 + 4 + 4 + 2 + 4 + 2 + 2))
    whole = coverage_of(vocabulary, counts, VECTORS.get)
    assert whole == Coverage(words=7, found=1, share=4 / 24)
    assert str(whole) == "1 of 7 words of the training texts (16.7 % of their occurrences)"


def test_texts_without_words_have_none() -> None:
    assert coverage_of(Vocabulary([]), {}, VECTORS.get) == Coverage(0, 0, 0)
