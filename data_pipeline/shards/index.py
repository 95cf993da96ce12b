"""The index of a tar: where each member of each sample lies, and how long the samples are.

It stands beside the tar as `<name>.idx` and can be made anew from the tar alone. Python's `tarfile`
is slow to step through a tar; with the index any member is one slice of a memory map. The checksums
tell whether a sample still is what it was when the index was written.

An index file is, all numbers little-endian:

| bytes | content |
|---|---|
| 8 | `memoidx2` |
| 32 | sha256 of all that follows |
| 32 | sha256 of the tar that it belongs to |
| 8 | number n of samples |
| n * 112 | a row of `ROW` for each |
| the rest | a line for each, UTF-8: its key; if it is broken, also member and reason, after tabs |
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from data_pipeline.clip import (
    FACE,
    JSON,
    LONGEST_KEY,
    MEMBERS,
    MOST_BYTES,
    SPEECH,
    BadSampleError,
    clip_from_members,
    npy_shape,
    read_text,
)
from data_pipeline.shards.dataset import ShardInfo
from data_pipeline.shards.tar import (
    BLOCK,
    Content,
    TarSample,
    found_samples,
    map_tar,
)
from data_pipeline.whole_file import write_atomically

LENGTHS = (JSON, FACE, SPEECH)
"""Members whose lengths are kept: characters of the text, face rows, speech rows."""

ROW = np.dtype(
    [
        ("offsets", "<i8", len(MEMBERS)),
        ("sizes", "<i8", len(MEMBERS)),
        ("lengths", "<i4", len(LENGTHS)),
        ("crcs", "<u4", len(MEMBERS)),
    ]
)
"""A sample in an index file; the columns are those of `ShardIndex`."""

_MAGIC = b"memoidx2"
_OLDER = b"memoidx1"
"""Without checksums of members."""
_DIGEST = hashlib.sha256().digest_size
_HEADER = len(_MAGIC) + 2 * _DIGEST + 8
_MOST_LINE = 4096
"""Bytes of a key, a member and a reason, at most."""
_MOST_INDEX = 1 << 30
"""Bytes, which are five million samples of a shard, whatever `dataset.json` says of it."""


class BadIndexError(Exception):
    """An index that is missing or cannot be used; says why, to be put behind its name.

    Nothing is lost with it but its checksums: it can be made anew from its tar.
    """


class Flaw(NamedTuple):
    """Why a sample cannot be used: the member, "" for all of it, and the reason."""

    member: str
    reason: str


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one tar, in its order.

    Attributes:
        keys: their names (n,).
        offsets: int64 (n, 5), where each member of `MEMBERS` begins in the tar; -1 if it is missing
            or the sample is broken.
        sizes: int64 (n, 5), its bytes; 0 if missing.
        lengths: int32 (n, 3): characters of the text, face rows, speech rows; 0 if missing.
        crcs: uint32 (n, 5), CRC-32 of each member; 0 if missing or not known. They are known of
            samples that could be read when the index was written.
        flaws: row -> what is wrong with a broken sample.
    """

    keys: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lengths: NDArray[np.int32]
    crcs: NDArray[np.uint32]
    flaws: Mapping[int, Flaw] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def to_bytes(self, tar_sha256: str) -> bytes:
        """The content of the index file of a tar with this hash."""
        rows = np.zeros(len(self), ROW)
        for name in rows.dtype.names or ():
            rows[name] = getattr(self, name)
        lines = ["\t".join((key, *self.flaws.get(row, ()))) for row, key in enumerate(self.keys)]
        text = "".join(f"{line}\n" for line in lines).encode()
        body = bytes.fromhex(tar_sha256) + len(self).to_bytes(8, "little") + rows.tobytes() + text
        return _MAGIC + hashlib.sha256(body).digest() + body


def index_path(tar: Path) -> Path:
    """Where the index of a tar stands."""
    return tar.with_suffix(".idx")


