"""Pretraining runs of two ranks as jobs that can be disturbed, and what they leave."""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.errors import UserError
from memo.training.checkpoint import open_checkpoint

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "pretrain" / "demo.yaml"
RANKS = 2
TIMES = ("samples_per_s", "tokens_per_s", "mfu", "data_wait", "step_s", "read_mb_per_s")
"""Columns of the log in which equal runs differ."""


def torchrun(ranks: int) -> list[str]:
    """The command before a script, or `-m` and a module, that starts so many ranks of it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc-per-node={ranks}"]


class Job:
    """A run in a folder, started again and again.

    Args:
        folder: of the run.
        settings: of the command.

    Attributes:
        begun: when it was started last, as `time.time` has it.
    """

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._settings = settings
        self.begun = 0.0

    def start(self) -> subprocess.Popen[bytes]:
        """The launcher, which leads a session of its own."""
        script = str(ROOT / "launch" / "pretrain.py")
        settings = [*self._settings, f"run_dir={self.folder}", "threads=1"]
        command = [*torchrun(RANKS), script, *settings]
        self.begun = time.time()
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def done(self, launcher: subprocess.Popen[bytes]) -> bool:
        """Whether it has ended well; another end of its own ends this as well."""
        if launcher.poll():
            raise SystemExit(f"the run ended by itself: see {self.log}")
        return launcher.returncode == 0

    def is_writing(self) -> bool:
        """Whether a checkpoint is being written at this moment; not what an earlier start left."""
        with suppress(FileNotFoundError):  # it is whole by now
            parts = (self.folder / "checkpoints").glob("*.tmp")
            return any(one.stat().st_mtime > self.begun for one in parts)
        return False

    def last_row(self) -> dict[str, Any] | None:
        """Of the log, if anything was written into it since the start."""
        log = self.folder / "metrics.jsonl"
        if not log.exists() or log.stat().st_mtime < self.begun:
            return None
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - 4096, 0))
            *_, line, rest = (b"\n" + file.read()).split(b"\n")
        row: dict[str, Any] | None = json.loads(line) if line and not rest else None
        return row


@dataclass(frozen=True)
class Disturbed:
    """What became of runs that were disturbed.

    Attributes:
        events: of each disturbance.
        runs: that it took.
        changed: how many of them ended otherwise than one that nobody disturbed, by what differs.
    """

    events: list[dict[str, Any]]
    runs: int
    changed: dict[str, int]


def disturb_often(
    out: Path,
    settings: Sequence[str],
    count: int,
    disturb: Callable[[Job, int], dict[str, Any] | None],
) -> Disturbed:
    """Disturb a job until it has been done often enough, run it to its end, and compare.

    Args:
        out: folder for the runs, which is emptied.
        settings: of the job.
        count: disturbances.
        disturb: starts a job and ends it before its time, given how many were disturbed before;
            says what happened, or None if it was done before.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    whole = Job(out / "whole", settings)
    finish(whole)
    events: list[dict[str, Any]] = []
    changed, runs = Counter[str](), 0
    while len(events) < count:
        job = Job(out / f"disturbed-{runs}", settings)
        while len(events) < count and (event := disturb(job, len(events))) is not None:
            events.append(event)
            check_latest(job.folder)
        finish(job)
        changed.update(differences(whole.folder, job.folder))
        runs += 1
    return Disturbed(events, runs, dict(changed))


def children(process: int) -> list[int]:
    """Its child processes."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def check_latest(folder: Path) -> None:
    """The latest checkpoint must be whole, if there is one."""
    if (folder / "checkpoints" / "latest").exists():
        try:
            open_checkpoint(folder)
        except UserError as error:
            raise SystemExit(f"after a kill: {error}") from None


def finish(job: Job) -> None:
    """Let the job run to its end."""
    launcher = job.start()
    while not job.done(launcher):
        time.sleep(0.1)


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs differ in."""
    found = []
    first, second = (open_checkpoint(run).folder for run in (one, other))
    for name in ("model.safetensors", "optimizer.safetensors"):
        if (first / name).read_bytes() != (second / name).read_bytes():
            found.append(name)
    if _rows(one) != _rows(other):
        found.append("metrics.jsonl")
    return found


def _rows(run: Path) -> list[dict[str, Any]]:
    """The log without what the clock decides."""
    lines = (run / "metrics.jsonl").read_text("utf8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
