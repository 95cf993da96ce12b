"""Stepping through a tar that may be damaged, foreign or evil: its samples, and what is wrong.

Only headers are read, none of more than `MOST_EXTRA` bytes, and nothing is kept but the samples, so
that neither memory nor time can be blown up by what a header declares. (Python's tarfile keeps all
members, and reads extended headers of any size.) A sample is unusable if something of it was lost,
stands twice or elsewhere, or is none of a clip's members, for what is left could pass for a clip
that lacks a modality. Nothing that is wrong with one sample loses another.
"""

import mmap
import sys
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from data_pipeline.clip import MEMBERS, MOST_BYTES, TOO_LARGE, Fault, is_key

BLOCK = 512
"""Tar headers and members begin at multiples of this many bytes."""

MOST_EXTRA = 1 << 16
"""Bytes of a PAX or GNU header that says more of the next member; a longer one is damage."""

MOST_EXTRAS = 4
"""Such headers of one member; more are damage."""

Content: TypeAlias = mmap.mmap | bytes
"""All of a tar."""

_MAGIC = b"ustar"
_MAGIC_OFFSET = 257
"""What marks a header, and where in it."""

_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTRA = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
"""Types of headers that say more of what follows."""


@dataclass(frozen=True)
class TarProblem:
    """Something in a tar that is no part of a usable sample.

    Attributes:
        key: of the sample, "" where unknown.
        member: suffix of the member, "" where unknown.
        offset: of its header in the tar, in bytes.
        reason: what is wrong, in one line that can be shown.
        fault: the kind of it.
    """

    key: str
    member: str
    offset: int
    reason: str
    fault: Fault


@dataclass
class TarSample:
    """The members of one key.

    Attributes:
        key: their common name.
        offset: of the first member's header, in bytes.
        offsets: suffix -> where the member's content begins.
        sizes: suffix -> its bytes.
        end: where the last of them ends.
        twice: suffixes that stand there more than once; the first is in `offsets`.
        flaws: the first problem of each kind; without any the sample can be used.
    """

    key: str
    offset: int
    offsets: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    end: int = 0
    twice: set[str] = field(default_factory=set)
    flaws: dict[Fault, TarProblem] = field(default_factory=dict)

    @property
    def is_stray(self) -> bool:
        """Whether no member of this key can be a clip's; one that is too large could."""
        return not self.offsets and Fault.LARGE not in self.flaws

    def members(self, tar: memoryview) -> dict[str, memoryview]:
        """Suffix -> content, as slices of the tar, of what stands there once."""
        return {
            suffix: tar[at : at + self.sizes[suffix]]
            for suffix, at in self.offsets.items()
            if suffix not in self.twice
        }

    def note(self, problem: TarProblem) -> TarProblem:
        """Take a problem down."""
        self.flaws.setdefault(problem.fault, problem)
        return problem


def map_tar(path: Path) -> Content:
    """A tar as a memory map; an empty file cannot be mapped."""
    with path.open("rb") as file:
        empty = not file.seek(0, 2)
        return b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def tar_samples(
    content: Content, most: int = sys.maxsize
) -> Generator[TarProblem, None, list[TarSample]]:
    """The samples of a tar.

    Args:
        content: the tar.
        most: of a tar with more samples the first are taken; memory grows with this number only.

    Yields:
        Each problem.

    Returns:
        The samples in the tar's order; behind them those keys of which no member is a clip's.
    """
    samples = _Samples(most)
    for found in _members(content):
        if isinstance(found, int):
            yield from samples.tear(found)
        else:
            yield from samples.add(found)
    return samples.all()


def found_samples(content: Content, most: int = sys.maxsize) -> list[TarSample]:
    """What `tar_samples` returns; its problems are in the samples that they concern."""
    scan = tar_samples(content, most)
    while True:
        try:
            next(scan)
        except StopIteration as end:
            samples: list[TarSample] = end.value
            return samples


