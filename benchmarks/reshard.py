"""A checkpoint of every number of ranks and ZeRO stage, continued with every other.

    python -m benchmarks.reshard --out runs/reshard

For 1, 2 and 4 ranks and stages 0 to 3, a run of `small` on the demo corpus takes some steps,
writes a checkpoint, and goes on for a few steps. Then each of the twelve checkpoints is read,
verified, and continued with each of the twelve settings for as many steps; the cell says by how
much a loss differs at most, relatively, from that of the run that wrote the checkpoint and was not
interrupted. Dropout is off. The settings of one number of ranks share their processes, so there are
six launches.

`--ranks 1,2` takes some numbers of ranks; settings follow as `key=value`. Prints a table in
Markdown; exit status 1 if a loss differs by more than 1e-5.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks.jobs import DEMO, torchrun
from benchmarks.pieces import Pieces, open_pieces
from data_pipeline.stream import Step
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.checkpoint import Progress, open_checkpoint
from memo.training.distributed import join
from memo.training.engine import Engine
from memo.training.optimizer import learning_rate

TOLERANCE = 1e-5
STAGES = (0, 1, 2, 3)
SETTINGS = (
    *("model.size=small", "model.dropout=0", "model.attention_dropout=0", "threads=1"),
    *("steps=20", "optimizer.warmup_steps=4", "batch.global_batch=8", "batch.token_budget=256"),
)
BEFORE, AFTER = 6, 3
"""Steps before the checkpoint and after it."""


def main() -> None:
    """Launch, compare, print; exit status 1 if a loss differs. As a rank: take steps."""
    arguments = _arguments()
    if arguments.task:
        as_rank(arguments.task, arguments.out, [*SETTINGS, *arguments.settings])
        return
    shutil.rmtree(arguments.out, ignore_errors=True)
    numbers = [int(one) for one in arguments.ranks.split(",")]
    for task, ranks in product(("save", "continue"), numbers):
        itself = ["-m", "benchmarks.reshard", f"--task={task}", f"--out={arguments.out}"]
        subprocess.run([*torchrun(ranks), *itself, *arguments.settings], check=True)
    names = [f"{ranks}z{stage}" for ranks in numbers for stage in STAGES]
    table = {
        one: {other: _difference(arguments.out, one, other) for other in names} for one in names
    }
    for line in (["from \\ to", *names], ["---"] * (len(names) + 1)):
        print("|", " | ".join(line), "|")
    for name, row in table.items():
        print(f"| {name} |", " | ".join(f"{row[other]:.0e}" for other in names), "|")
    worst = max(max(row.values()) for row in table.values())
    result = {"cells": len(names) ** 2, "largest relative difference of a loss": worst}
    print("RESULT", json.dumps({"reshard": {**result, "table": table}}))
    sys.exit(1 if worst > TOLERANCE else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/reshard"))
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--task", choices=("save", "continue"), help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def as_rank(task: str, out: Path, settings: Sequence[str]) -> None:
    """One rank of a launch: save with every stage, or continue all that was saved."""
    config = load_config(PretrainConfig, DEMO, settings)
    pieces = open_pieces(config, join(config.threads))
    if task == "save":
        for stage in STAGES:
            save(pieces, stage, out / f"{pieces.ranks.count}z{stage}")
    else:
        for folder in sorted(out.iterdir()):
            continue_from(pieces, folder)


def save(pieces: Pieces, stage: int, folder: Path) -> None:
    """Take steps, write a checkpoint, go on; note the losses after it."""
    engine, progress = pieces.engine(stage), pieces.start()
    steps = pieces.steps(progress, BEFORE + AFTER)
    take(pieces, engine, steps[:BEFORE], 0)
    state = engine.collect()
    if state is not None:
        progress = Progress(BEFORE, 0, steps[BEFORE - 1].state_after)
        pieces.write(folder / "checkpoints", state, progress)
    _note(pieces, folder / "uninterrupted.json", take(pieces, engine, steps[BEFORE:], BEFORE))
    engine.close()


def continue_from(pieces: Pieces, folder: Path) -> None:
    """Take the steps after a checkpoint with every stage; note their losses."""
    checkpoint = open_checkpoint(folder)
    state = checkpoint.state()
    steps = pieces.steps(checkpoint.progress, AFTER)
    for stage in STAGES:
        engine = pieces.engine(stage, state)
        losses = take(pieces, engine, steps, checkpoint.progress.step)
        _note(pieces, folder / f"to-{pieces.ranks.count}z{stage}.json", losses)
        engine.close()


def take(pieces: Pieces, engine: Engine, steps: Sequence[Step], first: int) -> list[float]:
    """Losses of some steps."""
    config = pieces.config
    rates = [learning_rate(first + at, config.optimizer, config.steps) for at in range(len(steps))]
    return [
        engine.step(step.micro_batches, first + at, rate).loss
        for at, (step, rate) in enumerate(zip(steps, rates, strict=True))
    ]


def _note(pieces: Pieces, file: Path, losses: Sequence[float]) -> None:
    if pieces.ranks.first:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(losses), "utf8")


def _difference(out: Path, saved: str, went_on: str) -> float:
    """Largest relative one of the losses of a state that one saved and another continued."""
    expected: list[float] = json.loads((out / saved / "uninterrupted.json").read_text("utf8"))
    found: list[float] = json.loads((out / saved / f"to-{went_on}.json").read_text("utf8"))
    return max(abs(one / other - 1) for one, other in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
