"""Batches a second of a rank, made by its thread or by processes.

    python -m benchmarks.workers datasets/grid --workers 0,1,2

First all must give the same batches, bit for bit. Then each makes `--steps` steps of 64 clips,
round by round in turn, as fast as they are taken; `clips/s` is of wall time, the median, and `this
one` the share of a core that the process of the training spends on them itself.
"""

import argparse
import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.loader import SEED, STEP, Job, open_run
from data_pipeline import cpu_torch
from data_pipeline.order import StreamState
from data_pipeline.stream import BatchMaker, Step, StepSize, TrainStream

EQUAL = 8
"""Steps that are compared."""


def digest(steps: Sequence[Step]) -> str:
    """Hash of every tensor of their batches."""
    found = hashlib.sha256()
    for batch in (batch for step in steps for batch in step.micro_batches):
        values = [getattr(batch, field.name) for field in fields(batch)]
        for targets in batch.targets.values():
            values += [targets.positions, targets.values]
        for one in values:
            if isinstance(one, torch.Tensor):
                found.update(one.contiguous().numpy().tobytes())
    return found.hexdigest()


def begin(maker: BatchMaker, workers: int) -> TrainStream:
    """A stream from the beginning."""
    state = StreamState.start(SEED, maker.split.fingerprint)
    return TrainStream(replace(maker, workers=workers), state, StepSize(STEP), prefetch=2)


def measure(maker: BatchMaker, workers: int, steps: int) -> tuple[float, float]:
    """Clips a second, and CPU seconds of this process a second."""
    with begin(maker, workers) as stream:
        for _ in islice(stream, 4):  # what is made ahead, and what is opened for the first time
            pass
        start, cpu = perf_counter(), process_time()
        for _ in islice(stream, steps):
            pass
        wall = perf_counter() - start
        return steps * STEP / wall, (process_time() - cpu) / wall


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--workers", default="0,1,2")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cpu_torch.install()
    counts = [int(one) for one in arguments.workers.split(",")]
    maker = open_run(Job("memo", arguments.dataset, Path(), train=True))[3]
    digests = set()
    for count in counts:
        with begin(maker, count) as stream:
            digests.add(digest(list(islice(stream, EQUAL))))
    if len(digests) > 1:
        raise SystemExit("the batches differ")
    runs: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for _ in range(arguments.rounds):
        for count in counts:
            runs[count].append(measure(maker, count, arguments.steps))
    rows = {
        count: [statistics.median(one) for one in zip(*runs[count], strict=True)]
        for count in counts
    }
    table = Table("processes", "clips/s", "times the first", "this one")
    for count, (rate, own) in rows.items():
        table.add_row(str(count), f"{rate:,.0f}", f"{rate / rows[counts[0]][0]:.2f}", f"{own:.0%}")
    Console(width=80).print(table)
    print("RESULT", json.dumps({str(count): row for count, row in rows.items()}))


if __name__ == "__main__":
    main()
