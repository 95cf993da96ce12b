"""What checkpoints cost: bytes, seconds, memory, and what they add to a step.

    python -m benchmarks.checkpoint --size base
    torchrun --standalone --nproc-per-node 2 -m benchmarks.checkpoint --size base

At ZeRO stages 0 and 2, on the demo corpus. First a checkpoint is written and read, and what an
engine that takes it up then collects must be what was saved, bit for bit. Of each of `--rounds`
rounds: seconds to collect the tensors, during which no step is taken (`collect`), to write them
when nothing else is done (`write`), to compare all files with their hashes (`verify`), to do so and
read the tensors (`load`), and to put them into the engine (`restore`); once, seconds of the command
`memo checkpoint verify` with all that it imports. What was written just now is read from memory.

Then turns of `--every` steps, interleaved: without a checkpoint (`none`), with one written in a
thread during the steps (`asynchronous`), and with one written before them (`synchronous`). A turn
with a checkpoint ends when it is on disk, for the next one would wait for it. `added` are the
seconds that a checkpoint adds to the turn, `ratio` is a turn's time to that without in the same
round: medians and quartiles. `peak` is the most memory of the first rank's process in a turn.

Settings follow as `key=value`; the step's size matters: `batch.global_batch=8` is the default here.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.jobs import DEMO
from benchmarks.pieces import Pieces, open_pieces
from data_pipeline.stream import Step
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.checkpoint import find_checkpoint, open_checkpoint, verify_files
from memo.training.distributed import join
from memo.training.engine import Engine
from memo.training.saving import Saver
from memo.training.state import TrainingState

STAGES = (0, 2)
WAYS = ("none", "asynchronous", "synchronous")
SETTINGS = ("keep_checkpoints=1", "batch.global_batch=8", "batch.token_budget=512", "threads=1")
LR = 1e-5


@dataclass
class Bench:
    """An engine that takes steps, and where its checkpoints go.

    Args:
        pieces: of the run.
        engine: that takes the steps.
        steps: taken over and over, a turn of them.
        root: of the checkpoints.
    """

    pieces: Pieces
    engine: Engine
    steps: Sequence[Step]
    root: Path
    saver: Saver = field(default_factory=lambda: Saver(print))
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def take(self) -> None:
        """All steps of a turn."""
        for number, step in enumerate(self.steps):
            self.engine.step(step.micro_batches, number, LR)

    def write(self, state: TrainingState) -> Path:
        """The next checkpoint."""
        progress = replace(self.pieces.start(), step=next(self.numbers))
        return self.pieces.write(self.root, state, progress)

    def turn(self, way: str) -> None:
        """Some steps, with or without a checkpoint before them."""
        state = None if way == "none" else self.engine.collect()
        if state is not None and way == "synchronous":
            self.write(state)
        elif state is not None:
            self.saver.begin(partial(self.write, state))
        del state  # the thread alone holds it, as in a run
        self.take()
        self.saver.finish()


def main() -> None:
    """Measure both stages, print tables and the result."""
    arguments = _arguments()
    settings = [f"model.size={arguments.size}", *SETTINGS, *arguments.settings]
    config = load_config(PretrainConfig, DEMO, settings)
    pieces = open_pieces(config, join(config.threads))
    results = {}
    for stage in STAGES:
        root = arguments.out / f"zero-{stage}" / "checkpoints"
        if pieces.ranks.first:
            shutil.rmtree(root, ignore_errors=True)
        bench = begin(pieces, stage, root, arguments.every)
        results[f"zero {stage}"] = {
            **parts(bench, arguments.rounds),
            **command(bench),
            "turns": turns(bench, arguments.rounds),
        }
        bench.engine.close()
    if not pieces.ranks.first:
        return
    _print(results, f"{arguments.size}, {pieces.ranks.count} ranks")
    about = {"size": arguments.size, "ranks": pieces.ranks.count, "every": arguments.every}
    print("RESULT", json.dumps({"checkpoint": {**about, **results}}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="base", help="of the model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument("--out", type=Path, default=Path("runs/checkpoint"))
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def begin(pieces: Pieces, stage: int, root: Path, every: int) -> Bench:
    """An engine restored from a checkpoint of its own; exit status 1 if that has changed it."""
    steps = pieces.steps(pieces.start(), every)
    bench = Bench(pieces, pieces.engine(stage), steps, root)
    bench.take()
    before = bench.engine.collect()
    with pieces.ranks.together():
        if before is not None:
            bench.write(before)
    bench.engine.close()
    bench.engine = pieces.engine(stage, open_checkpoint(root.parent).state())
    after = bench.engine.collect()
    if before is not None and after is not None:
        for one, other in ((before.model, after.model), (before.moments, after.moments)):
            if one.keys() != other.keys() or any(not one[name].equal(other[name]) for name in one):
                raise SystemExit(f"stage {stage}: what was restored is not what was saved")
    return bench


def timed(bench: Bench, action: Callable[[], object]) -> float:
    """Seconds that the slowest rank is at it."""
    dist.barrier()
    started = time.perf_counter()
    action()
    return max(bench.pieces.ranks.gather(time.perf_counter() - started))


def parts(bench: Bench, rounds: int) -> dict[str, Any]:
    """Bytes a parameter, and medians of the seconds of each part of saving and loading."""
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, action in actions(bench).items():
            took.setdefault(name, []).append(timed(bench, action))
    folder = open_checkpoint(bench.root).folder
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    parameters = sum(tensor.numel() for tensor in bench.pieces.model().parameters())
    seconds = {name: float(np.median(found)) for name, found in took.items()}
    return {"parameters": parameters, "bytes a parameter": size / parameters, "seconds": seconds}


def actions(bench: Bench) -> dict[str, Callable[[], object]]:
    """Saving and loading in parts, one after the other."""
    collected: list[TrainingState | None] = []
    read: list[TrainingState] = []

    def write() -> None:
        if (state := collected.pop()) is not None:
            bench.write(state)

    return {
        "collect": lambda: collected.append(bench.engine.collect()),
        "write": write,
        "verify": lambda: verify_files(find_checkpoint(bench.root)),
        "load": lambda: read.append(open_checkpoint(bench.root).state()),
        "restore": lambda: bench.engine.restore(read.pop()),
    }


def command(bench: Bench) -> dict[str, float]:
    """Seconds of `memo checkpoint verify`, alone on the machine."""

    def verify() -> None:
        if bench.pieces.ranks.first:
            memo = [sys.executable, "-c", "from memo.cli import main; main()"]
            line = [*memo, "checkpoint", "verify", str(bench.root)]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)

    return {"memo checkpoint verify": timed(bench, verify)}


def turns(bench: Bench, rounds: int) -> dict[str, dict[str, Any]]:
    """Of each way its seconds, quartiles of what it adds and of the ratio, and memory."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peaks = dict.fromkeys(WAYS, 0.0)
    for number in range(rounds + 1):  # the first does not count
        at = number % len(WAYS)
        for way in WAYS[at:] + WAYS[:at]:
            forget_peak()
            seconds[way].append(timed(bench, partial(bench.turn, way)))
            peaks[way] = max(peaks[way], peak_gb())
    taken = {way: np.array(found[1:]) for way, found in seconds.items()}
    return {
        way: {
            "seconds a step": float(np.median(found)) / len(bench.steps),
            "added": _quartiles(found - taken["none"]),
            "ratio": _quartiles(found / taken["none"]),
            "peak GB": peaks[way],
        }
        for way, found in taken.items()
    }


