"""Stepping through a tar that may be damaged or foreign: its samples, and what is wrong with them.

Only headers are read. A sample is unusable if something of it was lost or stands twice, for what is
left could pass for a clip that lacks a modality. Nothing that is wrong with one sample loses
another.
"""

import mmap
import tarfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

from data_pipeline.clip import MEMBERS

BLOCK = 512
"""Tar headers and members begin at multiples of this many bytes."""

_MAGIC = b"ustar"
_MAGIC_OFFSET = 257
"""What marks a header, and where in it."""

_DAMAGE = (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError)
"""What tarfile raises for headers that make no sense."""


@dataclass(frozen=True)
class TarProblem:
    """Something in a tar that is no part of a usable sample.

    Attributes:
        key: of the sample, "" where unknown.
        member: suffix or name of the member, "" where unknown.
        offset: of its header in the tar, in bytes.
        reason: what is wrong.
    """

    key: str
    member: str
    offset: int
    reason: str


Report: TypeAlias = Callable[[TarProblem], None]


@dataclass
class TarSample:
    """Neighbouring members of one key.

    Attributes:
        key: their common name.
        offset: of the first member's header, in bytes.
        offsets: suffix -> where the member's content begins.
        sizes: suffix -> its bytes.
        broken: something of it is missing or stands twice.
    """

    key: str
    offset: int
    offsets: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    broken: bool = False

    def add(self, suffix: str, member: tarfile.TarInfo) -> str | None:
        """Take a member in, or say why not."""
        if not member.isreg() or member.issparse():
            self.broken = True
            return "not a regular file"
        if suffix in self.offsets:
            self.broken = True
            return "second member of this name"
        self.offsets[suffix] = member.offset_data
        self.sizes[suffix] = member.size
        return None


def tar_samples(file: BinaryIO, report: Report) -> Iterator[TarSample]:
    """The samples of a tar, in order; keys may come again.

    Args:
        file: the tar, open for reading in binary; the caller must not move its position.
        report: called with each problem.
    """
    sample: TarSample | None = None
    gap = False
    for member in _members(file, report):
        if member is None:  # the samples on both sides may have lost something
            gap = True
            if sample is not None:
                sample.broken = True
            continue
        key, _, suffix = member.name.removeprefix("./").partition(".")
        refusal = _refusal(member.name, key, suffix)
        if refusal:
            report(TarProblem(key, suffix, member.offset, refusal))
            continue
        if sample is None or sample.key != key or gap:
            if sample is not None:
                yield sample
            sample, gap = TarSample(key, member.offset, broken=gap), False
        refusal = sample.add(suffix, member)
        if refusal:
            report(TarProblem(key, suffix, member.offset, refusal))
    if sample is not None:
        yield sample


def _refusal(name: str, key: str, suffix: str) -> str | None:
    """Why a name cannot be that of a clip's member; None if it can."""
    if not key or "/" in name.removeprefix("./") or not name.isprintable():
        return f"{name!r} is not a member's name"
    if suffix not in MEMBERS:
        return f"unknown member (known are {', '.join(MEMBERS)})"
    return None


def _members(file: BinaryIO, report: Report) -> Iterator[tarfile.TarInfo | None]:
    """The tar's members in order, and None wherever something between them is lost.

    After a damaged header, reading goes on at the next one that is whole.
    """
    size = file.seek(0, 2)
    at: int | None = 0
    while at is not None and at < size:
        stop = yield from _members_from(file, at, size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = _next_header(content, stop + BLOCK)
            ends_here = content[stop : stop + BLOCK] == bytes(BLOCK)
        if at is not None or not ends_here:
            report(TarProblem("", "", stop, "the tar is damaged or cut off here"))
            yield None


def _members_from(file: BinaryIO, begin: int, size: int) -> Generator[tarfile.TarInfo, None, int]:
    """The members from an offset on; returns where the first header stands that is none."""
    stop = begin
    file.seek(begin)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.size < 0 or member.offset_data + member.size > size:
                    break
                yield member
                stop = tar.offset
    except _DAMAGE:
        pass
    return stop


def _next_header(content: mmap.mmap, begin: int) -> int | None:
    """Where the next undamaged header begins, at `begin` or after it; None if there is none."""
    found = content.find(_MAGIC, begin + _MAGIC_OFFSET)
    while found >= 0:
        at = found - _MAGIC_OFFSET
        if at % BLOCK == 0 and _is_header(content[at : at + BLOCK]):
            return at
        found = content.find(_MAGIC, found + 1)
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
