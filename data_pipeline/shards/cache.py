"""Fetched shards on this machine, shared by its processes and bounded in size.

Files are named after the sha256 of the shard, so that one of several datasets is there once and one
that was replaced is never mistaken. `<sha256>.lock` is held (flock, which ends with its process) by
whoever writes, opens or removes the shard's files; it is empty and stays. What is being written is
called `.tmp`; one whose lock is free was left behind by a process that was killed.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_pipeline.errors import UserError
from data_pipeline.shards.index import index_path

POLL_S = 0.02
"""How often a process looks whether another one is done with a shard."""

QUIET_S = 2.0
"""How long it does so without a word."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    """A file of the cache."""

    path: Path
    bytes: int
    used_ns: int

    @property
    def left_behind(self) -> bool:
        """Whether it is of no use, unless somebody holds its lock."""
        return self.path.suffix == ".tmp"


class ShardCache:
    """A folder of shards and indexes, of which the least recently used are removed.

    Files that another process is using at this moment are passed over. A map of a removed file
    stays valid; its bytes are free when the map is closed.

    Args:
        folder: made when it is needed.
        most_bytes: what it holds at most, but for what several processes fetch at the same time.
        patience_s: how long a process may hold a shard's lock without writing anything.
        wait: called with the seconds until the next look at a lock.
    """

    def __init__(
        self,
        folder: Path,
        most_bytes: int,
        patience_s: float,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.most_bytes = most_bytes
        self._folder = folder
        self._patience_s = patience_s
        self._wait = wait

    def path(self, sha256: str) -> Path:
        """Where the tar with this hash is, or would be."""
        return self._folder / f"{sha256}.tar"

    @contextmanager
    def locked(self, sha256: str) -> Iterator[None]:
        """Nobody else writes, opens or removes the files of a shard meanwhile.

        Raises:
            UserError: the folder cannot be written, or another process holds the lock and does
                nothing.
        """
        try:
            lock = self._lock(sha256)
        except OSError as error:
            raise self._unusable(error) from None
        with lock:
            try:
                yield
            finally:  # a process that was forked meanwhile has it open as well
                fcntl.flock(lock, fcntl.LOCK_UN)

    def touch(self, sha256: str) -> None:
        """Note that a shard is used; its lock must be held."""
        tar = self.path(sha256)
        for path in (tar, index_path(tar)):
            with suppress(FileNotFoundError):
                os.utime(path)

    def write(self, path: Path, pieces: Iterable[bytes], size: int) -> None:
        """Write a file, whole or not at all; its lock must be held.

        Args:
            path: of the file.
            pieces: its content; what they raise is passed on.
            size: how many bytes they are.

        Raises:
            UserError: there is no room for it.
        """
        if size > self.most_bytes:
            raise UserError(
                f"a shard of {size:,} bytes does not fit into the {self.most_bytes:,} of the "
                "cache; raise remote.cache_gib"
            )
        self._make_room(size)
        temporary = path.with_suffix(f"{path.suffix}.tmp")
        try:
            with temporary.open("wb") as file:
                for piece in pieces:
                    self._append(file, piece)
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _append(self, file: BinaryIO, piece: bytes) -> None:
        """Write at the end; on a full disk, remove other files until it fits."""
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(file.fileno(), rest) :]
            except OSError as error:
                if error.errno not in _FULL or not any(map(self._remove, self._files())):
                    raise

    def _make_room(self, size: int) -> None:
        """Remove what was left behind, and the oldest files until `size` more bytes fit."""
        files = self._files()
        excess = sum(file.bytes for file in files) + size - self.most_bytes
        for file in files:
            if (excess > 0 or file.left_behind) and self._remove(file):
                excess -= file.bytes

    def _files(self) -> list[_File]:
        """What was left behind, then the others, the least recently used first."""
        files = []
        for path in self._folder.iterdir():
            try:
                found = path.stat()
            except FileNotFoundError:  # another process has removed it
                continue
            if path.suffix != ".lock":
                files.append(_File(path, found.st_size, found.st_mtime_ns))
        return sorted(files, key=lambda file: (not file.left_behind, file.used_ns))

    def _remove(self, file: _File) -> bool:
        """Remove a file unless it is in use; whether it was done."""
        sha256 = file.path.name.partition(".")[0]
        with self._lock_path(sha256).open("ab") as lock:
            if not _take(lock) or not file.path.exists():
                return False
            file.path.unlink()
            return True

    def _lock(self, sha256: str) -> BinaryIO:
        """The open lock of a shard; closing it ends it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock_path(sha256).open("ab")
        if not _take(lock):
            self._wait_for(lock, sha256)
        return lock

    def _wait_for(self, lock: BinaryIO, sha256: str) -> None:
        """Wait until another process is done, as long as it gets on."""
        partial = self.path(sha256).with_suffix(".tar.tmp")
        start = since = time.monotonic()
        written, told = -1, False
        while not _take(lock):
            now, found = time.monotonic(), _size(partial)
            if found != written:
                written, since = found, now
            elif now - since > self._patience_s:
                raise UserError(
                    f"another process has held {self._lock_path(sha256)} for "
                    f"{self._patience_s:.0f} s and written nothing; end it"
                )
            if now - start > QUIET_S and not told:
                told = True
                _log.warning("waiting for another process that fetches %s", self.path(sha256))
            self._wait(POLL_S)

    def _lock_path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.lock"

    def _unusable(self, error: OSError) -> UserError:
        return UserError(
            f"{self._folder} cannot take a shard: {error.strerror}; make room, or set MEMO_CACHE "
            "to another folder"
        )


def _take(lock: BinaryIO) -> bool:
    """Lock an open file until it is closed, unless another process has; whether it was done."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
