"""How our own vocabularies normalise text: NFKC and case folding, but single Hangul letters stay.

SentencePiece's NFKC turns the compatibility letters of Korean laughter and tears into conjoining
ones and then joins them: "ㅋㅋㅋㅠㅠ" becomes "ㅋㅋ큐ㅠ". For emotion these are the most telling
characters of a text. Hence a table of our own; it is compiled into the model file.
"""

import sys
import unicodedata
from pathlib import Path

_SINGLE_LETTERS = range(0x3131, 0x318F)  # Hangul Compatibility Jamo
_SURROGATES = range(0xD800, 0xE000)
_ZERO_WIDTH_JOINER = "\u200d"  # holds composed emoji together


def write_rules(path: Path) -> None:
    """Write the table in SentencePiece's form: code points, a tab, the code points they become."""
    rules = normalization_rules().items()
    path.write_text("".join(f"{_hex(old)}\t{_hex(new)}\n" for old, new in rules), encoding="ascii")


def normalization_rules() -> dict[str, str]:
    """Characters, and sequences that compose to one -> their replacement, which may be empty."""
    rules: dict[str, str] = {}
    # From 1: SentencePiece's table cannot hold the character 0.
    for number in range(1, sys.maxunicode + 1):
        if number in _SURROGATES or number in _SINGLE_LETTERS:
            continue
        char = chr(number)
        folded = _fold(char)
        if folded != char:
            rules[char] = folded
        for spelling in _spellings(char):
            rules[spelling] = folded
    return rules


def _fold(char: str) -> str:
    if char.isspace():
        return " "
    if unicodedata.category(char) in {"Cc", "Cf"} and char != _ZERO_WIDTH_JOINER:
        return ""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold())


def _spellings(char: str) -> list[str]:
    """What Unicode composes to this character: its parts, and its last part after the others."""
    parts = unicodedata.normalize("NFD", char)
    if len(parts) == 1 or unicodedata.normalize("NFC", parts) != char:
        return []
    return [parts, unicodedata.normalize("NFC", parts[:-1]) + parts[-1]]


def _hex(text: str) -> str:
    return " ".join(f"{ord(char):X}" for char in text)