@dataclass(frozen=True)
class _Member:
    """A member of a tar.

    Attributes:
        name: its path.
        offset: of its first header.
        begin, size: of its content.
        end: where the next header stands.
        regular: a plain file, without holes.
    """

    name: str
    offset: int
    begin: int
    size: int
    end: int
    regular: bool


class _Samples:
    """The samples found so far.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._samples: dict[str, TarSample] = {}
        self._strays: dict[str, TarSample] = {}
        self._last: TarSample | None = None
        self._torn_at: int | None = None

    def all(self) -> list[TarSample]:
        """Samples, then strays, which so change no sample's number."""
        return [*self._samples.values(), *self._strays.values()]

    def tear(self, at: int) -> Iterator[TarProblem]:
        """Something is lost here; the samples on both sides may have had members there."""
        yield TarProblem("", "", at, "the tar is damaged or cut off here", Fault.LOST)
        self._torn_at = at
        if self._last is not None:
            yield from self._note_tear(self._last)

    def add(self, member: _Member) -> Iterator[TarProblem]:
        """Take a member in, or say why not."""
        name = member.name.removeprefix("./")
        key, _, suffix = name.rpartition("/")[2].partition(".")
        reason = _refusal(name, key, suffix, member.regular)
        if reason is not None:
            yield self._refuse(key, suffix, member.offset, reason)
            return
        sample = self._sample(key, member.offset)
        if sample is None:
            return
        if self._torn_at is not None:
            yield from self._note_tear(sample)
        yield from _fit(sample, suffix, member)
        sample.end = member.end
        self._last, self._torn_at = sample, None

    def _sample(self, key: str, offset: int) -> TarSample | None:
        """The sample of this key, a new one if need be; None of one too many."""
        sample = self._samples.get(key)
        if sample is None and len(self._samples) < self._most:
            sample = self._strays.pop(key, None) or TarSample(key, offset)
            self._samples[key] = sample
        return sample

    def _refuse(self, key: str, suffix: str, offset: int, reason: str) -> TarProblem:
        """A member that is none of a clip's: its sample, if it has one, may lack something."""
        if not is_key(key):
            return TarProblem("", "", offset, reason, Fault.FOREIGN)
        shown = suffix if is_key(suffix.replace(".", "")) else ""
        problem = TarProblem(key, shown, offset, reason, Fault.FOREIGN)
        sample = self._samples.get(key) or self._strays.get(key)
        if sample is None and len(self._strays) < self._most:
            sample = self._strays[key] = TarSample(key, offset)
        return sample.note(problem) if sample else problem

    def _note_tear(self, sample: TarSample) -> Iterator[TarProblem]:
        if Fault.LOST not in sample.flaws:
            reason = f"may have lost members: the tar is damaged or cut off at byte {self._torn_at}"
            yield sample.note(TarProblem(sample.key, "", sample.offset, reason, Fault.LOST))


def _fit(sample: TarSample, suffix: str, member: _Member) -> Iterator[TarProblem]:
    """Put a member into its sample."""
    place = sample.key, suffix, member.offset
    if suffix in sample.offsets:
        sample.twice.add(suffix)
        yield sample.note(TarProblem(*place, "second member of this name", Fault.TWICE))
        return
    if sum(sample.sizes.values()) + member.size > MOST_BYTES:
        yield sample.note(TarProblem(*place, TOO_LARGE, Fault.LARGE))
        return
    if sample.offsets and member.offset != sample.end and not sample.flaws:
        reason = "members of this key stand elsewhere, too"
        yield sample.note(TarProblem(sample.key, "", member.offset, reason, Fault.APART))
    sample.offsets[suffix] = member.begin
    sample.sizes[suffix] = member.size


