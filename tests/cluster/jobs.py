"""Submits jobs of memo to a test's cluster, and looks at how they are doing."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from memo.slurm import CODE
from tests.cluster.document import command
from tests.cluster.slurm import Cluster
from tests.launch.command import JOINED, ROOT


def copy_checkout(folder: Path) -> Path:
    """The code, where a test may change it."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def outside(cluster: Cluster, checkout: Path) -> dict[str, str]:
    """The environment of a user of the cluster who works in a checkout."""
    own = {key: one for key, one in cluster.environment.items() if key not in JOINED}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return own | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PATH": path}


def submit(
    cluster: Cluster, checkout: Path, folder: Path, variables: Mapping[str, str], *more: str
) -> list[str]:
    """The document's `memo slurm submit` of what `more` begins with; the numbers of the jobs.

    Args:
        cluster: to submit to.
        checkout: whose code it is.
        folder: where the user stands.
        variables: that the command has in it.
        more: `pretrain` or `finetune`, and what is written behind the command.
    """
    line = command(f"memo slurm submit {more[0]}")
    ended = subprocess.run(
        ["bash", "-c", f"{line} {shlex.join(more[1:])}"],
        cwd=folder,
        env=outside(cluster, checkout) | dict(variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return re.findall(r"\d+", ended.stdout.split(";")[0])


def wait_for(done: Callable[[], object], limit_s: float = 600) -> None:
    """Look until it is so, ten times a second."""
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, f"not after {limit_s:g} s"
        time.sleep(0.1)


ENDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


def wait_for_state(cluster: Cluster, job: str, state: str) -> None:
    """Until the job is so; that it has ended otherwise is a failure, told with its output."""

    def there() -> bool:
        now = cluster.state(job)
        assert now == state or now not in ENDS, f"{now}, not {state}: {output(cluster, job)}"
        return now == state

    wait_for(there)


def wait_for_restart(cluster: Cluster, job: str) -> None:
    """Until it has gone back to the queue for the first time; it may have left that again."""

    def there() -> bool:
        before = cluster.state(job)
        again = restarts(cluster, job) > 0
        assert again or before not in ENDS, f"{before}: {output(cluster, job)}"
        return again

    wait_for(there)


def output(cluster: Cluster, job: str) -> str:
    """The end of what it has written."""
    found = re.search(r"StdOut=(.+)", cluster.say("scontrol", "show", "job", job))
    path = Path(found[1]) if found else Path()
    return path.read_text("utf8")[-4000:] if path.is_file() else "no output"


def restarts(cluster: Cluster, job: str) -> int:
    """How often it has been requeued."""
    found = re.search(r"Restarts=(\d+)", cluster.say("scontrol", "show", "job", job))
    assert found
    return int(found[1])


def logged_step(run: Path) -> int:
    """The last step in a run's log."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]  # the last may be half written
    return int(json.loads(whole[-1])["step"]) if whole else 0


@contextmanager
def held(*words: str) -> Iterator[list[int]]:
    """Python programs with all of these words on their command line stand still meanwhile."""
    numbers = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if _is_program(path, words)
    ]
    assert numbers, f"there is none with {words}"
    for number in numbers:
        os.kill(number, signal.SIGSTOP)
    try:
        yield numbers
    finally:
        for number in numbers:
            os.kill(number, signal.SIGCONT)


def _is_program(cmdline: Path, words: Sequence[str]) -> bool:
    with suppress(OSError):  # it has ended
        program, *arguments = cmdline.read_bytes().decode(errors="replace").split("\0")
        return Path(program).name.startswith("python") and set(words) <= set(arguments)
    return False


def awaits(number: int, what: signal.Signals) -> bool:
    """Whether a process that stands still has been sent a signal."""
    told = re.findall(r"(?:Sig|Shd)Pnd:\s*(\w+)", Path(f"/proc/{number}/status").read_text())
    return any(int(one, 16) >> (what - 1) & 1 for one in told)
