"""How long a run needs from SIGTERM to the end of its last process, its checkpoint on disk.

    python -m benchmarks.sigterm --signals 18 --out runs/sigterm

Two ranks under `torchrun` train `small` on the demo corpus, whose training part they also validate
on, so that this takes long. After a random time a signal goes to all ranks, as `srun` sends it, to
one of them alone, or to the launcher, as `timeout` does; where it has to be, a moment is waited for
in which a validation is going on, or a checkpoint being written. Then the checkpoint must be the
one that the run says it has written, and whole, and the next start goes on from it. A run that is
done is compared with one that nobody disturbed: its final tensors byte by byte, its log row by row.
Exit status 1 if they differ, or if a run took longer than `--bound` seconds to leave.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.jobs import DEMO, Job, children, disturb_often
from memo.training.checkpoint import open_checkpoint

LONGEST_S = 8.0
"""A signal comes so long after the first step at the latest, or at its moment after that."""
LOST_S = 120.0
"""A run that has not left by then never will."""
KINDS = tuple(product(("any", "validation", "writing"), ("all ranks", "one rank", "launcher")))
SAVED = re.compile(r"asked to stop: step (\d+) is saved")
VALID_EVERY = 20


def main() -> None:
    """Disturb, compare, print a table and the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signals", type=int, default=2 * len(KINDS))
    parser.add_argument("--bound", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/sigterm"))
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    often = ["steps=100", "checkpoint_every=10", f"valid_every={VALID_EVERY}", "log_every=1"]
    data = ["model.size=small", "data.valid_split=train", "batch.global_batch=32"]
    settings = [f"--config={DEMO}", *often, *data, *arguments.settings]
    draw = np.random.default_rng(arguments.seed)
    disturbed = disturb_often(
        arguments.out,
        settings,
        arguments.signals,
        lambda job, number: disturb(job, *KINDS[number % len(KINDS)], draw),
    )
    _print(disturbed.events)
    longest = max(one["seconds"] for one in disturbed.events)
    result = {
        "signals": len(disturbed.events),
        "runs": disturbed.runs,
        "runs that differ": disturbed.changed,
        "median s": float(np.median([one["seconds"] for one in disturbed.events])),
        "longest s": longest,
        "events": disturbed.events,
    }
    print("RESULT", json.dumps({"sigterm": result}))
    sys.exit(1 if disturbed.changed or longest > arguments.bound else 0)


def disturb(job: Job, moment: str, target: str, draw: np.random.Generator) -> dict[str, Any] | None:
    """Start the job and signal it at such a moment; None if it was done before."""
    launcher = job.start()
    first_s, wait_s = None, float(draw.uniform(0, LONGEST_S))
    while not job.done(launcher):
        row = job.last_row()
        now = time.monotonic()
        if row is not None and first_s is None:
            first_s = now
        if row is not None and first_s is not None and now - first_s > wait_s:
            validating = row["step"] % VALID_EVERY == 0 and "valid/loss" not in row
            if {"any": True, "validation": validating, "writing": job.is_writing()}[moment]:
                about = {"moment": moment, "target": target, "after step": row["step"]}
                found = leave(job, launcher, target, draw)
                return None if found is None else about | found
        time.sleep(0.002)
    return None


def leave(
    job: Job, launcher: subprocess.Popen[bytes], target: str, draw: np.random.Generator
) -> dict[str, Any] | None:
    """Send SIGTERM, wait for the end of all, and look at what has been saved.

    None if the run was done before it heard of it.
    """
    ranks, said = children(launcher.pid), len(SAVED.findall(job.log.read_text("utf8")))
    chosen = {"all ranks": ranks, "one rank": [int(draw.choice(ranks))], "launcher": [launcher.pid]}
    begin = time.monotonic()
    for process in chosen[target]:
        os.kill(process, signal.SIGTERM)
    launcher.wait(LOST_S)
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        time.sleep(0.01)
    seconds = time.monotonic() - begin
    saved, checkpoint = SAVED.findall(job.log.read_text("utf8")), open_checkpoint(job.folder)
    found = checkpoint.progress.step
    if len(saved) == said and found == checkpoint.config.steps:
        return None
    if len(saved) != said + 1 or int(saved[-1]) != found:
        raise SystemExit(f"the checkpoint of step {found} is not what {job.log} says was saved")
    return {"saved step": found, "seconds": seconds}


def _print(events: list[dict[str, Any]]) -> None:
    table = Table(*events[0])
    for event in events:
        table.add_row(
            *(f"{one:.2f}" if isinstance(one, float) else str(one) for one in event.values())
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
