"""Where a corpus's raw files lie: a folder or a tar archive, read in place and never unpacked."""

import csv
import io
import tarfile
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from data_pipeline.errors import UserError


class Source(ABC):
    """Raw files by their name relative to the corpus's root, `/` between folders.

    Attributes:
        name: name of the folder or archive, without suffix.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name.partition(".")[0]

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all regular files, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            KeyError: there is no such file.
        """


def read_table(source: Source, name: str, corpus: str, delimiter: str) -> list[dict[str, str]]:
    """The lines of a UTF-8 table with a header, as column -> value.

    Args:
        source: the corpus's files.
        name: of the table.
        corpus: for messages.
        delimiter: between columns.

    Raises:
        UserError: the source has no such table, or it is not UTF-8.
    """
    try:
        text = source.read(name).decode("utf-8-sig")
    except KeyError:
        raise UserError(f"{corpus}: the source has no {name}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{corpus}: {name} is not UTF-8 ({error.reason})") from None
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def open_source(path: Path) -> Source:
    """Open a folder or a tar archive (plain or compressed).

    Raises:
        UserError: the path is missing or is neither.
    """
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise UserError(f"--source: there is no {path}; give the corpus's folder or tar archive")
    if not tarfile.is_tarfile(path):
        raise UserError(f"--source: {path} is neither a folder nor a tar archive")
    return _Archive(path)


class _Folder(Source):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._root = root

    def names(self) -> list[str]:
        files = (path for path in self._root.rglob("*") if path.is_file())
        return sorted(path.relative_to(self._root).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        path = self._root / name
        if not path.is_file():
            raise KeyError(name)
        return path.read_bytes()


class _Archive(Source):
    """A tar archive; its single top folder, if it has one, is the root."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._archive = tarfile.open(path)  # noqa: SIM115  (open as long as the source is used)
        self._lock = threading.Lock()
        files = {member.name: member for member in self._archive if member.isfile()}
        tops = {name.partition("/")[0] for name in files}
        only_top = len(tops) == 1 and all("/" in name for name in files)
        root = f"{tops.pop()}/" if only_top else ""
        self._members = {name.removeprefix(root): member for name, member in files.items()}

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        with self._lock:
            file = self._archive.extractfile(member)
            assert file is not None, "only regular files are listed"
            return file.read()
