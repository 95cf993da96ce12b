"""Word vectors: of GloVe, word2vec and fastText files, or trained on the task's own texts."""

import json
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from itertools import islice, takewhile
from mmap import ACCESS_READ, mmap
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

FASTTEXT_MAGIC = struct.pack("<i", 793_712_314)
FASTTEXT_HEAD = struct.Struct("<14id3i2q")
"""Magic, version and settings; entries, words, labels, tokens, pruned parts."""
PACKED = (b"\x1f\x8b", b"PK\x03\x04")
"""How gzip and zip files begin."""
FORMAT = "skip-gram-1"
"""Of trained vectors in the cache; another way to train them gets another name."""
FEWEST = 2
"""Times that a word occurs for which a vector is trained."""
DAMAGE = (
    ValueError, EOFError, OverflowError, struct.error, AssertionError, NotImplementedError
)  # fmt: skip
"""What a file that is none of ours raises, here and in gensim."""
LONGEST_LINE = 1 << 20
"""Bytes of a line that tell the form of a file."""


def read_vectors(path: Path) -> Lookup:
    """Vectors of a file; its form is seen from its content.

    GloVe and fastText text (a word a line), word2vec text (the same after a line with two counts),
    word2vec binary, and fastText binary, which also gives words that it has not seen a vector, made
    of their parts.

    Raises:
        UserError: there is no such file, it is none of these, it is cut off, or has numbers that
            are not finite.
    """
    if not path.is_file():
        raise UserError(f"--vectors: there is no {path}")
    try:
        return _read(path)
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--vectors: {path} holds no word vectors ({reason})") from None


def _read(path: Path) -> Lookup:
    with path.open("rb") as file:
        first, second = file.readline(LONGEST_LINE), file.readline(LONGEST_LINE)
    if not first:
        raise ValueError("it is empty")
    if first.startswith(PACKED):
        raise ValueError("it is packed: unpack it")
    if first.startswith(FASTTEXT_MAGIC):
        return _fasttext(path)
    counts = first.split()
    if len(counts) != 2 or not all(one.isdigit() for one in counts):
        return _text(path, _numbers_behind(first), None)
    count, width = map(int, counts)
    if _numbers_behind(second) >= min(width, second.count(b" ")) > 0:
        return _text(path, width, count)
    return _binary(path, width, count)


def _numbers_behind(line: bytes) -> int:
    """How many numbers stand at the end of a line, behind a word."""
    columns = line.rstrip().split(b" ")[1:]
    return len(list(takewhile(_is_number, reversed(columns))))


def _is_number(column: bytes) -> bool:
    try:
        float(column)
    except ValueError:
        return False
    return True


def _text(path: Path, width: int, count: int | None) -> Lookup:
    """Of lines that end in so many numbers; the word is all that stands before, blanks and all.

    GloVe's 840B has such words (`. . .`). Of several lines with the same word the first counts.

    Args:
        path: the file.
        width: numbers of a line.
        count: lines that follow the first, which has the counts; None: there is no such line.
    """
    if not width:
        raise ValueError("its lines do not end in numbers")
    numbers, places = array("f"), dict[str, int]()
    with path.open("rb") as file:
        for at, line in enumerate(file if count is None else islice(file, 1, count + 1)):
            word, *row = line.rstrip().rsplit(b" ", width)
            try:
                numbers.extend(map(float, row))
            except ValueError:
                row = []
            if len(row) < width:
                raise ValueError(f"vector {at + 1} has not {width} numbers behind a word")
            places.setdefault(word.decode(), at)
    table = np.frombuffer(numbers, np.float32).reshape(-1, width)
    if len(table) < (count or 0):
        raise EOFError(f"it has {len(table)} of {count} words")
    _check_finite(table)
    return lambda word: table[places[word]] if word in places else None


def _binary(path: Path, width: int, count: int) -> Lookup:
    from gensim.models import KeyedVectors  # noqa: PLC0415  (slow to import)

    if not width * count or path.stat().st_size < count * (1 + 4 * width):
        raise EOFError(f"it has not {count} words with {width} numbers each")
    vectors = KeyedVectors.load_word2vec_format(str(path), binary=True)
    _check_finite(vectors.vectors)
    return _lookup(vectors)


def _fasttext(path: Path) -> Lookup:
    from gensim.models.fasttext import load_facebook_vectors  # noqa: PLC0415  (slow to import)

    _check_fasttext(path)
    vectors = load_facebook_vectors(str(path))
    _check_finite(vectors.vectors)
    _check_finite(vectors.vectors_ngrams)
    return _lookup(vectors)


def _check_fasttext(path: Path) -> None:
    """Refuse a file that is cut off, in which gensim would look for the end of a word for ever."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        *_, entries, _, _, _, pruned = FASTTEXT_HEAD.unpack_from(content)
        at = FASTTEXT_HEAD.size
        for _ in range(entries):
            end = content.find(b"\0", at)
            if end < 0:
                raise EOFError("it is cut off")
            at = end + 1 + struct.calcsize("<qb")  # its count and its kind
        at += max(pruned, 0) * struct.calcsize("<2i")
        quantised, rows, width = struct.unpack_from("<?2q", content, at)
        if quantised:
            raise ValueError("it is quantised")
        if len(content) < at + struct.calcsize("<?2q") + 4 * rows * width:
            raise EOFError("it is cut off")


def _check_finite(table: NDArray[np.float32]) -> None:
    """Minimum and maximum tell without a second table."""
    if np.isfinite([table.min(initial=0), table.max(initial=0)]).all():
        return
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    raise ValueError(f"vector {bad[0] + 1} has numbers that are not finite")


def _lookup(vectors: Any) -> Lookup:  # noqa: ANN401  (gensim has no types)
    return lambda word: np.asarray(vectors[word], np.float32) if word in vectors else None


def train_vectors(texts: Iterable[str], width: int, epochs: int = 5) -> Lookup:
    """Skip-gram vectors of the words of some texts (Mikolov et al., 2013); the same at every call.

    They are kept in the cache's folder, under a hash of the texts.

    Args:
        texts: without labels, of any part but the test part.
        width: D.
        epochs: passes over the texts.

    Raises:
        UserError: no word occurs twice.
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

    counts = Counter(word for sentence in sentences for word in sentence)
    if max(counts.values(), default=0) < FEWEST:
        raise UserError(
            "words.vectors: no word occurs twice in the training texts, so that none can be "
            "trained; give a file, by --vectors"
        )
    model = Word2Vec(
        sentences, vector_size=width, sg=1, min_count=FEWEST, workers=1, seed=1, epochs=epochs
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
