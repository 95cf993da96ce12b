"""Ranks of a run are killed at random moments, and the run is started again, until it is done.

    python -m benchmarks.chaos --kills 50 --out runs/chaos

Two ranks under `torchrun` train the demo job (`--config` and settings take another). Each time one
of them, or both and the launcher, are killed with SIGKILL: after a random time since the start, or
while a checkpoint is being written. Where one is killed, all must have ended within a minute.
After each kill the latest checkpoint must be whole. A run that is done is compared with one that
nobody disturbed: its final tensors byte by byte, its log row by row. If kills are left, another run
begins.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.errors import UserError
from memo.training.checkpoint import open_checkpoint

ROOT = Path(__file__).parents[1]
RANKS = 2
TIMES = ("samples_per_s", "tokens_per_s", "mfu", "data_wait", "step_s", "read_mb_per_s")
"""Columns of the log in which equal runs differ."""
LONGEST_S = 20.0
"""A kill comes so long after the start at the latest."""
BOUND_S = 60.0
"""A run that has lost a rank must have ended by then."""
WHILE_WRITING = 0.4
"""Share of the kills that come while a checkpoint is written."""


class Job:
    """A run in a folder, started again and again.

    Args:
        folder: of the run.
        settings: of the command.
    """

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._settings = settings

    def start(self) -> subprocess.Popen[bytes]:
        """The launcher, which leads a session of its own."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        script = [f"--nproc-per-node={RANKS}", str(ROOT / "launch" / "pretrain.py")]
        settings = [*self._settings, f"run_dir={self.folder}", "threads=1"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*torchrun, *script, *settings], stdout=log, stderr=log, start_new_session=True
            )

    def done(self, launcher: subprocess.Popen[bytes]) -> bool:
        """Whether it has ended well; another end of its own ends this as well."""
        if launcher.poll():
            raise SystemExit(f"the run ended by itself: see {self.log}")
        return launcher.returncode == 0

    def is_writing(self) -> bool:
        """Whether a checkpoint is being written at this moment."""
        return any((self.folder / "checkpoints").glob("*.tmp"))


def disturb(job: Job, draw: np.random.Generator) -> dict[str, Any] | None:
    """Start the job and kill it some time later; what happened, or None if it was done before."""
    launcher = job.start()
    writing = bool(draw.random() < WHILE_WRITING)
    wait_s = float(draw.uniform(0, LONGEST_S))
    begin = time.monotonic()
    while not job.done(launcher):
        past = time.monotonic() - begin
        if past > wait_s / 2 and job.is_writing() if writing else past > wait_s:
            which = int(draw.integers(RANKS + 1))
            return {"while writing": writing, **kill(launcher, which)}
        time.sleep(0.001)
    return None


def kill(launcher: subprocess.Popen[bytes], which: int) -> dict[str, Any]:
    """Kill one rank, or all and the launcher; how long the others went on."""
    ranks = children(launcher.pid)
    alone = which < len(ranks)
    if alone:
        os.kill(ranks[which], signal.SIGKILL)
    else:
        os.killpg(launcher.pid, signal.SIGKILL)
        for rank in ranks:  # the launcher gives each a session of its own
            os.kill(rank, signal.SIGKILL)
    begin = time.monotonic()
    try:
        launcher.wait(BOUND_S)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        raise SystemExit(f"the run goes on {BOUND_S} s after a rank was killed") from None
    return {"killed": 1 if alone else RANKS, "others ended after s": time.monotonic() - begin}


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


def main() -> None:
    """Disturb, compare, and print the result; exit status 1 if a run was changed by it."""
    parser = argparse.ArgumentParser(description="Kill ranks at random moments.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "pretrain" / "demo.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    often = ["steps=400", "checkpoint_every=10", "valid_every=100", "log_every=1"]
    settings = [f"--config={arguments.config}", *often, *arguments.settings]
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    whole = Job(arguments.out / "whole", settings)
    finish(whole)
    draw, changed, runs = np.random.default_rng(arguments.seed), Counter[str](), 0
    events: list[dict[str, Any]] = []
    while len(events) < arguments.kills:
        job = Job(arguments.out / f"disturbed-{runs}", settings)
        while len(events) < arguments.kills and (event := disturb(job, draw)) is not None:
            events.append(event)
            check_latest(job.folder)
        finish(job)
        changed.update(differences(whole.folder, job.folder))
        runs += 1
    alone = [one["others ended after s"] for one in events if one["killed"] == 1]
    result = {
        "kills": len(events),
        "of all ranks": sum(one["killed"] == RANKS for one in events),
        "while a checkpoint was written": sum(one["while writing"] for one in events),
        "runs": runs,
        "runs that differ": dict(changed),
        "longest a rank went on alone, s": max(alone, default=0.0),
    }
    print("RESULT", json.dumps({"chaos": result}))
    sys.exit(1 if changed else 0)


if __name__ == "__main__":
    main()
