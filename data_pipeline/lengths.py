"""How many tokens each sample has, known to every rank without communication.

Face and speech rows stand in the shards' indexes. Text is stored raw, so its pieces are counted
with the run's tokenizer, a shard at a time when first needed, and kept on disk per (shard,
tokenizer) for later runs.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cache_folder import cache_folder
from data_pipeline.clip import BadSampleError
from data_pipeline.shards.reader import Split


@dataclass(frozen=True)
class LengthLimits:
    """What is longer is cut.

    Attributes:
        text: pieces, without [CLS] and [SEP].
        face: rows.
        speech: rows.
    """

    text: int
    face: int
    speech: int

    @property
    def longest(self) -> int:
        """Tokens of the longest possible sequence, with [CLS] and [SEP]."""
        return self.text + 2 + self.face + self.speech


class TokenLengths:
    """Tokens of each sample of a split.

    Args:
        split: the samples.
        count: pieces of a text.
        tokenizer_fingerprint: names the tokenizer in the cache.
        limits: what is longer is cut.

    Attributes:
        longest: no sequence is longer, in tokens.
    """

    def __init__(
        self,
        split: Split,
        count: Callable[[str], int],
        tokenizer_fingerprint: str,
        limits: LengthLimits,
    ) -> None:
        self._split = split
        self._count = count
        self._limits = limits
        self.longest = limits.longest
        self._folder = cache_folder() / "lengths" / tokenizer_fingerprint[:32]
        self._ends = np.cumsum(split.shard_sizes)  # (shards,)
        self._known: dict[int, NDArray[np.int64]] = {}

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of `[CLS] text [SEP] face speech`; an upper bound where parts are left out.

        Args:
            samples: int64 (n,).

        Returns:
            int64 (n,).
        """
        shards = np.searchsorted(self._ends, samples, side="right")
        firsts = self._ends - self._split.shard_sizes
        tokens = np.empty_like(samples)
        for shard in np.unique(shards).tolist():
            chosen = shards == shard
            tokens[chosen] = self._of_shard(shard)[samples[chosen] - firsts[shard]]
        return tokens

    def _of_shard(self, shard: int) -> NDArray[np.int64]:
        """Tokens of every sample of a shard."""
        if shard not in self._known:
            rows = self._split.lengths(shard)
            pieces = self._pieces(shard)
            text = np.where(pieces > 0, np.minimum(pieces, self._limits.text) + 2, 0)
            face = np.minimum(rows.face, self._limits.face)
            speech = np.minimum(rows.speech, self._limits.speech)
            self._known[shard] = (text + face + speech).astype(np.int64)
        return self._known[shard]

    def _pieces(self, shard: int) -> NDArray[np.int32]:
        """Text pieces of every sample of a shard, from the cache or counted now."""
        path = self._folder / f"{self._split.shards[shard].sha256}.counts"
        pieces = _load(path)
        if pieces is None or len(pieces) != self._split.shard_sizes[shard]:
            counts = self._count_shard(shard)
            pieces = np.array([count or 0 for count in counts], dtype=np.int32)
            if None not in counts:  # the tar may be mended, and has the same hash then
                _save(path, pieces)
        return pieces

    def _count_shard(self, shard: int) -> list[int | None]:
        """Pieces of each text; None of a broken sample, which is reported when it is read."""
        first = int(self._ends[shard] - self._split.shard_sizes[shard])
        return [self._count_sample(sample) for sample in range(first, int(self._ends[shard]))]

    def _count_sample(self, sample: int) -> int | None:
        try:
            return self._count(self._split.read_text(sample) or "")
        except BadSampleError:
            return None


def _load(path: Path) -> NDArray[np.int32] | None:
    """The counts in a cache file; None if it is missing or damaged.

    A flipped bit would give this rank another plan than the others, and the run would hang: hence
    the checksum.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, counts = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(counts).digest() != digest:
        return None
    return np.frombuffer(counts, dtype="<i4").astype(np.int32)


def _save(path: Path, pieces: NDArray[np.int32]) -> None:
    """Write the counts, whole or not at all; without a writable cache the run goes on without."""
    counts = pieces.astype("<i4").tobytes()
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(hashlib.sha256(counts).digest() + counts)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


_DIGEST_BYTES = hashlib.sha256().digest_size
