"""A real sshd on two addresses of this machine, and an `ssh` that knows it."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.slurm import NODES, SEARCHED, free_ports

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


class SecureShell:
    """A context manager; `folder` has an `ssh` that needs no password between the nodes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memo-ssh-"))

    def __enter__(self) -> Self:
        port = free_ports(1)[0]
        for name in ("host", "user"):
            path = str(self.folder / name)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        listening = "".join(f"ListenAddress {node}\n" for node in NODES)
        server = listening + SERVER.format(port=port, folder=self.folder)
        (self.folder / "server").write_text(server)
        (self.folder / "client").write_text(CLIENT.format(port=port, folder=self.folder))
        ssh = self.folder / "ssh"
        real = shutil.which("ssh", path=SEARCHED)
        ssh.write_text(f'#!/bin/sh\nexec {real} -F {self.folder}/client "$@"\n')
        ssh.chmod(0o755)
        if os.geteuid() == 0:  # where the service has never been started it is not there
            Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd", path=SEARCHED)
        self._daemon = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                str(sshd),
                "-D",
                "-e",
                "-f",
                str(self.folder / "server"),
            ],
            stderr=(self.folder / "said").open("wb"),
        )
        end = time.monotonic() + 30
        while subprocess.run(
            [str(ssh), NODES[1], "true"], capture_output=True, check=False
        ).returncode:
            if time.monotonic() > end or self._daemon.poll() is not None:
                said = (self.folder / "said").read_text("utf8")
                self.__exit__(None, None, None)
                raise RuntimeError(f"sshd does not start: {said}")
            time.sleep(0.1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._daemon.terminate()
        self._daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
