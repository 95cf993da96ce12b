"""Word vectors: of GloVe, word2vec and fastText files, or trained on the task's own texts."""

import json
import struct
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cache_folder import cache_folder
from data_pipeline.errors import UserError
from memo.words.vocabulary import UNKNOWN, Vocabulary, split_words

Lookup = Callable[[str], NDArray[np.float32] | None]
"""Word -> its vector (D,), or None."""

FASTTEXT_MAGIC = 793_712_314
FORMAT = "skip-gram-1"
"""Of trained vectors in the cache; another way to train them gets another name."""


def read_vectors(path: Path) -> Lookup:
    """Vectors of a file; its form is seen from its content.

    GloVe and fastText text (a word a line), word2vec text (the same after a line with two counts),
    word2vec binary, and fastText binary, which also gives words that it has not seen a vector, made
    of their parts.

    Raises:
        UserError: there is no such file, or it is none of these.
    """
    if not path.is_file():
        raise UserError(f"--vectors: there is no {path}")
    with path.open("rb") as file:
        start = file.read(4096)
    try:
        if start[:4] == struct.pack("<i", FASTTEXT_MAGIC):
            return _fasttext(path)
        if not start:
            raise ValueError("it is empty")
        return _word2vec(path, start)
    except (ValueError, EOFError, struct.error, UnicodeDecodeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--vectors: {path} holds no word vectors ({reason})") from None


def _fasttext(path: Path) -> Lookup:
    from gensim.models.fasttext import load_facebook_vectors  # noqa: PLC0415  (slow to import)

    vectors = load_facebook_vectors(str(path))
    return lambda word: np.asarray(vectors[word], np.float32)


def _word2vec(path: Path, start: bytes) -> Lookup:
    from gensim.models import KeyedVectors  # noqa: PLC0415  (slow to import)

    first = start.partition(b"\n")[0].split()
    header = len(first) == 2 and all(one.isdigit() for one in first)
    binary = header and not _is_text(start)
    vectors = KeyedVectors.load_word2vec_format(str(path), binary=binary, no_header=not header)
    return _lookup(vectors)


def _is_text(start: bytes) -> bool:
    """Whether the line after the header is a word and numbers."""
    line = start.split(b"\n", 2)[1]
    try:
        return len([float(number) for number in line.split()[1:]]) > 0
    except ValueError:
        return False


def _lookup(vectors: Any) -> Lookup:  # noqa: ANN401  (gensim has no types)
    return lambda word: np.asarray(vectors[word], np.float32) if word in vectors else None


def train_vectors(texts: Iterable[str], width: int, epochs: int = 5) -> Lookup:
    """Skip-gram vectors of the words of some texts (Mikolov et al., 2013); the same at every call.

    They are kept in the cache's folder, under a hash of the texts.

    Args:
        texts: without labels, of any part but the test part.
        width: D.
        epochs: passes over the texts.
    """
    sentences = [split_words(text) for text in texts]
    content = json.dumps([FORMAT, width, epochs, sentences]).encode()
    path = cache_folder() / "vectors" / f"{sha256(content).hexdigest()}.bin"
    if not path.is_file():
        _train(sentences, width, epochs, path)
    return read_vectors(path)


def _train(sentences: list[list[str]], width: int, epochs: int, path: Path) -> None:
    """Write the vectors, whole or not at all."""
    from gensim.models import Word2Vec  # noqa: PLC0415  (slow to import)

    model = Word2Vec(
        sentences, vector_size=width, sg=1, min_count=2, workers=1, seed=1, epochs=epochs
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    model.wv.save_word2vec_format(str(temporary), binary=True)
    temporary.replace(path)


def vector_table(
    vocabulary: Vocabulary, lookup: Lookup, spread: float, seed: int
) -> NDArray[np.float32]:
    """A vector for every number of a vocabulary.

    A word without a vector is drawn uniformly from -spread..spread; PAD is zero, UNKNOWN the mean
    of the words that have one.

    Args:
        vocabulary: V numbers.
        lookup: the vectors.
        spread: for words that it does not know (0.25 in SoG, 0.1 in ASP-MTL).
        seed: of what is drawn.

    Returns:
        float32 (V, D).

    Raises:
        UserError: none of the words has one.
    """
    found = {number: lookup(word) for number, word in enumerate(vocabulary.words, UNKNOWN + 1)}
    known = {number: vector for number, vector in found.items() if vector is not None}
    if not known:
        raise UserError("--vectors: not one word of the texts has a vector; is it their language?")
    width = len(next(iter(known.values())))
    rng = np.random.default_rng(seed)
    table = rng.uniform(-spread, spread, (len(vocabulary), width)).astype(np.float32)
    table[0] = 0
    for number, vector in known.items():
        table[number] = vector
    table[UNKNOWN] = np.mean(list(known.values()), axis=0)
    return table
