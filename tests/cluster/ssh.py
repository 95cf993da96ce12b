"""A real sshd on two addresses of this machine, and an `ssh` that knows it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.slurm import NODES, SEARCHED
from tests.ports import free_ports

PROGRAMS = ("sshd", "ssh", "ssh-keygen", "pdsh")
SERVER = """
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
"""
CLIENT = """
Host *
    Port {port}
    IdentityFile {folder}/user
    UserKnownHostsFile {folder}/known
    StrictHostKeyChecking no
    LogLevel ERROR
"""


def missing_programs() -> list[str]:
    """Those of `PROGRAMS` that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]


@contextmanager
def ssh_between_nodes() -> Iterator[Path]:
    """A folder with an `ssh` that needs no password; the server ends with it."""
    with tempfile.TemporaryDirectory(prefix="memo-ssh-") as name:
        folder = Path(name)
        _configure(folder)
        with _server(folder) as server:
            _wait_for(server, folder)
            try:
                yield folder
            finally:
                server.terminate()


def _configure(folder: Path) -> None:
    """Keys, settings of both sides, and `ssh` with its own."""
    for key in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(command, check=True)
    port = free_ports(1)[0]
    listening = "".join(f"ListenAddress {node}\n" for node in NODES)
    (folder / "server").write_text(listening + SERVER.format(port=port, folder=folder))
    (folder / "client").write_text(CLIENT.format(port=port, folder=folder))
    real = shutil.which("ssh", path=SEARCHED)
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {folder}/client "$@"\n')
    (folder / "ssh").chmod(0o755)


def _server(folder: Path) -> subprocess.Popen[bytes]:
    """The daemon, which the kernel kills if this process dies without stopping it."""
    if os.geteuid() == 0:  # where the service has never been started it is not there
        Path("/run/sshd").mkdir(exist_ok=True)
    sshd = str(shutil.which("sshd", path=SEARCHED))
    command = ["setpriv", "--pdeathsig", "KILL", sshd, "-D", "-e", "-f", str(folder / "server")]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(command, stderr=said)


def _wait_for(server: subprocess.Popen[bytes], folder: Path) -> None:
    """Until it answers.

    Raises:
        RuntimeError: it has ended, or is silent for too long; with what it said.
    """
    end = time.monotonic() + 30
    probe = [str(folder / "ssh"), NODES[1], "true"]
    while subprocess.run(probe, check=False, capture_output=True).returncode:
        if time.monotonic() > end or server.poll() is not None:
            server.terminate()
            raise RuntimeError(f"sshd does not start: {(folder / 'said').read_text('utf8')}")
        time.sleep(0.1)