def _quartiles(values: NDArray[np.float64]) -> list[float]:
    found: list[float] = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return found


def forget_peak() -> None:
    """Let Linux measure this process's peak anew."""
    Path("/proc/self/clear_refs").write_text("5", "utf8")


def peak_gb() -> float:
    """The most memory that this process has had since then."""
    lines = Path("/proc/self/status").read_text("utf8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024 / 1e9


def _print(results: Mapping[str, Mapping[str, Any]], title: str) -> None:
    parts_s = [f"{part} s" for part in next(iter(results.values()))["seconds"]]
    costs = Table("", "bytes/parameter", "command s", *parts_s, title=title)
    table = Table("", "way", "s/step", "added s", "quartiles", "ratio", "quartiles", "peak GB")
    for name, result in results.items():
        cells = [f"{result['bytes a parameter']:.3f}", f"{result['memo checkpoint verify']:.2f}"]
        costs.add_row(name, *cells, *(f"{one:.3f}" for one in result["seconds"].values()))
        for way, row in result["turns"].items():
            cells = [f"{row['seconds a step']:.3f}"]
            for low, middle, high in (row["added"], row["ratio"]):
                cells += [f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
            table.add_row(name, way, *cells, f"{row['peak GB']:.2f}")
    console = Console(width=120)
    console.print(costs)
    console.print(table)


if __name__ == "__main__":
    main()
