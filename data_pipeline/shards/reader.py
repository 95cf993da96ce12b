"""Reading clips by number: a memory map per tar, and slices of it."""

import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import (
    JSON,
    MEMBERS,
    NOTHING,
    BadSampleError,
    Clip,
    Fault,
    clip_from_members,
)
from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import DatasetInfo, FeatureSchema, read_info
from data_pipeline.shards.index import ShardIndex, file_sha256, load_index
from data_pipeline.shards.tar import map_tar

MOST_OPEN = 256
"""Tars of a split that are kept open; each holds a file descriptor, of which 1,024 is usual."""

CUT_OFF = "lies beyond the end of the tar, which is cut off"
CHANGED = "was changed since it was written: its checksum differs"


@dataclass(frozen=True)
class Lengths:
    """Lengths of the samples of a shard, in its order; 0 where something is missing.

    Attributes:
        text_chars: int32 (n,), characters of the text.
        face: int32 (n,), face rows.
        speech: int32 (n,), speech rows.
    """

    text_chars: NDArray[np.int32]
    face: NDArray[np.int32]
    speech: NDArray[np.int32]


class MappedShard:
    """An open tar. Its map is closed when the last array that was read from it is gone.

    Args:
        path: the tar.
        index: where its samples lie.
        features: what its rows must be.
    """

    def __init__(self, path: Path, index: ShardIndex, features: FeatureSchema) -> None:
        self.index = index
        self._features = features
        self._content = memoryview(map_tar(path))

    def read(self, row: int) -> Clip:
        """The clip of this row; its arrays are views of the map.

        Raises:
            BadSampleError: it is not whole, was changed since its index was written, or is not of
                the right form.
        """
        members, unchanged = self._members(row, MEMBERS)
        clip = clip_from_members(self.index.keys[row], members, unchanged)
        self._features.check(clip)
        if not unchanged and clip.is_empty:
            raise BadSampleError("", NOTHING, Fault.EMPTY)
        if _lengths(clip) != self.index.lengths[row].tolist():
            raise BadSampleError("", "is longer or shorter than its index says", Fault.INDEX)
        return clip

    def read_record(self, row: int) -> Clip:
        """The clip without its rows and its image: what its JSON member says.

        Raises:
            BadSampleError: that member is missing or broken.
        """
        members, unchanged = self._members(row, (JSON,))
        return clip_from_members(self.index.keys[row], members, unchanged)

    def _members(self, row: int, wanted: Sequence[str]) -> tuple[dict[str, memoryview], bool]:
        """Suffix -> bytes of a sample's members, as slices of the map.

        A matching checksum says that a member is what it was when the index was written, and that
        it could be read then.

        Returns:
            The members, and whether all had a checksum.
        """
        index, members, unchanged = self.index, {}, True
        if row >= len(index):
            raise BadSampleError("", f"the tar holds only {len(index)} samples", Fault.LOST)
        if row in index.flaws:
            raise BadSampleError(*index.flaws[row])
        columns = (index.offsets[row], index.sizes[row], index.crcs[row])
        for name, at, size, crc in zip(MEMBERS, *(one.tolist() for one in columns), strict=True):
            if at < 0 or name not in wanted:
                continue
            content = members[name] = self._content[at : at + size]
            if len(content) != size:
                raise BadSampleError(name, CUT_OFF, Fault.LOST)
            if crc and zlib.crc32(content) != crc:
                raise BadSampleError(name, CHANGED, Fault.CHANGED)
            unchanged = unchanged and crc > 0
        return members, unchanged


def _lengths(clip: Clip) -> list[int]:
    """What the index says of a clip, from the clip itself."""
    face, speech = clip.face, clip.speech
    return [
        len(clip.text or ""),
        0 if face is None else len(face),
        0 if speech is None else len(speech),
    ]


