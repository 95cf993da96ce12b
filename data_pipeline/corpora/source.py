"""Where a corpus's raw files lie: a folder, a tar or zip archive, or one table; read in place."""

import bz2
import csv
import gzip
import io
import lzma
import os
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO

from data_pipeline.errors import UserError
from data_pipeline.whole_file import whole_file

WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
"""For `str.translate`: control characters that were letters and marks on a Windows machine."""

LARGE = 64 * 2**20
"""Bytes of a file that is not held in memory, if that can be helped."""

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
"""What reading a damaged archive raises."""


TABLES = (".csv", ".tsv", ".txt")
"""Suffixes of a file that is a corpus by itself."""

_BLOCK = 1 << 18
"""Bytes that are unpacked at once."""

LOST = "lost+found"
"""A folder in which file systems keep what they have found astray; only the superuser sees it."""


class Source(ABC):
    """Raw files by their name relative to the corpus's root, `/` between folders.

    Attributes:
        name: name of the folder or archive, without suffix.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.resolve().name.partition(".")[0]

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all regular files, sorted; without what macOS leaves beside them.

        Raises:
            UserError: a folder cannot be looked into.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            KeyError: there is no such file.
            OSError: it cannot be read, or its archive is damaged there.
        """

    @abstractmethod
    def stamp(self, name: str) -> str:
        """What is another as soon as the file's bytes are, as far as that can be told unread.

        Raises:
            KeyError: there is no such file.
        """

    def open(self, name: str) -> BinaryIO:
        """One file, to be read here and there.

        A large one in a folder or a plain tar takes no memory; of a zip it is unpacked into a
        temporary file.

        Raises:
            KeyError: there is no such file.
            OSError: see `read`.
        """
        return io.BytesIO(self.read(name))


def read_table(
    source: Source, name: str, corpus: str, columns: Sequence[str]
) -> list[dict[str, str]]:
    """The lines of a UTF-8 table with a header, as column -> value.

    A `.tsv` file has a tab between its columns and no quotes, and so has a `.csv` file with tabs
    and no comma in its header; other `.csv` files are comma-separated.

    Args:
        source: the corpus's files.
        name: of the table.
        corpus: for messages.
        columns: that it must have.

    Raises:
        UserError: the source has no such table, it is not UTF-8, lacks a column, or has a line of
            another number of columns.
    """
    return parse_table(read_text(source, name, corpus), name, corpus, columns)


