import pytest

from data_pipeline.transcribe.spelling import dictionary_words, letters_of, written_words

DICTIONARY = {"hello", "don't", "'cause", "u.s.", "dogs", "twenty", "three", "x-ray", "i", "naïve"}


@pytest.mark.parametrize(
    ("word", "entries"),
    [
        ("Hello,", ["hello"]),
        ("“HELLO!”", ["hello"]),
        ("don’t", ["don't"]),
        ("'Cause", ["'cause"]),
        ("U.S.", ["u.s."]),
        ("dogs'", ["dogs"]),
        ("'hello'", ["hello"]),
        ("Twenty-three.", ["twenty", "three"]),
        ("X-ray", ["x-ray"]),
        ("hello-", ["hello"]),
        ("nai\u0308ve", ["naïve"]),
        ("23", None),
        ("Zbigniew", None),
        ("twenty-Zbigniew", None),
        ("안녕", None),
        ("h\0ello", None),
    ],
)
def test_a_written_word_is_found_in_the_dictionary(word: str, entries: list[str] | None) -> None:
    assert dictionary_words(word, DICTIONARY) == entries


@pytest.mark.parametrize(
    ("word", "letters"),
    [("Don’t,", "DON'T"), ("twenty-three", "TWENTYTHREE"), ("23", None), ("né", None), ("_a", "A")],
)
def test_a_written_word_is_spelled_in_the_vocabularys_letters(
    word: str, letters: str | None
) -> None:
    assert letters_of(word, set("ABDEHNORTWYM'")) == letters


def test_letters_keep_the_case_that_the_vocabulary_has() -> None:
    assert letters_of("Ab", set("ab")) == "ab"
    assert letters_of("Ab", set("abAB")) == "Ab"
    assert letters_of("안녕", set("안녕")) == "안녕"


def test_signs_alone_are_no_words() -> None:
    assert written_words(' So - "what" … 4 ♪ ') == ["So", '"what"', "4"]
    assert written_words("") == written_words(" ... ") == []
