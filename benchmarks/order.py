"""The order of 10^6 to 10^9 samples on 4,096 ranks: CPU time and memory until a rank has its share.

`python -m benchmarks.order`. Each size runs in a process of its own, which opens a `dataset.json`
of shards of about 10,000 samples, makes their order, the first global batch and its plan, and then
the same at a step far ahead. No tar is read: the lengths are drawn.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_pipeline.order import Order
from data_pipeline.plan import divide, fill
from data_pipeline.shards.dataset import FILE, SMALLEST, read_info

SIZES = (10**6, 10**7, 10**8, 10**9)
A_SHARD = 10_000
RANKS, A_RANK, BUDGET = 4096, 16, 4096
FAR = 10_000
"""Steps ahead."""
KIB_A_MIB = 1024


def main() -> None:
    """Measure every size and print a table and the result."""
    rows = [_in_a_process(samples) for samples in SIZES]
    names = list(rows[0])
    table = Table(*names, title=f"{RANKS} ranks, {A_RANK} samples each a step")
    for row in rows:
        table.add_row(
            *(f"{row[name]:,.3g}" if name != "samples" else f"{row[name]:,}" for name in names)
        )
    Console(width=160).print(table)
    print("RESULT", json.dumps({"order": rows}))


def _in_a_process(samples: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.order", str(samples)]
    begin = perf_counter()
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row: dict[str, float] = json.loads(lines)
    return {**row, "whole process, wall s": perf_counter() - begin}


def measure(samples: int) -> dict[str, float]:
    """CPU seconds of each part, and the process's largest memory in MiB."""
    with tempfile.TemporaryDirectory() as place:
        _write_info(Path(place), samples // A_SHARD)
        before, begin = _memory(), process_time()
        info = read_info(Path(place))
    opened, opened_mib = process_time(), _memory() - before
    sizes = np.array([shard.samples for shard in info.shards])
    order, batch = Order(1234, sizes), RANKS * A_RANK
    first = order.visits(np.arange(batch)).samples
    ordered = process_time()
    divide(_lengths(first), RANKS, BUDGET)
    divided = process_time()
    far = order.visits(np.arange(FAR * batch, (FAR + 1) * batch)).samples
    jumped = process_time()
    fill(_lengths(far), RANKS, RANKS, BUDGET // 4)
    filled = process_time()
    return {
        "samples": samples,
        "shards": len(sizes),
        "opened, s": opened - begin,
        "opened, MiB": opened_mib,
        "first batch, s": ordered - opened,
        "divided, s": divided - ordered,
        f"{FAR:,} steps on, s": jumped - divided,
        "filled, s": filled - jumped,
        "MiB": _memory(),
    }


def _write_info(folder: Path, shards: int) -> None:
    """A `dataset.json`, written shard by shard so that the process stays small."""
    rng = np.random.default_rng(0)
    head = {"name": "n", "corpus": "c", "licence": "l", "features": {}}
    with (folder / FILE).open("w") as file:
        print(json.dumps(head)[:-1], ', "shards": [', file=file)
        for number in range(shards):
            samples = A_SHARD + int(rng.integers(-100, 101))
            shard = {
                "name": f"train-{number:06d}.tar",
                "split": "train",
                "samples": samples,
                "bytes": samples * SMALLEST,
                "sha256": rng.bytes(32).hex(),
            }
            print("," if number else "", json.dumps(shard), file=file)
        print("]}", file=file)


def _memory() -> float:
    """MiB of this process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_A_MIB


def _lengths(samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of a sample always the same, 20 to 129 tokens."""
    return 20 + samples * 2_654_435_761 % 110


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
