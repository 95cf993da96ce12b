"""How many tokens each sample has, known to every rank without communication.

Face and speech rows stand in the shards' indexes. Text is stored raw, so its pieces are counted
with the run's tokenizer when first needed, and kept on disk per (shard, tokenizer) for later runs
as soon as a shard's are all known.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cache_folder import cache_folder
from data_pipeline.clip import BadSampleError
from data_pipeline.order import WINDOW_SAMPLES
from data_pipeline.shards.reader import Split
from data_pipeline.whole_file import write_atomically

UNKNOWN = -1
"""Pieces of a text that was not counted yet."""

MOST_KEPT = 16 * WINDOW_SAMPLES
"""The lengths of about as many samples are kept in memory, at 20 bytes each."""


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
        self._firsts = self._ends - split.shard_sizes  # (shards,)
        self._known: dict[int, _ShardLengths] = {}
        self._lock = threading.Lock()  # training and prediction ask from threads of their own

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of `[CLS] text [SEP] face speech`; an upper bound where parts are left out.

        Args:
            samples: int64 (n,).

        Returns:
            int64 (n,).
        """
        shards = np.searchsorted(self._ends, samples, side="right")
        by_shard = np.argsort(shards)
        tokens = np.empty_like(samples)
        changes = np.flatnonzero(np.diff(shards[by_shard])) + 1
        for chosen in np.split(by_shard, changes) if len(samples) else ():
            shard = int(shards[chosen[0]])
            with self._lock:
                tokens[chosen] = self._of_rows(shard, samples[chosen] - self._firsts[shard])
        return tokens

    def _of_rows(self, shard: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some rows of a shard; both int64 (n,)."""
        known = self._known.pop(shard, None) or self._open_shard(shard)
        self._known[shard] = known  # the last one is the one used last
        tokens = known.tokens[rows]
        if tokens.min() < 0:
            # On a server, records are asked for in order, many at a time.
            self._count_rows(shard, rows if self._split.readers == 1 else None)
            tokens = known.tokens[rows]
        return tokens

    def _open_shard(self, shard: int) -> "_ShardLengths":
        """What is known of a shard without reading its texts; those used longest ago make room."""
        kept = sum(len(known.pieces) for known in self._known.values())
        while self._known and kept > MOST_KEPT:
            kept -= len(self._known.pop(next(iter(self._known))).pieces)
        lengths, size = self._split.lengths(shard), int(self._split.shard_sizes[shard])
        pieces = _load(self._path(shard))
        if pieces is None or len(pieces) != size:
            pieces = np.full(size, UNKNOWN, dtype=np.int32)
        face = np.minimum(lengths.face, self._limits.face)
        speech = np.minimum(lengths.speech, self._limits.speech)
        known = _ShardLengths((face + speech).astype(np.int64), pieces, np.empty(size, np.int64))
        known.set_tokens(self._limits.text)
        return known

    def _path(self, shard: int) -> Path:
        """Where the counts of a shard are kept."""
        return self._folder / f"{self._split.shards[shard].sha256}.counts"

    def _count_rows(self, shard: int, rows: NDArray[np.int64] | None) -> None:
        """Count the pieces of some texts, or of all; when all are known, keep them."""
        known, first = self._known[shard], int(self._firsts[shard])
        unknown = known.pieces == UNKNOWN
        if rows is not None:
            asked = np.zeros_like(unknown)
            asked[rows] = True
            unknown &= asked
        with self._split.work.on(f"counting the texts of {self._split.shards[shard].name}"):
            for row in np.flatnonzero(unknown).tolist():
                pieces = self._count_sample(first + row)
                known.pieces[row] = pieces or 0
                known.readable &= pieces is not None
        known.set_tokens(self._limits.text)
        # A broken tar may be mended, and has the same hash then.
        if known.readable and not (known.pieces == UNKNOWN).any():
            _save(self._path(shard), known.pieces)

    def _count_sample(self, sample: int) -> int | None:
        """Pieces of its text; None of a broken sample, which is reported when it is read."""
        try:
            return self._count(self._split.read_text(sample) or "")
        except BadSampleError:
            return None


@dataclass
class _ShardLengths:
    """What is known of a shard.

    Attributes:
        frames: int64 (n,), face and speech rows within the limits.
        pieces: int32 (n,), of each text; `UNKNOWN` until it is asked for.
        tokens: int64 (n,), of each sequence; negative until it is asked for.
        readable: whether all texts could be read.
    """

    frames: NDArray[np.int64]
    pieces: NDArray[np.int32]
    tokens: NDArray[np.int64]
    readable: bool = True

    def set_tokens(self, text_limit: int) -> None:
        """Sum up what is known."""
        text = np.where(self.pieces > 0, np.minimum(self.pieces, text_limit) + 2, 0)
        self.tokens[:] = np.where(self.pieces == UNKNOWN, UNKNOWN, text + self.frames)


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
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, hashlib.sha256(counts).digest() + counts)


_DIGEST_BYTES = hashlib.sha256().digest_size