class Split:
    """The samples of one split, numbered from 0 through its shards in order.

    Reading is safe from several threads. Indexes and maps are opened when first needed.

    Args:
        folder: the dataset's folder.
        info: its `dataset.json`.
        name: of the split; None takes the samples of all splits, in the order of the shards.

    Raises:
        UserError: there is no such split, it is empty, or a shard is missing.
    """

    def __init__(self, folder: Path, info: DatasetInfo, name: str | None) -> None:
        self.name = name or "all"
        self.shards = tuple(shard for shard in info.shards if name in (None, shard.split))
        self.shard_sizes = np.array([shard.samples for shard in self.shards], dtype=np.int64)
        if not self.shard_sizes.sum():
            known = ", ".join(info.splits) or "none"
            raise UserError(f"{folder} has no samples in split {name!r}; its splits are: {known}")
        self.fingerprint = info.fingerprint(name)
        self._folder = folder
        self._features = info.features
        self._ends = np.cumsum(self.shard_sizes)  # (shards,)
        self._open: dict[int, MappedShard] = {}
        self._lock = threading.Lock()
        for shard in self.shards:
            if not (folder / shard.name).is_file():
                raise UserError(f"{folder / shard.name} is missing, though dataset.json lists it")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, sample: int) -> Clip:
        """The clip of this number; its arrays are views of the tar.

        Raises:
            BadSampleError: it is not whole or not of the right form.
        """
        shard, row = self._find(sample)
        return shard.read(row)

    def read_record(self, sample: int) -> Clip:
        """The clip without its rows and its image: what its JSON member says.

        Raises:
            BadSampleError: that member is missing or broken.
        """
        shard, row = self._find(sample)
        return shard.read_record(row)

    def read_text(self, sample: int) -> str | None:
        """Its transcript alone.

        Raises:
            BadSampleError: its JSON member is missing or broken.
        """
        return self.read_record(sample).text

    def texts(self) -> Iterator[str]:
        """All transcripts; clips without one, and broken ones, are passed over."""
        for sample in range(len(self)):
            with suppress(BadSampleError):
                text = self.read_text(sample)
                if text:
                    yield text

    def location(self, sample: int) -> tuple[str, str]:
        """Name of the shard and key of a sample, for messages."""
        number, row = self._place(sample)
        index = self._shard(number).index
        return self.shards[number].name, index.keys[row] if row < len(index) else f"#{row}"

    def lengths(self, shard: int) -> Lengths:
        """Lengths of the samples of one shard, by row; a sample that its tar lacks has none."""
        opened = self._shard(shard)
        table = np.zeros((self.shards[shard].samples, 3), dtype=np.int32)
        known = opened.index.lengths[: len(table)]
        table[: len(known)] = known
        return Lengths(*table.T)

    def verify(self) -> None:
        """Compare every shard with its sha256 in `dataset.json`.

        Raises:
            UserError: one differs; names it with both hashes.
        """
        for shard in self.shards:
            found = file_sha256(self._folder / shard.name)
            if found != shard.sha256:
                raise UserError(
                    f"{self._folder / shard.name} was changed: its sha256 is {found}, "
                    f"dataset.json says {shard.sha256}"
                )

    def _place(self, sample: int) -> tuple[int, int]:
        """Number of the shard, and row in it."""
        assert 0 <= sample < len(self), f"sample {sample} of {len(self)}"
        number = int(np.searchsorted(self._ends, sample, side="right"))
        return number, sample - int(self._ends[number] - self.shard_sizes[number])

    def _find(self, sample: int) -> tuple[MappedShard, int]:
        number, row = self._place(sample)
        return self._shard(number), row

    def _shard(self, number: int) -> MappedShard:
        with self._lock:
            shard = self._open.pop(number, None)
            if shard is None:
                path = self._folder / self.shards[number].name
                index = load_index(path, self.shards[number])
                shard = MappedShard(path, index, self._features)
            self._open[number] = shard  # the last one is the one used last
            if len(self._open) > MOST_OPEN:
                del self._open[next(iter(self._open))]
            return shard


class Dataset:
    """A folder of shards.

    Args:
        folder: where `dataset.json` lies.

    Raises:
        UserError: there is no dataset, or `dataset.json` is not of the format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = read_info(folder)

    def split(self, name: str) -> Split:
        """The samples of one split.

        Raises:
            UserError: see `Split`.
        """
        return Split(self.folder, self.info, name)

    def whole(self) -> Split:
        """The samples of all splits.

        Raises:
            UserError: see `Split`.
        """
        return Split(self.folder, self.info, None)


def open_dataset(folder: Path) -> Dataset:
    """Open a dataset in a local folder.

    Raises:
        UserError: see `Dataset`; or the place is a URL or a shell command.
    """
    if ":" in str(folder) and not folder.exists():
        raise UserError(f"{folder}: only local folders are read; no URL or command is opened")
    return Dataset(folder)
