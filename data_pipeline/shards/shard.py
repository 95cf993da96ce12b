"""An open shard: clips by their row, from a memory map of the tar or from ranges of its bytes."""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from data_pipeline.clip import JSON, MEMBERS, BadSampleError, Clip, clip_from_members
from data_pipeline.shards.index import ShardIndex
from data_pipeline.shards.place import Url
from data_pipeline.shards.remote import Remote
from data_pipeline.shards.tar import BLOCK

GAP = 16 * BLOCK
"""Bytes between two members up to which one request for both is cheaper than two."""

AHEAD = 64
"""Records that are asked for together, for they are read in order."""

CONNECTIONS = 16
"""Requests to a server at the same time."""

Span: TypeAlias = tuple[int, int]
"""Bytes [begin, end) of a tar."""


class Shard(ABC):
    """The samples of a tar.

    Args:
        index: where they lie.
    """

    def __init__(self, index: ShardIndex) -> None:
        self.index = index

    def read(self, row: int) -> Clip:
        """The clip of this row; its arrays are views of the bytes that were read.

        Raises:
            BadSampleError: it is not whole or not of the right form.
        """
        spans = self._spans(row)
        members: dict[str, memoryview] = {}
        for begin, end in merge_spans(spans.values()):
            content = self._read((begin, end))
            for name, (first, last) in spans.items():
                if begin <= first and last <= end:
                    members[name] = content[first - begin : last - begin]
        return clip_from_members(self.index.keys[row], members)

    def read_record(self, row: int) -> Clip:
        """The clip without its rows and its image: what its JSON member says.

        Raises:
            BadSampleError: that member is missing or broken.
        """
        spans = self._spans(row)
        record = {JSON: self._record(row, spans[JSON])} if JSON in spans else {}
        return clip_from_members(self.index.keys[row], record)

    @abstractmethod
    def _read(self, span: Span) -> memoryview:
        """Bytes of the tar."""

    def _record(self, row: int, span: Span) -> memoryview:
        """The JSON member of a row, which lies there."""
        return self._read(span)

    def _spans(self, row: int) -> dict[str, Span]:
        """Suffix -> where this member of one sample lies."""
        if row >= len(self.index):
            raise BadSampleError("", f"the tar holds only {len(self.index)} samples")
        starts, sizes = self.index.offsets[row], self.index.sizes[row]
        places = zip(MEMBERS, starts.tolist(), sizes.tolist(), strict=True)
        spans = {name: (at, at + size) for name, at, size in places if at >= 0}
        if not spans:
            raise BadSampleError("", "parts of it are lost or stand apart; see 'memo data check'")
        return spans


class MappedShard(Shard):
    """A tar on disk. Its map is closed when the last array that was read from it is gone.

    Args:
        path: the tar.
        index: where its samples lie.
    """

    def __init__(self, path: Path, index: ShardIndex) -> None:
        super().__init__(index)
        with path.open("rb") as file:
            self._content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def _read(self, span: Span) -> memoryview:
        return self._content[slice(*span)]


class RangedShard(Shard):
    """A tar on a server, of which nothing is kept.

    Args:
        url: of the tar.
        index: where its samples lie.
        remote: asks for ranges.
    """

    def __init__(self, url: Url, index: ShardIndex, remote: Remote) -> None:
        super().__init__(index)
        self._url = url
        self._remote = remote
        self._ahead: dict[int, memoryview] = {}

    def _read(self, span: Span) -> memoryview:
        begin, end = span
        return memoryview(self._remote.read_range(self._url, begin, end) if begin < end else b"")

    def _record(self, row: int, span: Span) -> memoryview:
        ahead = self._ahead
        if row not in ahead:
            ahead = self._read_records(range(row, min(row + AHEAD, len(self.index))))
            self._ahead = ahead
        return ahead[row]

    def _read_records(self, rows: Sequence[int]) -> dict[int, memoryview]:
        """Row -> its JSON member."""
        column = MEMBERS.index(JSON)
        starts = self.index.offsets[rows, column]
        ends = starts + self.index.sizes[rows, column]
        spans = {
            row: (begin, end)
            for row, begin, end in zip(rows, starts.tolist(), ends.tolist(), strict=True)
            if begin >= 0
        }
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return dict(zip(spans, pool.map(self._read, spans.values()), strict=True))


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """The fewest spans that hold these and no gap of more than `GAP` bytes, in order."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1] + GAP:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
