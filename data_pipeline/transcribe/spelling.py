"""Written words -> how they are spelled for a dictionary or a vocabulary of letters."""

import unicodedata
from collections.abc import Container

_APOSTROPHES = str.maketrans("’‘ʼ＇", "''''")


def written_words(text: str) -> list[str]:
    """The words of a text as they stand in it; dashes and other signs alone are none."""
    return [word for word in text.split() if any(map(str.isalnum, word))]


def dictionary_words(word: str, dictionary: Container[str]) -> list[str] | None:
    """The entries of a dictionary in lower case that a written word is made of.

    Punctuation around it is left out, unless the dictionary has it (`'cause`, `u.s.`); a word with
    hyphens may be several entries.

    Args:
        word: as it is written.
        dictionary: tells of a string whether it has it.

    Returns:
        One or more entries; None if there are none, as of most names and of numbers in digits.
    """
    spelled = _plain(word).lower()
    if entry := _entry(spelled, dictionary):
        return [entry]
    parts = [part for part in spelled.split("-") if any(map(str.isalnum, part))]
    entries = [entry for part in parts if (entry := _entry(part, dictionary))]
    return entries if len(parts) > 1 and len(entries) == len(parts) else None


def _plain(word: str) -> str:
    """One form of each letter, and one apostrophe."""
    return unicodedata.normalize("NFC", word).translate(_APOSTROPHES)


def _entry(spelled: str, dictionary: Container[str]) -> str | None:
    """The first form in the dictionary: with all punctuation, with apostrophes, with none."""
    forms = (spelled, _strip(spelled, "'"), _strip(spelled, ""))
    return next((form for form in forms if form in dictionary), None)


def _strip(spelled: str, but: str) -> str:
    """Without signs at its ends, except some."""
    kept = [at for at, sign in enumerate(spelled) if sign.isalnum() or sign in but]
    return spelled[kept[0] : kept[-1] + 1] if kept else ""


def letters_of(word: str, vocabulary: Container[str]) -> str | None:
    """A written word in the letters of a vocabulary, in the case that it has.

    Args:
        word: as it is written.
        vocabulary: tells of a letter whether it has it.

    Returns:
        Its letters, without the signs that the vocabulary lacks; None if it lacks a letter or a
        digit.
    """
    spelled = ""
    for letter in _plain(word):
        forms = (letter, letter.upper(), letter.lower())
        known = next((form for form in forms if form in vocabulary), "")
        if not known and letter.isalnum():
            return None
        spelled += known
    return spelled or None
