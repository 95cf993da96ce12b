"""Contractions in files of word vectors, which have their parts: `don't` as `do` and `n't`."""

import re

import numpy as np
from numpy.typing import NDArray

from memo.words.vectors import Lookup

_ENDING = re.compile(r"(?<=.)(?:n't|'(?:s|m|re|ve|ll|d))$")
"""The last part of a contraction, behind something."""


def parts_of(word: str) -> list[str]:
    """A word in lower case, or the parts of a contraction as the Penn Treebank cuts it.

    `won't` is `wo` and `n't`, `i'd've` is `i`, `'d` and `'ve`.
    """
    endings = list[str]()
    while ending := _ENDING.search(word):
        endings.insert(0, ending[0])
        word = word[: ending.start()]
    return [word, *endings]


def with_parts(lookup: Lookup) -> Lookup:
    """Of a word that has no vector the mean of its parts', if all of them have one.

    Before, a word with typographic apostrophes is tried with those of a typewriter, which files
    have.
    """

    def find(word: str) -> NDArray[np.float32] | None:
        plain = word.replace("’", "'")
        for whole in (word, plain):
            if (vector := lookup(whole)) is not None:
                return vector
        found = [lookup(part) for part in parts_of(plain)]
        known = [vector for vector in found if vector is not None]
        return np.mean(known, axis=0, dtype=np.float32) if len(known) == len(found) else None

    return find
