"""Ranks of a run are killed at random moments, and the run is started again, until it is done.

    python -m benchmarks.chaos --kills 50 --out runs/chaos

Two ranks under `torchrun` train the demo job; `--config` and settings take another, such as
`distribution.zero_stage=2`. Each time one of them, or both and the launcher, are killed with
SIGKILL: a random time after the first step, a fifth of them after the start itself, two fifths
while a checkpoint is being written. Where one is killed, all must have ended within a minute. After
each kill the latest checkpoint must be whole. A run that is done is compared with one that nobody
disturbed: its final tensors byte by byte, its log row by row. If kills are left, another run
begins.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import DEMO, RANKS, Job, children, disturb_often

LONGEST_S = 10.0
"""A kill comes so long after the first logged step at the latest."""
BEFORE = 0.2
"""Share of the kills that come so long after the start itself."""
BOUND_S = 60.0
"""A run that has lost a rank must have ended by then."""
WHILE_WRITING = 0.4
"""Share of the kills that come while a checkpoint is written."""


def disturb(job: Job, draw: np.random.Generator) -> dict[str, Any] | None:
    """Start the job and kill it some time later; what happened, or None if it was done before."""
    launcher = job.start()
    writing = bool(draw.random() < WHILE_WRITING)
    early = not writing and bool(draw.random() < BEFORE / (1 - WHILE_WRITING))
    wait_s = float(draw.uniform(0, LONGEST_S))
    began = time.monotonic() if early else None
    while not job.done(launcher):
        if began is None and job.last_row() is not None:
            began = time.monotonic()
        past = time.monotonic() - began if began is not None else -1.0
        if past > wait_s / 2 and job.is_writing() if writing else past > wait_s:
            which = int(draw.integers(RANKS + 1))
            trains = job.last_row() is not None
            return {"while writing": writing, "in training": trains, **kill(launcher, which)}
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


def main() -> None:
    """Disturb, compare, and print the result; exit status 1 if a run was changed by it."""
    parser = argparse.ArgumentParser(description="Kill ranks at random moments.")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, default=DEMO)
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"))
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    often = ["steps=400", "checkpoint_every=10", "valid_every=100", "log_every=1"]
    settings = [f"--config={arguments.config}", *often, *arguments.settings]
    draw = np.random.default_rng(arguments.seed)
    disturbed = disturb_often(
        arguments.out, settings, arguments.kills, lambda job, _: disturb(job, draw)
    )
    alone = [one["others ended after s"] for one in disturbed.events if one["killed"] == 1]
    result = {
        "kills": len(disturbed.events),
        "of all ranks": sum(one["killed"] == RANKS for one in disturbed.events),
        "of all ranks, in training": sum(
            one["killed"] == RANKS and one["in training"] for one in disturbed.events
        ),
        "in training": sum(one["in training"] for one in disturbed.events),
        "while a checkpoint was written": sum(one["while writing"] for one in disturbed.events),
        "runs": disturbed.runs,
        "runs that differ": disturbed.changed,
        "longest a rank went on alone, s": max(alone, default=0.0),
    }
    print("RESULT", json.dumps({"chaos": result}))
    sys.exit(1 if disturbed.changed else 0)


if __name__ == "__main__":
    main()
