"""Ports for what a test starts, which is some seconds later; nobody else takes them until then."""

import secrets
import socket

LOWEST, HIGHEST = 10_000, 19_999
"""Above are those that Slurm's ranks have, and those that the system gives to whoever asks."""

_kept: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, and that no test gets as long as this process lives."""
    found: list[int] = []
    while len(found) < count:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST + 1)
        if _keep(port):
            found.append(port)
    return found


def _keep(port: int) -> bool:
    """Mark a port by a name that the system gives to one process alone, and takes back at its end.

    Returns:
        Whether no other has it, nor listens on the port.
    """
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0memo-test-port-{port}")
        with socket.socket() as probe:
            probe.bind(("", port))
    except OSError:
        mark.close()
        return False
    _kept.append(mark)
    return True
