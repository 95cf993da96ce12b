"""The cache of shards: whole files or none, a bounded size, and other processes."""

import errno
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from time import sleep

import pytest

from data_pipeline.errors import UserError
from data_pipeline.shards.cache import ShardCache

SIZE = 1000
NAMES = [sha256(bytes([number])).hexdigest() for number in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cache_of(folder: Path, shards: float = 3) -> ShardCache:
    return ShardCache(folder, int(shards * SIZE), patience_s=0.1)


def content(name: str) -> bytes:
    return bytes.fromhex(name[:2]) * SIZE


def put(cache: ShardCache, name: str) -> Path:
    """Write a shard as a store does, in two pieces."""
    path = cache.path(name)
    with cache.locked(name):
        whole = content(name)
        cache.write(path, iter([whole[:700], whole[700:]]), SIZE)
    os.utime(path, (0, NAMES.index(name)))  # as if it were long ago, one after the other
    return path


def kept(folder: Path) -> list[str]:
    """What there is but for locks, which are empty."""
    assert not any(path.stat().st_size for path in folder.glob("*.lock"))
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def tars(*numbers: int) -> list[str]:
    return sorted(f"{NAMES[number]}.tar" for number in numbers)


def test_the_least_recently_used_goes_first(folder: Path) -> None:
    cache = cache_of(folder)
    for name in NAMES[:3]:
        put(cache, name)
    assert kept(folder) == tars(0, 1, 2)
    with cache.locked(NAMES[0]):
        cache.touch(NAMES[0])
    assert put(cache, NAMES[3]).read_bytes() == content(NAMES[3])
    assert kept(folder) == tars(0, 2, 3)
    for name in NAMES[4:]:
        put(cache, name)
    assert kept(folder) == tars(0, 4, 5)


def test_a_shard_that_is_in_use_stays(folder: Path) -> None:
    cache, other = cache_of(folder), cache_of(folder)
    for name in NAMES[:3]:
        put(cache, name)
    with other.locked(NAMES[0]):
        put(cache, NAMES[3])
    assert kept(folder) == tars(0, 2, 3)


def test_what_killed_processes_left_is_removed(folder: Path) -> None:
    cache, other = cache_of(folder), cache_of(folder)
    put(cache, NAMES[0])
    for name in NAMES[1:3]:
        (folder / f"{name}.tar.tmp").write_bytes(b"half")
    with other.locked(NAMES[2]):  # somebody is still at it
        put(cache, NAMES[3])
    assert kept(folder) == sorted([*tars(0, 3), f"{NAMES[2]}.tar.tmp"])


def test_what_breaks_off_leaves_nothing(folder: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise KeyError("gone")

    cache = cache_of(folder)
    with cache.locked(NAMES[0]), pytest.raises(KeyError):
        cache.write(cache.path(NAMES[0]), broken(), SIZE)
    assert kept(folder) == []


def test_a_shard_that_can_never_fit_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"1,000 bytes does not fit .* raise remote\.cache_gib"):
        put(cache_of(folder, shards=0.9), NAMES[0])
    assert kept(folder) == []


def fill(folder: Path, capacity: int, patch: pytest.MonkeyPatch) -> None:
    """From now on the files of a folder share so many bytes; the last write takes what is left."""
    write = os.write

    def limited(file: int, content: memoryview) -> int:
        used = sum(path.stat().st_size for path in folder.iterdir())
        if used >= capacity:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content[: capacity - used])

    patch.setattr(os, "write", limited)


def test_on_a_full_disk_other_shards_make_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(folder, shards=100)
    fill(folder, int(2.5 * SIZE), monkeypatch)
    for name in NAMES[:3]:
        assert put(cache, name).read_bytes() == content(name)
    assert kept(folder) == tars(1, 2)


def test_a_disk_that_stays_full_is_said_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, other = cache_of(folder, shards=100), cache_of(folder)
    fill(folder, int(1.5 * SIZE), monkeypatch)
    put(cache, NAMES[0])
    with (
        other.locked(NAMES[0]),
        pytest.raises(UserError, match="No space left on device; make room, or set MEMO_CACHE"),
    ):
        put(cache, NAMES[1])
    assert kept(folder) == tars(0)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/cache cannot take a shard: Not a directory"):
        put(cache_of(tmp_path / "file" / "cache"), NAMES[0])


def test_a_process_that_does_nothing_is_not_waited_for(folder: Path) -> None:
    cache, stuck = cache_of(folder), cache_of(folder)
    with (
        stuck.locked(NAMES[0]),
        pytest.raises(UserError, match=rf"held .*{NAMES[0]}\.lock for 0 s and written nothing"),
    ):
        put(cache, NAMES[0])
    put(cache, NAMES[0])


def test_a_process_that_gets_on_is_waited_for(folder: Path) -> None:
    """Each look at the lock finds more written, for three times as long as the patience."""
    partial = folder / f"{NAMES[0]}.tar.tmp"
    busy = cache_of(folder)
    held = busy.locked(NAMES[0])
    looks = 0

    def work(_: float) -> None:
        nonlocal looks
        looks += 1
        partial.write_bytes(bytes(looks))
        if looks == 10:
            held.__exit__(None, None, None)
        else:
            sleep(0.03)

    cache = ShardCache(folder, SIZE, patience_s=0.1, wait=work)
    held.__enter__()
    assert put(cache, NAMES[0]).read_bytes() == content(NAMES[0])
    assert looks == 10