def write_index(tar: Path, tar_sha256: str) -> ShardIndex:
    """Make the index of a tar and write it beside it, whole or not at all."""
    index = with_checksums(build_index(tar), map_tar(tar))
    write_atomically(index_path(tar), index.to_bytes(tar_sha256))
    return index


def most_index_bytes(shard: ShardInfo) -> int:
    """What the index of a tar can have at most: as many samples as `dataset.json` says, and strays.

    That the tar has room for so many is known of every `ShardInfo`.
    """
    return min(_HEADER + 2 * shard.samples * (ROW.itemsize + _MOST_LINE), _MOST_INDEX)


def read_index(tar: Path, shard: ShardInfo) -> ShardIndex:
    """The index beside a tar.

    Args:
        tar: the shard.
        shard: what `dataset.json` says of it.

    Raises:
        BadIndexError: it is missing, or cannot be used.
    """
    try:
        with index_path(tar).open("rb") as file:
            content = file.read(most_index_bytes(shard) + 1)
    except OSError:
        raise BadIndexError("is missing") from None
    return parse_index(content, shard)


def parse_index(content: bytes, shard: ShardInfo) -> ShardIndex:
    """The content of an index file.

    Whatever it is, the index that is returned can do no harm: its members have a possible size, do
    not overlap and end within the tar; whether the tar is that long is seen when a sample is read.

    Args:
        content: of the file, which may come from anywhere; of one with more than
            `most_index_bytes` as many, and one more.
        shard: what `dataset.json` says of the tar.

    Raises:
        BadIndexError: it is damaged, too large, of another tar or of an older format.
    """
    most = most_index_bytes(shard)
    if len(content) > most:
        raise BadIndexError(f"has more than {most:,} bytes, the most for {shard.samples:,} samples")
    try:
        index = _parse(content, shard.sha256)
    except ValueError:
        raise BadIndexError("is damaged") from None
    if not _is_possible(index, shard.bytes):
        raise BadIndexError("names members that its tar cannot hold")
    return index


def load_index(tar: Path, shard: ShardInfo) -> ShardIndex:
    """The index beside a tar, or one made anew, which has no checksums.

    Args:
        tar: the shard.
        shard: what `dataset.json` says of it; an index of another tar is not used.
    """
    try:
        return read_index(tar, shard)
    except BadIndexError:
        return build_index(tar, shard.samples)


def build_index(tar: Path, most: int = sys.maxsize) -> ShardIndex:
    """Step through a tar and note its samples, without checksums.

    What cannot belong to a clip is left out. A sample that is not whole keeps its place, without
    members, so that reading it fails and is noticed.

    Args:
        tar: any WebDataset tar whose members are named as in `data_pipeline.clip`.
        most: of a tar with more samples the first are taken.
    """
    content = map_tar(tar)
    return index_of(found_samples(content, most), content)


def index_of(samples: list[TarSample], content: Content) -> ShardIndex:
    """The index of a tar, without checksums.

    Args:
        samples: what `tar_samples` found in it.
        content: the tar.
    """
    flaws = {row: next(iter(one.flaws.values())) for row, one in enumerate(samples) if one.flaws}
    whole = [TarSample(one.key, one.offset) if one.flaws else one for one in samples]
    lengths = [[_length(content, one, suffix) for suffix in LENGTHS] for one in whole]
    return ShardIndex(
        keys=tuple(one.key for one in samples),
        offsets=_table([one.offsets for one in whole], missing=-1),
        sizes=_table([one.sizes for one in whole], missing=0),
        lengths=np.array(lengths, dtype=np.int32).reshape(-1, len(LENGTHS)),
        crcs=np.zeros((len(samples), len(MEMBERS)), dtype=np.uint32),
        flaws={row: Flaw(one.member, one.reason) for row, one in flaws.items()},
    )


