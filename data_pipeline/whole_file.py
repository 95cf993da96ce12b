"""Files that are there whole or not at all, whoever is killed and however full the disk is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written under a temporary name, which is renamed at the end.

    After an error nothing is left of it; after a kill, a file whose name ends in `.tmp`.

    Args:
        path: of the file, in a folder that there is.

    Raises:
        OSError: it cannot be written; names the path.
    """
    # A random name: processes of two machines may have one number.
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _of(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """The file is there whole or not at all; see `whole_file`."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system names this path if it names none, as that of a write does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise _of(path, error) from error
        raise


def _of(path: Path, error: OSError) -> OSError:
    """The error, as one of this path."""
    return OSError(error.errno, error.strerror, str(path))
