"""Vocabularies, and vectors in every form of file."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import UserError
from memo.words.vectors import read_vectors, train_vectors, vector_table
from memo.words.vocabulary import PAD, UNKNOWN, Vocabulary, split_words

TABLE = {"glad": [0.5, -1.0, 2.0], "sad": [1.5, 0.25, -3.0], "don't": [0.0, 1.0, 0.0]}


def test_words_are_cut_at_marks_but_not_at_apostrophes() -> None:
    assert split_words("Don't—it's GREAT :) a_b") == [
        "don't", "—", "it's", "great", ":", ")", "a", "_", "b",
    ]  # fmt: skip
    assert split_words("  \n") == []


@given(st.text())
def test_no_letter_is_lost(text: str) -> None:
    assert "".join(split_words(text)) == "".join(text.lower().split())


def test_the_most_frequent_words_come_first() -> None:
    vocabulary = Vocabulary.of(["b a c", "b a", "b d"], fewest=2)
    assert vocabulary.words == ("b", "a")
    assert len(vocabulary) == 4
    assert vocabulary.encode("a b c a") == [3, 2, UNKNOWN, 3]
    assert vocabulary.encode("") == [UNKNOWN]
    assert Vocabulary.of(["b a c"], most=2).words == ("a", "b")


def as_text(header: bool) -> bytes:
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in TABLE.items()]
    return "\n".join([*(["3 3"] if header else []), *lines, ""]).encode()


def as_binary() -> bytes:
    rows = (word.encode() + b" " + struct.pack("<3f", *row) + b"\n" for word, row in TABLE.items())
    return b"3 3\n" + b"".join(rows)


@pytest.mark.parametrize(
    "content",
    [as_text(header=False), as_text(header=True), as_binary()],
    ids=["glove", "w2v", "bin"],
)
def test_every_form_of_file_gives_the_same_vectors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(content)
    lookup = read_vectors(path)
    for word, row in TABLE.items():
        assert lookup(word).tolist() == row  # type: ignore[union-attr]
    assert lookup("unheard") is None


def write_fasttext(path: Path, spoiled: bool = False, **settings: int) -> Any:  # noqa: ANN401
    """A model of the words glad, gladly, sad and sadly; spoiled by a number that is none."""
    from gensim.models import FastText
    from gensim.models.fasttext import save_facebook_model

    texts = [["glad", "gladly", "sad", "sadly"]] * 5
    common = {"vector_size": 4, "min_count": 1, "min_n": 2, "max_n": 3, "bucket": 50, "workers": 1}
    model = FastText(texts, **(common | settings))
    if spoiled:
        model.wv.vectors_ngrams[7, 2] = np.nan
    save_facebook_model(model, str(path))
    return model


def test_fasttext_makes_vectors_of_parts(tmp_path: Path) -> None:
    model = write_fasttext(tmp_path / "model.bin")
    lookup = read_vectors(tmp_path / "model.bin")
    for word in ("gladly", "sadness"):
        np.testing.assert_allclose(lookup(word), model.wv[word], atol=1e-6)  # type: ignore[arg-type]


def test_fasttext_without_parts_knows_its_own_words(tmp_path: Path) -> None:
    model = write_fasttext(tmp_path / "model.bin", max_n=0, bucket=0)
    lookup = read_vectors(tmp_path / "model.bin")
    np.testing.assert_allclose(lookup("gladly"), model.wv["gladly"], atol=1e-6)  # type: ignore[arg-type]
    assert lookup("sadness") is None


def test_a_fasttext_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """In its head, in a word, where gensim waits for ever, and in its vectors."""
    write_fasttext(tmp_path / "model.bin")
    whole = (tmp_path / "model.bin").read_bytes()
    word = whole.index(b"sadly")
    for end in (4, 50, 91, 92, word + 2, word + 14, word + 20, 200, len(whole) // 2):
        (tmp_path / "cut.bin").write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"cut\.bin holds no word vectors"):
            read_vectors(tmp_path / "cut.bin")


def test_fasttext_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_fasttext(tmp_path / "model.bin", spoiled=True)
    with pytest.raises(UserError, match="not finite"):
        read_vectors(tmp_path / "model.bin")


SPACED = {". . .": [1.0, 2.0, 3.0], "at a@b.org": [4.0, 5.0, 6.0], "7 8": [7.0, 8.0, 9.0]}


@pytest.mark.parametrize("header", [b"", b"6 3\n"], ids=["glove", "w2v"])
def test_a_word_may_have_blanks_in_it(tmp_path: Path, header: bytes) -> None:
    """As in GloVe's 840B: the last columns are the vector, and a word's first line counts."""
    rows = {**SPACED, **TABLE}
    lines = [f"{word} {' '.join(map(str, row))} " for word, row in rows.items()]
    again = "" if header else "glad 0 0 0\n"
    (tmp_path / "vectors").write_bytes(header + "\n".join([*lines, again]).encode())
    lookup = read_vectors(tmp_path / "vectors")
    for word, row in rows.items():
        assert lookup(word).tolist() == row  # type: ignore[union-attr]
    assert lookup(".") is None


@pytest.mark.parametrize("word", ["g" * length for length in range(1, 7)])
def test_a_header_may_stand_before_long_lines(tmp_path: Path, word: str) -> None:
    (tmp_path / "vectors").write_text(f"1 1000\n{word}{' 1e-05' * 1000}\n")
    found = read_vectors(tmp_path / "vectors")(word)
    np.testing.assert_array_equal(found, np.full(1000, 1e-5, np.float32))


def with_number(number: float) -> bytes:
    """The binary form; the second vector has such a number."""
    good = as_binary()
    return good.replace(struct.pack("<f", 0.25), struct.pack("<f", number))


OTHERS = [
    (b"", "it is empty"),
    (b"no vectors here\n", "its lines do not end in numbers"),
    (b"glad\nsad\n", "its lines do not end in numbers"),
    (b"glad 1 2\nsad 1\n", "vector 2 has not 2 numbers behind a word"),
    (b"glad 1 2\nsad 1 x\n", "vector 2 has not 2 numbers behind a word"),
    (b"3 3\nglad 1", "vector 1 has not 3 numbers"),
    (b"3 3\n", "it has not 3 words with 3 numbers each"),
    (b"3 0\nglad\n", "it has not 3 words with 0 numbers each"),
    (b"4 3\n" + as_text(header=False), "it has 3 of 4 words"),
    (as_binary()[:30], "it has not 3 words with 3 numbers each"),
    (as_text(header=False).replace(b"0.25", b"nan"), "vector 2 has numbers that are not finite"),
    (as_text(header=True).replace(b"0.25", b"1e39"), "vector 2 has numbers that are not finite"),
    (with_number(float("nan")), "vector 2 has numbers that are not finite"),
    (with_number(float("-inf")), "vector 2 has numbers that are not finite"),
    (gzip.compress(as_text(header=False), mtime=0), "it is packed: unpack it"),
]


@pytest.mark.parametrize(("content", "reason"), OTHERS, ids=lambda value: str(value)[:20])
def test_other_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"vectors holds no word vectors \({reason}"):
        read_vectors(path)


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*absent"):
        read_vectors(tmp_path / "absent")


def test_trained_vectors_are_the_same_at_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the glad cat sat", "the sad cat sat", "a glad dog ran"] * 20
    found = []
    for name in ("one", "one", "other"):  # the second call reads what the first has written
        monkeypatch.setenv("MEMO_CACHE", str(tmp_path / name))
        found.append([train_vectors(texts, 8)(word) for word in ("glad", "cat", "unheard")])
    for again in found[1:]:
        np.testing.assert_array_equal(again[0], found[0][0])
        np.testing.assert_array_equal(again[1], found[0][1])
    assert found[0][2] is None
    assert len(list((tmp_path / "one" / "vectors").iterdir())) == 1
    other = train_vectors([*texts, "glad dog sat"], 8)("glad")
    assert other is not None
    assert found[0][0] is not None
    assert not np.array_equal(other, found[0][0])


def test_texts_without_a_word_that_occurs_twice_train_no_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path))
    for texts in (["the glad cat", "sat"], [""]):
        with pytest.raises(UserError, match="no word occurs twice in the training texts"):
            train_vectors(texts, 8)
    assert not list(tmp_path.rglob("*.bin"))


def test_the_table_has_a_vector_for_every_number() -> None:
    vocabulary = Vocabulary(["glad", "unheard", "sad"])
    vectors = {word: np.array(row, np.float32) for word, row in TABLE.items()}
    table = vector_table(vocabulary, vectors.get, 0.25, seed=0)
    assert table[PAD].tolist() == [0, 0, 0]
    assert (table[2].tolist(), table[4].tolist()) == (TABLE["glad"], TABLE["sad"])
    np.testing.assert_allclose(table[UNKNOWN], np.mean([TABLE["glad"], TABLE["sad"]], axis=0))
    assert (abs(table[3]) <= 0.25).all()
    assert table[3].any()
    with pytest.raises(UserError, match="not one word of the texts has a vector"):
        vector_table(Vocabulary(["x"]), vectors.get, 0.25, seed=0)