def with_checksums(index: ShardIndex, content: Content) -> ShardIndex:
    """The index with the checksums of what is in the tar, of every sample that can be read.

    Args:
        index: without them.
        content: the tar.
    """
    tar, crcs = memoryview(content), np.zeros_like(index.crcs)
    for row, (starts, sizes) in enumerate(zip(index.offsets, index.sizes, strict=True)):
        places = zip(MEMBERS, starts.tolist(), sizes.tolist(), strict=True)
        members = {name: tar[at : at + size] for name, at, size in places if at >= 0}
        if _is_sound(members):
            crcs[row] = [crc32(members.get(name, b"")) for name in MEMBERS]
    return replace(index, crcs=crcs)


def _is_sound(members: Mapping[str, memoryview]) -> bool:
    """Whether a sample can be read."""
    try:
        return not clip_from_members("", members).is_empty
    except BadSampleError:
        return False


def file_sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(content: bytes, tar_sha256: str) -> ShardIndex:
    """The index in a file.

    Raises:
        BadIndexError: it is of another tar or of an older format.
        ValueError: it is damaged.
    """
    if content.startswith(_OLDER):
        raise BadIndexError(
            f"is of the older format {_OLDER.decode()}, which has no checksums; 'memo data repair' "
            "writes the dataset with new ones"
        )
    start = len(_MAGIC) + _DIGEST
    if content[:start] != _MAGIC + hashlib.sha256(content[start:]).digest():
        raise ValueError("not an index, or damaged")
    if content[start : start + _DIGEST].hex() != tar_sha256:
        raise BadIndexError("is of another tar")
    samples = int.from_bytes(content[_HEADER - 8 : _HEADER], "little")
    if samples * ROW.itemsize > len(content):
        raise ValueError("cut off")
    rows = np.frombuffer(content, ROW, samples, _HEADER)
    text = content[_HEADER + rows.nbytes :].decode()
    lines = text.split("\n")[:-1]
    if len(lines) != samples or not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError("not a line for each sample")
    flaws = {}
    if "\t" in text:
        for row, line in enumerate(lines):
            lines[row], *flaw = line.split("\t")
            if flaw:
                member, reason = flaw
                flaws[row] = Flaw(member, reason)
    columns = {name: rows[name] for name in ROW.names or ()}
    return ShardIndex(tuple(lines), **columns, flaws=flaws)


def _is_possible(index: ShardIndex, tar_bytes: int) -> bool:
    """Whether a tar of this size can have this index."""
    offsets, sizes = index.offsets, index.sizes
    there = offsets >= 0
    placed = (offsets >= -1) & (offsets % BLOCK == 0) & (offsets < tar_bytes) & (sizes >= 0)
    absent = (offsets == -1) & (sizes == 0)
    if not (np.where(there, placed, absent).all() and (index.lengths >= 0).all()):
        return False
    order = np.argsort(offsets[there], kind="stable")
    begins, ends = offsets[there][order], (offsets + sizes)[there][order]
    return bool(
        (ends[:-1] <= begins[1:]).all()
        and (ends <= tar_bytes).all()
        and (sizes <= MOST_BYTES).all()
        and (sizes.sum(axis=1) <= MOST_BYTES).all()
        and _are_keys(index.keys)
    )


def _are_keys(keys: tuple[str, ...]) -> bool:
    """Whether samples can have these keys; that they can be shown is known."""
    if not all(keys) or len(set(keys)) < len(keys) or set("".join(keys)) & set("./\\"):
        return False
    return max(map(len, keys), default=0) <= LONGEST_KEY


def _table(rows: list[dict[str, int]], missing: int) -> NDArray[np.int64]:
    """int64 (n, members)."""
    values = [[row.get(member, missing) for member in MEMBERS] for row in rows]
    return np.array(values, dtype=np.int64).reshape(-1, len(MEMBERS))


def _length(content: Content, sample: TarSample, suffix: str) -> int:
    """Characters of the text, or rows; 0 of what is missing, or damaged and refused when read."""
    if suffix not in sample.offsets:
        return 0
    offset, size = sample.offsets[suffix], sample.sizes[suffix]
    try:
        if suffix == JSON:
            return len(read_text(content[offset : offset + size]) or "")
        return npy_shape(suffix, content[offset : offset + min(size, BLOCK)])[0]
    except BadSampleError:
        return 0
