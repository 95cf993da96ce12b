"""The index of a tar: where each member of each sample lies, and how long the samples are.

It stands beside the tar as `<name>.index.npz` and can be rebuilt from the tar alone. Python's
`tarfile` is slow to step through a tar; with the index any member is one slice of a memory map.
"""

import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import (
    FACE,
    JSON,
    MEMBERS,
    SPEECH,
    BadSampleError,
    npy_shape,
    read_text,
)

BLOCK = 512
"""Tar headers and members begin at multiples of this many bytes."""

LENGTHS = (JSON, FACE, SPEECH)
"""Members whose lengths are kept: characters of the text, face rows, speech rows."""


@dataclass(frozen=True)
class ShardIndex:
    """The samples of one tar, in its order.

    Attributes:
        keys: str (n,).
        offsets: int64 (n, 5), where each member of `MEMBERS` begins in the tar; -1 if missing.
        sizes: int64 (n, 5), its bytes; 0 if missing.
        lengths: int32 (n, 3): characters of the text, face rows, speech rows; 0 if missing.
        tar_bytes: int64 (), size of the tar that the index belongs to.
    """

    keys: NDArray[np.str_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lengths: NDArray[np.int32]
    tar_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)

    def save(self, path: Path) -> None:
        """Write the index as an npz file, whole or not at all."""
        buffer = io.BytesIO()
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez(buffer, allow_pickle=False, **arrays)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)


@dataclass(frozen=True)
class TarProblem:
    """Something in a tar that is no part of a usable sample: what, where, why."""

    key: str
    member: str
    offset: int
    reason: str


def index_path(tar: Path) -> Path:
    """Where the index of a tar stands."""
    return tar.with_suffix(".index.npz")


def load_index(tar: Path, report: Callable[[TarProblem], None] = lambda _: None) -> ShardIndex:
    """The index beside a tar, or one made anew where that is missing, damaged or out of date.

    Args:
        tar: the shard.
        report: called with each problem found while an index is made.
    """
    try:
        with np.load(index_path(tar), allow_pickle=False) as file:
            index = ShardIndex(**{field.name: file[field.name] for field in fields(ShardIndex)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return build_index(tar, report)
    fits = index.tar_bytes == tar.stat().st_size and len(index.offsets) == len(index.keys)
    return index if fits else build_index(tar, report)


@dataclass
class _Sample:
    """A sample whose members are being gathered."""

    key: str
    offsets: dict[str, int]
    sizes: dict[str, int]


def build_index(tar: Path, report: Callable[[TarProblem], None] = lambda _: None) -> ShardIndex:
    """Step through a tar and note its samples.

    Members that cannot belong to a clip are reported and left out; where the tar is cut off, the
    samples before the cut remain.
    """
    samples: list[_Sample] = []
    seen: set[str] = set()
    lengths = []
    with tar.open("rb") as file:
        for sample in _samples(file, report):
            if sample.key in seen:
                report(
                    TarProblem(sample.key, "", min(sample.offsets.values()), "second of its key")
                )
                continue
            seen.add(sample.key)
            samples.append(sample)
            lengths.append(_lengths(file, sample, report))
    return ShardIndex(
        keys=np.array([sample.key for sample in samples], dtype=np.str_),
        offsets=_table([sample.offsets for sample in samples], missing=-1),
        sizes=_table([sample.sizes for sample in samples], missing=0),
        lengths=np.array(lengths, dtype=np.int32).reshape(-1, len(LENGTHS)),
        tar_bytes=np.array(tar.stat().st_size, dtype=np.int64),
    )


def _table(rows: list[dict[str, int]], missing: int) -> NDArray[np.int64]:
    """int64 (n, members)."""
    values = [[row.get(member, missing) for member in MEMBERS] for row in rows]
    return np.array(values, dtype=np.int64).reshape(-1, len(MEMBERS))


def _samples(file: io.BufferedReader, report: Callable[[TarProblem], None]) -> Iterator[_Sample]:
    """Neighbouring members of one key, as samples."""
    sample: _Sample | None = None
    for member in _members(file, report):
        key, _, suffix = member.name.removeprefix("./").partition(".")
        reason = _refusal(member, key, suffix)
        if reason:
            report(TarProblem(key, suffix, member.offset, reason))
            continue
        if sample is not None and sample.key != key:
            yield sample
            sample = None
        sample = sample or _Sample(key, {}, {})
        if suffix in sample.offsets:
            report(TarProblem(key, suffix, member.offset, "second member of this name"))
            continue
        sample.offsets[suffix] = member.offset_data
        sample.sizes[suffix] = member.size
    if sample is not None:
        yield sample


def _members(
    file: io.BufferedReader, report: Callable[[TarProblem], None]
) -> Iterator[tarfile.TarInfo]:
    """The tar's members up to where it is cut off or damaged."""
    end = os.fstat(file.fileno()).st_size
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset_data + member.size > end:
                    report(TarProblem("", member.name, member.offset, "the tar is cut off here"))
                    return
                yield member
    except (tarfile.TarError, ValueError, OverflowError) as error:
        report(TarProblem("", "", file.tell(), f"the tar cannot be read on ({error})"))


def _refusal(member: tarfile.TarInfo, key: str, suffix: str) -> str | None:
    """Why a member cannot belong to a clip; None if it can."""
    if not member.isreg():
        return "not a regular file"
    if not key or "/" in key or "/" in suffix:
        return f"{member.name!r} is not a member's name"
    if suffix not in MEMBERS:
        return f"unknown member (known are {', '.join(MEMBERS)})"
    return None


def _lengths(
    file: io.BufferedReader, sample: _Sample, report: Callable[[TarProblem], None]
) -> list[int]:
    """Characters of the text, face rows, speech rows; 0 for what is missing or broken."""
    lengths = []
    for suffix in LENGTHS:
        try:
            lengths.append(_length(file, sample, suffix))
        except BadSampleError as error:
            report(TarProblem(sample.key, suffix, sample.offsets.get(suffix, 0), error.reason))
            lengths.append(0)
    return lengths


def _length(file: io.BufferedReader, sample: _Sample, suffix: str) -> int:
    if suffix not in sample.offsets:
        return 0
    whole = suffix == JSON
    content = os.pread(
        file.fileno(), sample.sizes[suffix] if whole else BLOCK, sample.offsets[suffix]
    )
    return len(read_text(content) or "") if whole else npy_shape(suffix, content)[0]


def file_sha256(path: Path) -> str:
    """Hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
