"""The index of a tar: where each member of each sample lies, and how long the samples are.

It stands beside the tar as `<name>.idx` and can be made anew from the tar alone. Python's `tarfile`
is slow to step through a tar; with the index any member is one slice of a memory map.

An index file is, all numbers little-endian:

| bytes | content |
|---|---|
| 8 | `memoidx1` |
| 32 | sha256 of all that follows |
| 32 | sha256 of the tar that it belongs to |
| 8 | number n of samples |
| n * 92 | a row of `ROW` for each |
| the rest | the keys, UTF-8, each followed by a line feed |
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import FACE, JSON, MEMBERS, SPEECH, BadSampleError, npy_shape, read_text
from data_pipeline.shards.tar import BLOCK, Report, TarProblem, TarSample, tar_samples

LENGTHS = (JSON, FACE, SPEECH)
"""Members whose lengths are kept: characters of the text, face rows, speech rows."""

ROW = np.dtype(
    [
        ("offsets", "<i8", len(MEMBERS)),
        ("sizes", "<i8", len(MEMBERS)),
        ("lengths", "<i4", len(LENGTHS)),
    ]
)
"""A sample in an index file; the columns are those of `ShardIndex`."""

_MAGIC = b"memoidx1"
_DIGEST = hashlib.sha256().digest_size
_HEADER = len(_MAGIC) + 2 * _DIGEST + 8


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one tar, in its order.

    Attributes:
        keys: their names (n,).
        offsets: int64 (n, 5), where each member of `MEMBERS` begins in the tar; -1 if it is missing
            or the sample is broken.
        sizes: int64 (n, 5), its bytes; 0 if missing.
        lengths: int32 (n, 3): characters of the text, face rows, speech rows; 0 if missing.
    """

    keys: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lengths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.keys)

    def to_bytes(self, tar_sha256: str) -> bytes:
        """The content of the index file of a tar with this hash."""
        rows = np.zeros(len(self), ROW)
        rows["offsets"], rows["sizes"], rows["lengths"] = self.offsets, self.sizes, self.lengths
        keys = "".join(f"{key}\n" for key in self.keys).encode()
        body = bytes.fromhex(tar_sha256) + len(self).to_bytes(8, "little") + rows.tobytes() + keys
        return _MAGIC + hashlib.sha256(body).digest() + body


def index_path(tar: Path) -> Path:
    """Where the index of a tar stands."""
    return tar.with_suffix(".idx")


def write_index(tar: Path, tar_sha256: str) -> ShardIndex:
    """Make the index of a tar and write it beside it, whole or not at all."""
    index = build_index(tar)
    path = index_path(tar)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(index.to_bytes(tar_sha256))
    temporary.replace(path)
    return index


def read_index(tar: Path, tar_sha256: str) -> ShardIndex | None:
    """The index beside a tar; None if it is missing, damaged or of another tar."""
    try:
        return parse_index(index_path(tar).read_bytes(), tar_sha256)
    except OSError:
        return None


def parse_index(content: bytes, tar_sha256: str) -> ShardIndex | None:
    """The content of an index file; None if it is damaged or of another tar."""
    body = content[len(_MAGIC) + _DIGEST :]
    if content[: -len(body)] != _MAGIC + hashlib.sha256(body).digest():
        return None
    if body[:_DIGEST].hex() != tar_sha256:
        return None
    samples = int.from_bytes(content[_HEADER - 8 : _HEADER], "little")
    end = _HEADER + samples * ROW.itemsize
    keys = content[end:].decode(errors="replace").split("\n")[:-1]
    if len(keys) != samples:  # it may come from a server, and its hash is its own
        return None
    rows = np.frombuffer(content, ROW, samples, _HEADER)
    return ShardIndex(tuple(keys), rows["offsets"], rows["sizes"], rows["lengths"])


def load_index(tar: Path, tar_sha256: str) -> ShardIndex:
    """The index beside a tar, or one made anew.

    Args:
        tar: the shard.
        tar_sha256: what `dataset.json` says of it; an index of another tar is not used.
    """
    return read_index(tar, tar_sha256) or build_index(tar)


def build_index(tar: Path, report: Report = lambda _: None) -> ShardIndex:
    """Step through a tar and note its samples.

    What cannot belong to a clip is reported and left out. A sample that is not whole keeps its
    place, without members, so that reading it fails and is noticed.

    Args:
        tar: any WebDataset tar whose members are named as in `data_pipeline.clip`.
        report: called with each problem.
    """
    samples: dict[str, TarSample] = {}
    with tar.open("rb") as file:
        for sample in tar_samples(file, report):
            first = samples.setdefault(sample.key, sample)
            if first is not sample:
                first.broken = True
                reason = "members of this key stand elsewhere, too"
                report(TarProblem(sample.key, "", sample.offset, reason))
        whole = [TarSample(one.key, one.offset) if one.broken else one for one in samples.values()]
        lengths = [_lengths(file, sample, report) for sample in whole]
    return ShardIndex(
        keys=tuple(samples),
        offsets=_table([sample.offsets for sample in whole], missing=-1),
        sizes=_table([sample.sizes for sample in whole], missing=0),
        lengths=np.array(lengths, dtype=np.int32).reshape(-1, len(LENGTHS)),
    )


def file_sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table(rows: list[dict[str, int]], missing: int) -> NDArray[np.int64]:
    """int64 (n, members)."""
    values = [[row.get(member, missing) for member in MEMBERS] for row in rows]
    return np.array(values, dtype=np.int64).reshape(-1, len(MEMBERS))


def _lengths(file: BinaryIO, sample: TarSample, report: Report) -> list[int]:
    """Characters of the text, face rows, speech rows; 0 for what is missing or damaged."""
    lengths = []
    for suffix in LENGTHS:
        try:
            lengths.append(_length(file, sample, suffix))
        except BadSampleError as error:
            report(TarProblem(sample.key, suffix, sample.offsets[suffix], error.reason))
            lengths.append(0)
    return lengths


def _length(file: BinaryIO, sample: TarSample, suffix: str) -> int:
    if suffix not in sample.offsets:
        return 0
    size, offset = sample.sizes[suffix], sample.offsets[suffix]
    if suffix == JSON:
        return len(read_text(os.pread(file.fileno(), size, offset)) or "")
    return npy_shape(suffix, os.pread(file.fileno(), min(size, BLOCK), offset))[0]
