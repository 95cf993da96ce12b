"""Vocabularies, and vectors in every form of file."""

import struct
from pathlib import Path

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


def test_fasttext_makes_vectors_of_parts(tmp_path: Path) -> None:
    from gensim.models import FastText
    from gensim.models.fasttext import save_facebook_model

    texts = [["glad", "gladly", "sad", "sadly"]] * 5
    model = FastText(texts, vector_size=4, min_count=1, min_n=2, max_n=3, bucket=50, workers=1)
    save_facebook_model(model, str(tmp_path / "model.bin"))
    lookup = read_vectors(tmp_path / "model.bin")
    for word in ("gladly", "sadness"):
        np.testing.assert_allclose(lookup(word), model.wv[word], atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"no vectors here\n", b"3 3\nglad 1", as_binary()[:30]])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "vectors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="vectors holds no word vectors"):
        read_vectors(path)
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