def _refusal(name: str, key: str, suffix: str, regular: bool) -> str | None:
    """Why a member cannot be a clip's; None if it can."""
    if not is_key(key) or "/" in name or not name.isprintable():
        return f"{name!r:.100} is not a member's name"
    if suffix not in MEMBERS:
        return f"unknown member (known are {', '.join(MEMBERS)})"
    return None if regular else "not a regular file"


def _members(content: Content) -> Iterator[_Member | int]:
    """The tar's members in order, and wherever something between them is lost, its offset.

    After a damaged header, reading goes on at the next one that is whole.
    """
    at, size, closed = 0, len(content), True
    while at < size:
        member = _member(content, at)
        closed = member is None
        if member is not None:
            yield member
            at = member.end
            continue
        following = _next_header(content, at + BLOCK)
        if following < size or content[at : at + BLOCK] != bytes(BLOCK):
            yield at
        at = following
    if not closed:  # there is no mark of the end
        yield size


def _member(content: Content, at: int) -> _Member | None:
    """The member whose first header stands here; None if it is damaged, or cut off."""
    said: dict[bytes, bytes] = {}
    header, begin = _header(content, at), at + BLOCK
    for _ in range(MOST_EXTRAS):
        if header is None or header.type not in _EXTRA:
            break
        end = begin + _padded(header.size)
        if not begin <= end <= len(content) or not _read_extra(header, content, begin, said):
            return None
        header, begin = _header(content, end), end + BLOCK
    if header is None or header.type in _EXTRA:
        return None
    has_content = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
    size = int(said.get(b"size", header.size)) if has_content else 0
    end = begin + _padded(size)
    if size < 0 or end > len(content):
        return None
    name = said[b"path"].decode("utf8", "surrogateescape") if b"path" in said else header.name
    holes = header.type == tarfile.GNUTYPE_SPARSE or any(b"GNU.sparse" in key for key in said)
    return _Member(name, at, begin, size, end, header.isreg() and not holes)


def _read_extra(
    header: tarfile.TarInfo, content: Content, begin: int, said: dict[bytes, bytes]
) -> bool:
    """Enter what an extra header says of the next member; False if it makes no sense."""
    if header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
        return True
    if header.size > MOST_EXTRA:
        return False
    text = content[begin : begin + header.size]
    if header.type == tarfile.GNUTYPE_LONGNAME:
        said[b"path"] = text.partition(b"\0")[0]
        return True
    try:
        said |= _pax_records(text)
        int(said.get(b"size", 0))
    except ValueError:
        return False
    return True


def _pax_records(text: bytes) -> dict[bytes, bytes]:
    r"""Keyword -> value of lines `<bytes of the line> <keyword>=<value>\n`.

    Raises:
        ValueError: it is something else.
    """
    records, at = {}, 0
    while at < len(text) and text[at]:
        space = text.index(b" ", at, at + 8)
        end = at + int(text[at:space])
        keyword, equals, value = text[space + 1 : end - 1].partition(b"=")
        if not equals or end > len(text) or text[end - 1 : end] != b"\n":
            raise ValueError("no records of a PAX header")
        records[keyword] = value
        at = end
    return records


def _next_header(content: Content, begin: int) -> int:
    """Where the next undamaged header begins, at `begin`, a block's, or after it; else the end."""
    # Not by `find`: Python 3.11.2's looks at the byte behind a map, and dies where there is none.
    for at in range(begin, len(content), BLOCK):
        magic = content[at + _MAGIC_OFFSET : at + _MAGIC_OFFSET + len(_MAGIC)]
        if magic == _MAGIC and _header(content, at) is not None:
            return at
    return len(content)


def _header(content: Content, at: int) -> tarfile.TarInfo | None:
    """The header in this block; None if it is none, or damaged."""
    try:
        return tarfile.TarInfo.frombuf(content[at : at + BLOCK], "utf8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def _padded(size: int) -> int:
    """Bytes that a content of this size takes in a tar."""
    return -(-size // BLOCK) * BLOCK
