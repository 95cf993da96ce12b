"""A run that changes its ranks on the way, against one that never stops.

    python -m benchmarks.elastic --config configs/pretrain/mixture.yaml --out runs/elastic \
        --phases 2:20,1:40,2:60

Each phase is RANKS[zSTAGE]:STEP, e.g. 2z1:20: so many ranks at this ZeRO stage up to this step,
where a signal stops the run. The run it is compared with takes all steps with the ranks and the
stage of the first phase. Dropout is off. What is compared, step by step: the keys of the global
batch, which every rank notes as it trains on them, and the losses of the log.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from unittest.mock import patch

from benchmarks.jobs import torchrun
from data_pipeline.packing import PackedBatch
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.engine import Engine, StepResult
from memo.training.pretrain import pretrain
from memo.training.signals import REQUEUE

TOLERANCE = 1e-5
STEADY = (
    "model.dropout=0",
    "model.attention_dropout=0",
    "distribution.precision=fp32",
    "log_every=1",
    "threads=1",
)


@dataclass(frozen=True)
class Phase:
    """So many ranks at a ZeRO stage, until a step."""

    ranks: int
    stage: int
    until: int

    @classmethod
    def parse(cls, text: str) -> "Phase":
        """`2z1:20`; without `z1` the stage is 0."""
        world, _, until = text.partition(":")
        ranks, _, stage = world.partition("z")
        return cls(int(ranks), int(stage or 0), int(until))


def main() -> None:
    """Run both and compare them; exit status 1 if they differ. As a rank: take steps."""
    arguments = _arguments()
    if arguments.until:
        sys.exit(take_steps(arguments.config, arguments.until, arguments.settings))
    phases = [Phase.parse(text) for text in arguments.phases.split(",")]
    out: Path = arguments.out
    steps = phases[-1].until
    whole = [Phase(phases[0].ranks, phases[0].stage, steps)]
    for name, parts in (("whole", whole), ("elastic", phases)):
        shutil.rmtree(out / name, ignore_errors=True)
        for part in parts:
            _run(part, out / name, arguments, steps)
    result = _compare(out, steps)
    print("RESULT", json.dumps({"elastic": {"phases": arguments.phases, **result}}))
    if result["largest relative difference of a loss"] > TOLERANCE or result["batches that differ"]:
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A change of ranks on the way.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/elastic"), help="folder of both")
    parser.add_argument("--phases", default="2:20,1:40,2:60")
    parser.add_argument("--until", type=int, help=argparse.SUPPRESS)  # given to the ranks
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def _run(phase: Phase, folder: Path, arguments: argparse.Namespace, steps: int) -> None:
    """One phase, in processes of its own."""
    settings = [
        f"run_dir={folder}",
        f"steps={steps}",
        f"valid_every={steps}",
        f"checkpoint_every={steps}",
        f"distribution.zero_stage={phase.stage}",
        *STEADY,
        *arguments.settings,
    ]
    itself = ["-m", "benchmarks.elastic", f"--config={arguments.config}", f"--until={phase.until}"]
    subprocess.run([*torchrun(phase.ranks), *itself, *settings], check=True)


def take_steps(config: Path, until: int, settings: Sequence[str]) -> int:
    """As one rank: pretrain up to a step, and note the keys of every batch."""
    chosen = load_config(PretrainConfig, config, settings)
    assert chosen.run_dir is not None
    notes = Path(chosen.run_dir) / "keys" / f"{os.environ['WORLD_SIZE']}-{os.environ['RANK']}.jsonl"
    step = Engine.step

    def noted(self: Engine, batches: Sequence[PackedBatch], number: int, lr: float) -> StepResult:
        notes.parent.mkdir(exist_ok=True)
        with notes.open("a") as file:
            print(json.dumps([number + 1, [k for one in batches for k in one.keys]]), file=file)
        if number + 1 == until < chosen.steps:
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(self, batches, number, lr)

    with patch.object(Engine, "step", noted):
        status = pretrain(chosen, "auto")
    return 0 if status == REQUEUE else status


def _compare(out: Path, steps: int) -> dict[str, float]:
    """How the runs in `whole` and `elastic` differ."""
    whole, elastic = (_batches(out / name) for name in ("whole", "elastic"))
    expected, losses = (_column(out / name, "loss") for name in ("whole", "elastic"))
    every = set(range(1, steps + 1))
    assert set(whole) == set(elastic) == set(expected) == set(losses) == every
    return {
        "steps": steps,
        "samples": sum(map(Counter.total, whole.values())),
        "batches that differ": sum(whole[at] != elastic[at] for at in every),
        "largest relative difference of a loss": max(
            abs(losses[at] / expected[at] - 1) for at in every
        ),
        "data_wait": mean(_column(out / "elastic", "data_wait").values()),
    }


def _batches(folder: Path) -> dict[int, Counter[str]]:
    """Step -> how often each key was in its global batch."""
    keys: dict[int, Counter[str]] = {}
    for file in sorted((folder / "keys").iterdir()):
        for line in file.read_text("utf8").splitlines():
            step, found = json.loads(line)
            keys.setdefault(step, Counter()).update(found)
    return keys


def _column(folder: Path, name: str) -> dict[int, float]:
    """Step -> what the log says of it."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text("utf8").splitlines())
    return {row["step"]: row[name] for row in rows if name in row}


if __name__ == "__main__":
    main()
