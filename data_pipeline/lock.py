"""A lock that ends with its process, however that ends."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.errors import UserError

_log = logging.getLogger(__name__)


@contextmanager
def sole_process(path: Path, doing: str, instead: str) -> Iterator[None]:
    """No other process, on whatever machine, holds the lock of this file meanwhile.

    Where the file system knows no locks there is a warning instead.

    Args:
        path: made if it is not there; says who holds it.
        doing: what another process does then, for the message: "a is being built".
        instead: what would be right, for the message.

    Raises:
        UserError: another one holds it; says which and where.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(f"{doing} by {holder}; {instead}") from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): start no second one", path, error)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
