"""Random damage to a small dataset: to its tars, their members, its indexes and `dataset.json`."""

import json
import random
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bad_data import list_anew, put_index
from benchmarks.faults import SHARD, faults
from benchmarks.tars import Part, join_tar, member, npy, npy_header, split_tar
from data_pipeline.clip import MEMBERS
from data_pipeline.shards.dataset import FILE
from data_pipeline.shards.index import ShardIndex, index_path
from data_pipeline.shards.tar import BLOCK

FAULTS = faults(tiny=200, huge=1 << 18)
NUMBERS = (-1, 0, 1, 2, 255, 256, 511, 512, 513, 1 << 15, 1 << 16, 1 << 31, 1 << 33, 1 << 62)
NAMES = (
    "", ".", "..", "/", "k1", "k1.", ".json", "k1.json", "k2.json", "k1.face.npy", "../k1.json",
    "/etc/passwd", "k1\0.json", "k1\n.json", "k1.jpg", "./k1.json", "\u202ek1.json", "x" * 300,
    "k1.speech.npy/..", "dataset.json", "k1.JSON", "\ud800.json", "k1.speech.pickle",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 10**30, 10**400, 1.5, "", "x", "\x00", "\ud800", [], [[]], {}, [None],
    [["a", 0]], [["a", 0, 1e999]], {"a": [1, "b"]}, {"": None}, "so " * 5000,
)  # fmt: skip
FIELDS = ("text", "words", "labels", "duration_s", "speaker", "tags", "language", "more")


def mutate(folder: Path, rng: random.Random) -> str:
    """Damage the dataset in a few places, and its index or not; says what was done."""
    tar = folder / SHARD
    content, done = tar.read_bytes(), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        change = rng.choice(CHANGES)
        done.append(change.__name__.strip("_"))
        content = change(content, rng)
    tar.write_bytes(content)
    change_index = rng.choice(INDEX_CHANGES)
    change_index(folder, rng)
    done.append(change_index.__name__.strip("_"))
    if rng.random() < 0.03:
        _edit_description(folder, rng)
        done.append("description")
    return ", ".join(done)


