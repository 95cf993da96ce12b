"""How much of a vocabulary a file of word vectors has."""

from collections.abc import Mapping
from dataclasses import dataclass

from memo.words.vectors import Lookup
from memo.words.vocabulary import Vocabulary


@dataclass(frozen=True)
class Coverage:
    """Words of a vocabulary that have a vector.

    Attributes:
        words: of the vocabulary.
        found: of these, those that have one, or whose parts have.
        share: of the occurrences of all of them, 0..1.
    """

    words: int
    found: int
    share: float

    def __str__(self) -> str:
        """For people."""
        of_texts = f"{100 * self.share:.1f} % of their occurrences"
        return f"{self.found:,} of {self.words:,} words of the training texts ({of_texts})"


def coverage_of(vocabulary: Vocabulary, counts: Mapping[str, int], lookup: Lookup) -> Coverage:
    """What vectors there are for the words of some texts.

    Args:
        vocabulary: the words that count; the others are all one unknown word anyway.
        counts: how often each of them occurs.
        lookup: the vectors.
    """
    found = [word for word in vocabulary.words if lookup(word) is not None]
    occurrences = sum(counts[word] for word in vocabulary.words)
    share = sum(counts[word] for word in found) / max(occurrences, 1)
    return Coverage(len(vocabulary.words), len(found), share)
