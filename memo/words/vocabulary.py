"""Words of a task's texts and their numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

PAD = 0
"""Fills a batch; its vector is zero."""
UNKNOWN = 1
"""Stands for every word that is not in the vocabulary."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


def split_words(text: str) -> list[str]:
    """Words in lower case, a mark each; an apostrophe inside a word belongs to it."""
    return _WORD.findall(text.lower())


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word of some texts occurs."""
    return Counter(word for text in texts for word in split_words(text))


class Vocabulary:
    """Words in the order of their numbers, which begin at 2.

    Args:
        words: without repetition.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._numbers = {word: at for at, word in enumerate(words, start=UNKNOWN + 1)}

    @classmethod
    def of(cls, texts: Iterable[str], fewest: int = 1, most: int | None = None) -> "Vocabulary":
        """The words of some texts, the most frequent first, equals by the alphabet.

        Args:
            texts: of the training part, and unlabelled ones.
            fewest: a word must occur so often.
            most: so many words at most.
        """
        return cls.counted(count_words(texts), fewest, most)

    @classmethod
    def counted(
        cls, counts: Mapping[str, int], fewest: int = 1, most: int | None = None
    ) -> "Vocabulary":
        """Words of which is known how often they occur; see `of`."""
        frequent = [(-count, word) for word, count in counts.items() if count >= fewest]
        return cls([word for _, word in sorted(frequent)[:most]])

    def __len__(self) -> int:
        """Numbers in use, PAD and UNKNOWN included."""
        return len(self.words) + UNKNOWN + 1

    def number(self, word: str) -> int:
        """Of a word; UNKNOWN if it is not there."""
        return self._numbers.get(word, UNKNOWN)

    def encode(self, text: str) -> list[int]:
        """Numbers of the words of a text; one UNKNOWN of a text without words."""
        return [self.number(word) for word in split_words(text)] or [UNKNOWN]