def _flip(tar: bytes, rng: random.Random) -> bytes:
    """A few bits."""
    content = bytearray(tar)
    for _ in range(rng.choice((1, 1, 2, 8)) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _truncate(tar: bytes, rng: random.Random) -> bytes:
    return tar[: rng.randrange(len(tar) + 1)]


def _splice(tar: bytes, rng: random.Random) -> bytes:
    """A piece is taken out, doubled, or written over another."""
    unit = rng.choice((1, BLOCK))
    begin, end, to = (rng.randrange(len(tar) // unit + 1) * unit for _ in range(3))
    piece = tar[min(begin, end) : max(begin, end)]
    cut = rng.choice((0, len(piece)))
    return tar[:to] + rng.choice((b"", piece)) + tar[to + cut :]


def _fill(tar: bytes, rng: random.Random) -> bytes:
    """Blocks of zeros, of noise, or of what marks a header."""
    at = rng.randrange(len(tar) // BLOCK + 1) * BLOCK
    size = rng.randrange(1, 8) * BLOCK
    what = rng.choice((bytes(size), rng.randbytes(size), b"ustar" * (size // 5)))
    return tar[:at] + what + tar[at + size :]


def _edit_header(tar: bytes, rng: random.Random) -> bytes:
    """A field of a header is another, and the header's checksum is right."""
    headers = [at for at in range(0, len(tar), BLOCK) if tar[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return tar
    at = rng.choice(headers)
    header = bytearray(tar[at : at + BLOCK].ljust(BLOCK, b"\0"))
    field, size = rng.choice(((0, 100), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)))
    header[field : field + size] = _field(size, rng)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:at] + bytes(header) + tar[at + BLOCK :]


def _field(size: int, rng: random.Random) -> bytes:
    if size == 1:
        return rng.choice(b"01234567LKxgXSDMVN\0A").to_bytes(1, "big")
    if size == 12:
        number = rng.choice(NUMBERS)
        octal = b"%011o\0" % max(number, 0)
        binary = b"\x80" + number.to_bytes(11, "big", signed=True)
        return rng.choice((octal[-12:], binary, b"\xff" * 12, rng.randbytes(12)))
    name = rng.choice(NAMES).encode("utf8", "surrogatepass")[:size]
    return rng.choice((name.ljust(size, b"\0"), rng.randbytes(size)))


def _insert(tar: bytes, rng: random.Random) -> bytes:
    """A foreign member, or a header that says something of the next one."""
    at = rng.randrange(len(tar) // BLOCK + 1) * BLOCK
    kind = rng.choice(
        (b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"K", b"x", b"g", b"S", b"Z")
    )
    name = rng.choice(NAMES).encode("utf8", "replace").decode()
    content = rng.choice((b"", b"{}", rng.randbytes(rng.randrange(2000)), _records(rng)))
    size = rng.choice((None, None, *(number for number in NUMBERS if number >= 0)))
    new = member(name, content, size=size, kind=kind, form=tarfile.GNU_FORMAT)
    return tar[:at] + new.raw + tar[at:]


def _records(rng: random.Random) -> bytes:
    """Records of a PAX header, right or not."""
    records = b""
    for _ in range(rng.randrange(4)):
        key = rng.choice(("path", "size", "GNU.sparse.major", "hdrcharset", "x" * 50))
        value = rng.choice((*NAMES, *map(str, NUMBERS))).encode("utf8", "surrogatepass")
        length = len(key) + len(value) + rng.choice((5, 5, 6, 0))
        records += b"%d %s=%s\n" % (length, key.encode(), value)
    return records


def _edit_member(tar: bytes, rng: random.Random) -> bytes:
    """The content of a member is another, in a whole tar."""
    parts = _parts(tar)
    if not parts:
        return tar
    at = rng.randrange(len(parts))
    name = parts[at].name
    content = _json(parts[at], rng) if name.endswith("json") else _array(parts[at], rng)
    return join_tar([*parts[:at], member(name, content), *parts[at + 1 :]])


def _shuffle(tar: bytes, rng: random.Random) -> bytes:
    """Members are left out, doubled, moved or renamed, in a whole tar."""
    parts = _parts(tar)
    for _ in range(rng.randrange(1, 4) if parts else 0):
        part = parts.pop(rng.randrange(len(parts)))
        name = rng.choice(
            (part.name, rng.choice(NAMES), f"k{rng.randrange(4)}.{rng.choice(MEMBERS)}")
        )
        changed = member(name.encode("utf8", "replace").decode(), part.content)
        for one in rng.choice(([], [changed], [part, changed])):
            parts.insert(rng.randrange(len(parts) + 1), one)
        if not parts:
            break
    return join_tar(parts)


def _known_fault(tar: bytes, rng: random.Random) -> bytes:
    """One of the faults that have a name."""
    try:
        return rng.choice(FAULTS).damage(_parts(tar))
    except StopIteration:  # the victim is not there any more
        return tar


def _parts(tar: bytes) -> list[Part]:
    """The members of a tar; none of one that is damaged."""
    try:
        return split_tar(tar)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError, MemoryError):
        return []


def _json(part: Part, rng: random.Random) -> bytes:
    try:
        record = json.loads(part.content)
        record[rng.choice(FIELDS)] = rng.choice(VALUES)
    except (ValueError, TypeError, IndexError, RecursionError):
        record = rng.choice(VALUES)
    text = json.dumps(record).encode()
    broken = (
        text[: rng.randrange(len(text))],
        b"\xff" + text,
        b"[" * rng.choice((10, 10**5)),
        b"7",
    )
    return rng.choice((text, text, text, *broken))


def _array(part: Part, rng: random.Random) -> bytes:
    right = (rng.choice((0, 1, 21, 31, 1000)), 6 if part.name.endswith("face.npy") else 5)
    wrong = tuple(rng.choice((0, 1, 2, 6, 30)) for _ in range(rng.choice((1, 2, 3))))
    shape = rng.choice((right, right, right, wrong))
    dtype = rng.choice((*["<f2"] * 5, "<f4", "<f4", "<f8", ">f2", "<i2", "?", "<c8", "S3", "<U2"))
    value = rng.choice((0, 1, 0.5, 60000, 1e6, float("nan"), float("inf")))
    with np.errstate(all="ignore"):
        rows = np.full(shape, value).astype(dtype)
    long = struct.pack("<H", rng.randrange(1 << 16))
    return rng.choice(
        (
            npy(rows),
            npy(np.asfortranarray(rows)),
            npy_header(rng.choice((1, 30, 10**9 - 1, 10**18)), rng.choice((0, 5, 10**9 - 1))),
            part.content[:8] + long + part.content[10:],
            part.content[: rng.randrange(len(part.content) + 1)],
            part.content + bytes(rng.randrange(1, 100)),
        )
    )


Change = Callable[[bytes, random.Random], bytes]
CHANGES: tuple[Change, ...] = (
    _flip, _flip, _truncate, _splice, _fill, _edit_header, _edit_header, _insert, _insert,
    _edit_member, _edit_member, _shuffle, _known_fault,
)  # fmt: skip


def index_of_before(folder: Path, rng: random.Random) -> None:
    """Nothing is changed but the tar."""


def index_of_now(folder: Path, rng: random.Random) -> None:
    """Made anew from the damaged tar, as `dataset.json` is."""
    if (folder / SHARD).stat().st_size >= 4 * 1024:  # dataset.json would be refused
        list_anew(folder)


def _no_index(folder: Path, rng: random.Random) -> None:
    index_path(folder / SHARD).unlink()


def _evil_index(folder: Path, rng: random.Random) -> None:
    """Valid in itself, with numbers that are not."""
    if rng.random() < 0.5:
        index_of_now(folder, rng)
    put_index(folder, lambda index: _with_evil(index, rng))


def _with_evil(index: ShardIndex, rng: random.Random) -> ShardIndex:
    name = rng.choice(("offsets", "sizes", "lengths", "crcs", "keys"))
    if name == "keys":
        keys = [rng.choice((key, *NAMES[:-2])) for key in index.keys]
        return replace(index, keys=tuple(key.encode("utf8", "replace").decode() for key in keys))
    table = getattr(index, name).copy()
    limits = np.iinfo(table.dtype)
    for _ in range(rng.choice((1, 1, 3, 20)) if table.size else 0):
        near = int(table.flat[rng.randrange(table.size)])
        value = rng.choice((*NUMBERS, limits.min, limits.max, near, near + 512, near - 1))
        table.flat[rng.randrange(table.size)] = min(max(value, limits.min), limits.max)
    return replace(index, **{name: table})


def _damaged_index(folder: Path, rng: random.Random) -> None:
    path = index_path(folder / SHARD)
    path.write_bytes(rng.choice((_flip, _truncate, _splice))(path.read_bytes(), rng))


INDEX_CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    index_of_before, index_of_before, index_of_now, index_of_now, _no_index, _evil_index,
    _damaged_index,
)  # fmt: skip


def _edit_description(folder: Path, rng: random.Random) -> None:
    """`dataset.json` says something else, or is damaged."""
    path = folder / FILE
    info: Any = json.loads(path.read_text("utf8"))
    place = rng.choice((info, info["shards"][0], info["features"], info["features"]["face"]))
    place[rng.choice(list(place))] = rng.choice(VALUES)
    text = json.dumps(info).encode()
    path.write_bytes(rng.choice((text, text, _flip(text, rng), text[: rng.randrange(len(text))])))