def parse_table(text: str, name: str, corpus: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """See `read_table`.

    Raises:
        UserError: the table lacks a column, has one twice, has a line of another number of columns,
            or cannot be read as a table.
    """
    header = text.partition("\n")[0]
    tabs = name.lower().endswith(".tsv") or ("\t" in header and "," not in header)
    reader = csv.DictReader(
        io.StringIO(text, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
    )
    try:
        names = reader.fieldnames or ()
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{corpus}: line {reader.line_num + 1} of {name}: {error}") from None
    if missing := [column for column in columns if column not in names]:
        raise UserError(f"{corpus}: {name} has no column {missing[0]!r}")
    if twice := [column for column in names if column and names.count(column) > 1]:
        raise UserError(f"{corpus}: {name} has two columns {twice[0]!r}; rename or remove one")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UserError(f"{corpus}: line {number} of {name} has not as many columns as line 1")
    return rows


def read_text(source: Source, name: str, corpus: str) -> str:
    """A UTF-8 file.

    Raises:
        UserError: the source has none of this name, or it is not UTF-8.
    """
    try:
        return source.read(name).decode("utf-8-sig")
    except KeyError:
        raise UserError(f"{corpus}: the source has no {name}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{corpus}: {name} is not UTF-8 ({error.reason}); save it so") from None


def decode_western(content: bytes) -> str:
    """Text in UTF-8, or where it is not, what a Windows machine wrote."""
    try:
        return content.decode("utf-8-sig").translate(WINDOWS)
    except UnicodeDecodeError:
        return content.decode("latin-1").translate(WINDOWS)


def by_stem(names: Iterable[str], suffixes: Sequence[str]) -> dict[str, str]:
    """The files with one of some suffixes, by their name without folders and suffix.

    Args:
        names: of all files, sorted.
        suffixes: `.avi`, `.wav`, ... in lower case; of several files of one stem, that with the
            earliest suffix is taken, and the first of those.
    """
    found: dict[str, tuple[int, str]] = {}
    for name in names:
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        if suffix in suffixes:
            rank = suffixes.index(suffix)
            if path.stem not in found or rank < found[path.stem][0]:
                found[path.stem] = rank, name
    return {stem: name for stem, (_, name) in found.items()}


def find_file(source: Source, name: str) -> str:
    """The full name of a file in whatever folder it lies; the name itself if there is none."""
    return next((one for one in source.names() if PurePosixPath(one).name == name), name)


def check_files(source: Source, files: Sequence[str], corpus: str) -> None:
    """The files that a table names must be there.

    Raises:
        UserError: names the first that is not.
    """
    present = set(source.names())
    missing = [name for name in files if name not in present]
    if missing:
        raise UserError(
            f"{corpus}: no file {missing[0]} ({len(missing)} are missing); --source is the folder "
            "or archive that names count from, with / between folders"
        )


def open_source(path: Path, option: str = "--source") -> Source:
    """Open a folder, a tar archive (plain or compressed), a zip archive, or a single table or text.

    A table of pixels (`face_table.py`) is the pictures that are in it.

    Args:
        path: of it.
        option: by which it was given, for messages.

    Raises:
        UserError: the path is missing or is neither.
    """
    from data_pipeline.corpora.face_table import (  # noqa: PLC0415  (it is a source itself)
        FaceTable,
        is_face_table,
    )

    if path.is_dir():
        return _Folder(path, option)
    if not path.exists():
        raise UserError(f"{option}: there is no {path}; give the corpus's folder or archive")
    if path.suffix.lower() in TABLES:
        return FaceTable(path) if is_face_table(path) else _File(path)
    try:
        if zipfile.is_zipfile(path):
            return _Zip(path)
        if tarfile.is_tarfile(path):
            return _Archive(path)
    except DAMAGED as error:
        raise _damaged(path, error, option) from None
    raise UserError(f"{option}: {path} is neither a folder nor a tar or zip archive")


def _damaged(path: Path, error: Exception, option: str = "--source") -> UserError:
    return UserError(f"{option}: {path} cannot be read ({error}); fetch it again if it is damaged")


def unpacked(path: Path, folder: Path) -> Path:
    """A tar archive as a plain tar; other sources stay where they are.

    A compressed archive can only be read from its beginning, again and again for files that are not
    wanted in its order.

    Args:
        path: a folder or archive.
        folder: where the plain tar is written, whole or not at all, and found again.
    """
    opener = _opener(path)
    if opener is None:
        return path
    made_of = file_stamp(path).replace(" ", "-")  # what has been replaced since is unpacked anew
    plain = folder / f"{path.name.partition('.')[0]}.{made_of}.tar"
    if not plain.exists():
        with whole_file(plain) as file:
            file.writelines(_unpacked(path, opener))
    return plain


def _unpacked(path: Path, opener: Callable[[Path], IO[bytes]]) -> Iterator[bytes]:
    """The content of a compressed file, in blocks.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with opener(path) as packed:
            while block := packed.read(_BLOCK):
                yield block
    except DAMAGED as error:
        raise _damaged(path, error) from None


def _opener(path: Path) -> Callable[[Path], IO[bytes]] | None:
    """What decompresses a file; None of a folder, and of what is not compressed."""
    if path.is_dir() or path.suffix.lower() in TABLES:
        return None
    with path.open("rb") as file:
        magic = file.read(6)
    openers: dict[bytes, Callable[[Path], Any]] = {
        b"\x1f\x8b": gzip.open,
        b"BZh": bz2.open,
        b"\xfd7zXZ\0": lzma.open,
    }
    return next((one for start, one in openers.items() if magic.startswith(start)), None)


class _Folder(Source):
    def __init__(self, root: Path, option: str) -> None:
        super().__init__(root)
        self._root = root
        self._option = option

    def names(self) -> list[str]:
        found: list[str] = []
        for folder, folders, files in os.walk(self._root, onerror=self._unreadable):
            if LOST in folders:
                folders.remove(LOST)
            paths = (Path(folder, name) for name in files if not _is_litter(name))
            found += (path.relative_to(self._root).as_posix() for path in paths if path.is_file())
        return sorted(found)

    def _unreadable(self, error: OSError) -> None:
        """What lies in such a folder would be missing, and nobody would know."""
        raise UserError(
            f"{self._option}: {error.filename} cannot be read ({error.strerror}); make it "
            "readable, or move it away"
        )

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def stamp(self, name: str) -> str:
        return file_stamp(self._path(name))

    def open(self, name: str) -> BinaryIO:
        return self._path(name).open("rb")

    def _path(self, name: str) -> Path:
        path = self._root / name
        outside = ".." in PurePosixPath(name).parts or Path(name).is_absolute()
        if outside or not path.is_file():
            raise KeyError(name)
        return path


class _File(Source):
    """A table on its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path

    def names(self) -> list[str]:
        return [self._path.name]

    def read(self, name: str) -> bytes:
        if name != self._path.name:
            raise KeyError(name)
        return self._path.read_bytes()

    def stamp(self, name: str) -> str:
        return file_stamp(self._path)


def file_stamp(path: Path) -> str:
    """What is another as soon as a file's bytes are: its size and time."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _is_litter(name: str) -> bool:
    """Whether a file is none of the corpus, but macOS's own notes about one of its files."""
    return name.startswith("._") or name == ".DS_Store"


def _from_root(names: Iterable[str]) -> dict[str, str]:
    """Name from the root -> name in the archive; a single top folder, if there is one, is it."""
    paths = {PurePosixPath(name): name for name in names}
    files = {path.as_posix(): name for path, name in paths.items() if not _is_litter(path.name)}
    tops = {name.partition("/")[0] for name in files}
    only_top = len(tops) == 1 and all("/" in name for name in files)
    root = f"{tops.pop()}/" if only_top else ""
    return {name.removeprefix(root): full for name, full in files.items()}


@contextmanager
def _readable() -> Iterator[None]:
    """Turn all that reading a member raises into one kind of error."""
    try:
        yield
    except (*DAMAGED, RuntimeError) as error:  # the latter: a password, or an unknown packing
        raise OSError(f"its archive: {error}") from None


class _Zip(Source):
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._archive = zipfile.ZipFile(path)
        self._lock = threading.Lock()
        self._members = _from_root(
            one.filename for one in self._archive.infolist() if not one.is_dir()
        )

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with self._lock, _readable():
            return self._archive.read(member)

    def open(self, name: str) -> BinaryIO:
        member = self._members[name]
        if self._archive.getinfo(member).file_size <= LARGE:
            return super().open(name)
        with ExitStack() as unless_whole:
            file = unless_whole.enter_context(TemporaryFile())
            file.writelines(self._blocks(member))
            unless_whole.pop_all()
        file.seek(0)
        return file

    def _blocks(self, member: str) -> Iterator[bytes]:
        """Its content; what fails while a block is written is no fault of the archive."""
        with self._lock, _readable(), self._archive.open(member) as packed:
            while block := packed.read(_BLOCK):
                yield block

    def stamp(self, name: str) -> str:
        member = self._archive.getinfo(self._members[name])
        return f"{member.file_size} {member.CRC}"


class _Window(io.RawIOBase):
    """A part of a file, as a file.

    Args:
        path: of the file, which is opened anew: others read it elsewhere.
        begin: of the part, in bytes.
        size: of it.
    """

    def __init__(self, path: Path, begin: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._begin, self._size, self._at = begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}
        self._at = max(bases[whence] + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  (whatever can be written to)
        self._file.seek(self._begin + self._at)
        content = self._file.read(min(len(buffer), max(self._size - self._at, 0)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Archive(Source):
    """A tar archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._plain = None if _opener(path) else path
        self._archive = tarfile.open(path)  # noqa: SIM115  (open as long as the source is used)
        self._lock = threading.Lock()
        files = {member.name: member for member in self._archive if member.isfile()}
        self._members = {name: files[full] for name, full in _from_root(files).items()}

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with self._lock, _readable():
            file = self._archive.extractfile(member)
            assert file is not None, "only regular files are listed"
            return file.read()

    def open(self, name: str) -> BinaryIO:
        member = self._members[name]
        if self._plain is None or member.issparse():
            return super().open(name)
        return io.BufferedReader(_Window(self._plain, member.offset_data, member.size))

    def stamp(self, name: str) -> str:
        member = self._members[name]
        return f"{member.size} {member.mtime}"
