"""What of a long text is read: its beginning, or its beginning and its end."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from memo.model.inputs import whole_words

Truncation = Literal["head", "head+tail"]
HEAD: Final = "head"
HEAD_OF_BOTH = 4
"""One of so many parts of "head+tail" is the head."""


@dataclass(frozen=True)
class Excerpt:
    """How a text is cut.

    "head+tail" keeps the first quarter of what may be read from the text's beginning and the rest
    from its end, where reviews have their verdict (Sun et al., "How to Fine-Tune BERT for Text
    Classification?", 2019, section 5.3.1, which takes 128 and 382 pieces).

    Attributes:
        longest: words, or pieces of a backbone's tokenizer, that are read.
        truncation: where a longer text is cut.
    """

    longest: int
    truncation: Truncation = HEAD

    def places(self, words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which pieces are read: those of whole words within `longest`, at each end.

        Args:
            words: (L,), number of the word that each piece is of, ascending.

        Returns:
            int64 (l,), ascending, l <= `longest`.
        """
        if len(words) <= self.longest:
            return np.arange(len(words))
        if self.truncation == HEAD:
            return np.arange(whole_words(words, self.longest))
        head = whole_words(words, self.longest // HEAD_OF_BOTH)
        tail = whole_words(words[-1] - words[::-1], self.longest - head)
        return np.concatenate([np.arange(head), np.arange(len(words) - tail, len(words))])
