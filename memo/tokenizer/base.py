"""What every tokenizer is: whitespace words, each cut into pieces on its own.

A whole word of the masking objective is a whitespace word with the punctuation that hangs on it,
in every vocabulary. WordPiece has no pieces that cross a space, nor has SentencePiece by default:
cutting word by word gives the pieces of cutting the text at once (unless two ways to cut a word
score the same), numbers the words exactly, and lets the pieces of frequent words be remembered.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.whole_file import write_atomically

_REMEMBERED_WORDS = 1 << 16
_LONGEST_REMEMBERED = 64
"""Characters; a "word" of a damaged text may have millions."""


@dataclass(frozen=True)
class TokenizedText:
    """A text as pieces, without [CLS] and [SEP].

    Attributes:
        ids: int64 (L,), the pieces' numbers in the vocabulary.
        word: int64 (L,), the whole word that each piece belongs to: 0, ascending, without a gap.
    """

    ids: NDArray[np.int64]
    word: NDArray[np.int64]


@dataclass(frozen=True)
class SpecialIds:
    """Numbers of the pieces that stand for no text."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


_SPECIAL_NAMES: Mapping[str, tuple[str, str]] = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}


def find_special_ids(vocabulary: Mapping[str, int]) -> SpecialIds:
    """Look the special pieces up by BERT's or XLM-R's names.

    Args:
        vocabulary: piece -> number.

    Raises:
        ValueError: one of them is missing.
    """
    found: dict[str, int] = {}
    for kind, names in _SPECIAL_NAMES.items():
        known = [vocabulary[name] for name in names if name in vocabulary]
        if not known:
            raise ValueError(f"it has no piece {names[0]} or {names[1]}")
        found[kind] = known[0]
    return SpecialIds(**found)


class Tokenizer(ABC):
    """A vocabulary and the way a text is cut into its pieces.

    A text never yields [PAD], [CLS], [SEP] or [MASK], even where it spells them.

    Attributes:
        vocab_size: how many rows an embedding table needs.
        pad_id, unk_id, cls_id, sep_id, mask_id: the special pieces.
        normal_ids: int64 (V,), ascending: the pieces that a random replacement may draw from.
        fingerprint: sha256 of the files that define the tokenizer; checkpoints carry it.

    Args:
        vocab_size: see above.
        special: numbers of the special pieces.
        normal_ids: see above.
        files: name -> content of the files that `load_tokenizer` reads this tokenizer back from.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        special: SpecialIds,
        normal_ids: Sequence[int],
        files: Mapping[str, bytes],
    ) -> None:
        self.vocab_size = vocab_size
        self.pad_id = special.pad
        self.unk_id = special.unk
        self.cls_id = special.cls
        self.sep_id = special.sep
        self.mask_id = special.mask
        self.normal_ids: NDArray[np.int64] = np.array(normal_ids, dtype=np.int64)  # (V,)
        self.fingerprint = hashlib.sha256(b"".join(files.values())).hexdigest()
        self._files = files
        self._silent = frozenset((special.pad, special.cls, special.sep, special.mask))
        self._remembered = lru_cache(_REMEMBERED_WORDS)(self._encode_word)

    def encode(self, text: str) -> TokenizedText:
        """Cut a text into pieces; a word that leaves none (a control character) is not counted."""
        words = [pieces for word in text.split() if (pieces := self._pieces(word))]
        return TokenizedText(
            ids=np.array([piece for word in words for piece in word], dtype=np.int64),
            word=np.array([n for n, word in enumerate(words) for _ in word], dtype=np.int64),
        )

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the pieces, as normalised, without [PAD], [CLS], [SEP] and [MASK]."""
        return self._join([int(number) for number in ids if int(number) not in self._silent])

    def count(self, text: str) -> int:
        """How many pieces `encode` gives."""
        return len(self.encode(text).ids)

    def save(self, folder: Path) -> None:
        """Write the files that `load_tokenizer(folder)` reads, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            write_atomically(folder / name, content)

    def _pieces(self, word: str) -> tuple[int, ...]:
        short = len(word) <= _LONGEST_REMEMBERED
        return self._remembered(word) if short else self._encode_word(word)

    def _encode_word(self, word: str) -> tuple[int, ...]:
        """Pieces of one word; lone surrogates, which JSON can spell and UTF-8 cannot, become ?."""
        pieces = self._cut(word.encode("utf8", "replace").decode("utf8"))
        return tuple(self.unk_id if piece in self._silent else piece for piece in pieces)

    @abstractmethod
    def _cut(self, word: str) -> list[int]:
        """Pieces of one whitespace word."""

    @abstractmethod
    def _join(self, ids: list[int]) -> str:
        """Text of pieces that are not special, except [UNK]."""
