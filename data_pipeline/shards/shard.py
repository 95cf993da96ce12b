"""An open shard: clips by their row, from a memory map of the tar or from ranges of its bytes."""

import ctypes
import mmap
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from isal.isal_zlib import crc32

from data_pipeline.clip import (
    JSON,
    MEMBERS,
    NOTHING,
    BadSampleError,
    Clip,
    Fault,
    clip_from_members,
)
from data_pipeline.shards.dataset import FeatureSchema
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

COLUMN = {name: number for number, name in enumerate(MEMBERS)}
"""Of each member in the tables of an index."""

CUT_OFF = "lies beyond the end of the tar, which is cut off"
CHANGED = "was changed since it was written: its checksum differs"

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_longlong,
)
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
FAILED = ctypes.c_void_p(-1).value

Span: TypeAlias = tuple[int, int]
"""Bytes [begin, end) of a tar."""


class Shard(ABC):
    """The samples of a tar.

    Args:
        index: where they lie.
        features: what their rows must be.
    """

    def __init__(self, index: ShardIndex, features: FeatureSchema) -> None:
        self.index = index
        self._features = features

    def read(self, row: int) -> Clip:
        """The clip of this row; its arrays are views of the bytes that were read.

        Raises:
            BadSampleError: it is not whole, was changed since its index was written, or is not of
                the right form.
        """
        clip = self._clip(row, self._read(self._spans(row)))
        self._features.check(clip)
        if clip.is_empty:
            raise BadSampleError("", NOTHING, Fault.EMPTY)
        if _lengths(clip) != self.index.lengths[row].tolist():
            raise BadSampleError("", "is longer or shorter than its index says", Fault.INDEX)
        return clip

    def read_record(self, row: int) -> Clip:
        """The clip without its rows and its image: what its JSON member says.

        Raises:
            BadSampleError: that member is missing, changed or broken.
        """
        spans = self._spans(row)
        return self._clip(row, {JSON: self._record(row, spans[JSON])} if JSON in spans else {})

    @abstractmethod
    def _read(self, spans: Mapping[str, Span]) -> dict[str, memoryview]:
        """Suffix -> content of one sample's members, which lie there."""

    def _record(self, row: int, span: Span) -> memoryview:
        """The JSON member of a row, which lies there."""
        return self._read({JSON: span})[JSON]

    def _spans(self, row: int) -> dict[str, Span]:
        """Suffix -> where this member of one sample lies."""
        if row >= len(self.index):
            raise BadSampleError("", f"the tar holds only {len(self.index)} samples", Fault.LOST)
        if row in self.index.flaws:
            raise BadSampleError(*self.index.flaws[row])
        starts, sizes = self.index.offsets[row], self.index.sizes[row]
        places = zip(MEMBERS, starts.tolist(), sizes.tolist(), strict=True)
        return {name: (at, at + size) for name, at, size in places if at >= 0}

    def _clip(self, row: int, members: Mapping[str, memoryview]) -> Clip:
        """The clip of these members, which are compared with what the index says of them.

        A matching checksum says that a member is what it was when the index was written, and that
        it could be read then.
        """
        index, unchanged = self.index, True
        sizes, crcs = index.sizes[row].tolist(), index.crcs[row].tolist()
        for name, content in members.items():
            column = COLUMN[name]
            if len(content) != sizes[column]:
                raise BadSampleError(name, CUT_OFF, Fault.LOST)
            crc = crcs[column]
            if crc and crc32(content) != crc:
                raise BadSampleError(name, CHANGED, Fault.CHANGED)
            unchanged = unchanged and crc > 0
        return clip_from_members(index.keys[row], members, unchanged)


class MappedShard(Shard):
    """A tar on disk. Its map is closed when the last array that was read from it is gone.

    Args:
        path: the tar.
        index: where its samples lie.
        features: what their rows must be.
    """

    def __init__(self, path: Path, index: ShardIndex, features: FeatureSchema) -> None:
        super().__init__(index, features)
        self._content = _map(path)

    def _read(self, spans: Mapping[str, Span]) -> dict[str, memoryview]:
        return {name: self._content[begin:end] for name, (begin, end) in spans.items()}


def _map(path: Path) -> memoryview:
    """A file as a memory map, which is closed when the last view of it is gone.

    Python's mmap would keep a descriptor for each, of which a process may have few: a mixture of
    large datasets has thousands of tars open.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return memoryview(b"")
        address = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(path))
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, LIBC.munmap, address, size).atexit = False  # arrays may live longer
    return memoryview(memory).cast("B").toreadonly()


class RangedShard(Shard):
    """A tar on a server, of which nothing is kept.

    Args:
        url: of the tar.
        index: where its samples lie.
        features: what their rows must be.
        remote: asks for ranges.
    """

    def __init__(
        self, url: Url, index: ShardIndex, features: FeatureSchema, remote: Remote
    ) -> None:
        super().__init__(index, features)
        self._url = url
        self._remote = remote
        self._ahead: dict[int, memoryview] = {}

    def _read(self, spans: Mapping[str, Span]) -> dict[str, memoryview]:
        members = {}
        for begin, end in merge_spans(spans.values()):
            content = self._ask((begin, end))
            for name, (first, last) in spans.items():
                if begin <= first and last <= end:
                    members[name] = content[first - begin : last - begin]
        return members

    def _ask(self, span: Span) -> memoryview:
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
        column = COLUMN[JSON]
        starts = self.index.offsets[rows, column]
        ends = starts + self.index.sizes[rows, column]
        spans = {
            row: (begin, end)
            for row, begin, end in zip(rows, starts.tolist(), ends.tolist(), strict=True)
            if begin >= 0
        }
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return dict(zip(spans, pool.map(self._ask, spans.values()), strict=True))


def _lengths(clip: Clip) -> list[int]:
    """What the index says of a clip, from the clip itself."""
    face, speech = clip.face, clip.speech
    return [
        len(clip.text or ""),
        0 if face is None else len(face),
        0 if speech is None else len(speech),
    ]


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """The fewest spans that hold these and no gap of more than `GAP` bytes, in order."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1] + GAP:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
