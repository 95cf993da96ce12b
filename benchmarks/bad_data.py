"""What a run, `memo data check` and `memo data repair` do about every fault of a shard.

    python -m benchmarks.bad_data

A small dataset is damaged in one place at a time, read as in training, checked and repaired. Prints
a Markdown table of what really happened, and its sums.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.faults import SHARD, Fault, faults
from benchmarks.small_data import KEYS, run_stream, write_small
from benchmarks.tars import split_tar
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.dataset import FILE, read_info
from data_pipeline.shards.index import (
    ShardIndex,
    file_sha256,
    index_path,
    load_index,
    write_index,
)
from data_pipeline.shards.repair import repair_dataset

TINY, HUGE = 200_000, 64 << 20
WORDS = ("whole", "joined", "cut", "dropped")
PIPE = "\\|"
EVIL_INDEXES: Mapping[str, Callable[[ShardIndex], ShardIndex]] = {
    "negative offsets": lambda index: replace(index, offsets=-index.offsets - 2),
    "offsets beyond the end": lambda index: replace(index, offsets=index.offsets + (1 << 40)),
    "overlapping members": lambda index: replace(index, offsets=np.full_like(index.offsets, 512)),
    "sizes of 2^62": lambda index: replace(index, sizes=np.full_like(index.sizes, 1 << 62)),
    "other lengths": lambda index: replace(index, lengths=index.lengths + 1),
}


@dataclass(frozen=True)
class Outcome:
    """What happened to a damaged dataset.

    Attributes:
        read: keys of the samples that a run got.
        quarantined: the lines of `quarantine.jsonl`.
        problems: the lines of `memo data check`.
        kept: samples whole, joined, cut and dropped by `memo data repair`.
        seconds: of all this.
    """

    read: tuple[str, ...]
    quarantined: tuple[dict[str, str], ...]
    problems: tuple[str, ...]
    kept: tuple[int, ...]
    seconds: float


def damage(folder: Path, fault: Fault) -> None:
    """Make a fault in the first shard of the small dataset."""
    tar = folder / SHARD
    tar.write_bytes(fault.damage(split_tar(tar.read_bytes())))
    if fault.listed:
        list_anew(folder)


def list_anew(folder: Path) -> None:
    """Let `dataset.json` and the index say what the first shard now is."""
    tar, path = folder / SHARD, folder / FILE
    info = json.loads(path.read_text("utf8"))
    sha256 = file_sha256(tar)
    info["shards"][0].update(sha256=sha256, bytes=tar.stat().st_size)
    path.write_text(json.dumps(info), "utf8")
    write_index(tar, sha256)


def put_index(folder: Path, change: Callable[[ShardIndex], ShardIndex]) -> None:
    """Give the first shard an index that is valid in itself and says something else."""
    shard = read_info(folder).shards[0]
    index = load_index(folder / SHARD, shard)
    index_path(folder / SHARD).write_bytes(change(index).to_bytes(shard.sha256))


def try_out(folder: Path, scratch: Path) -> Outcome:
    """Run on a dataset, check it, and repair it into `scratch`."""
    begin = time.perf_counter()
    path = scratch / "quarantine.jsonl"
    read = run_stream(folder, Quarantine(path, 100))
    lines = path.read_text("utf8").splitlines() if path.exists() else []
    problems = [str(problem) for problem in check_dataset(folder)]
    report = repair_dataset(folder, scratch / "repaired")
    counts = (report.whole, report.joined, report.cut, report.dropped)
    return Outcome(
        read=tuple(sorted(read)),
        quarantined=tuple(json.loads(line) for line in lines),
        problems=tuple(problems),
        kept=tuple(count.total() for count in counts),
        seconds=time.perf_counter() - begin,
    )


def _row(name: str, what: str, outcome: Outcome) -> str:
    """A row of the table."""
    named = [
        f"`{', '.join(part for part in (one['key'], one['member']) if part)}: {one['reason']}`"
        for one in sorted(outcome.quarantined, key=lambda one: one["key"])
    ]
    of_victims = [line for line in outcome.problems if ", k1," in line or ", k2," in line]
    line = (of_victims or outcome.problems)[0]
    counts = (f"{count:,} {word}" for count, word in zip(outcome.kept, WORDS, strict=True) if count)
    cells = (
        name,
        what,
        f"{len(outcome.read)} of {len(KEYS)}",
        "<br>".join(named),
        f"`{line}`",
        ", ".join(counts),
    )
    return f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} |"


def _sums(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Over all faults; each sample counts once for each of them."""
    kept = zip(*(outcome.kept for outcome in outcomes), strict=True)
    return {
        "faults": len(outcomes),
        "samples": len(outcomes) * len(KEYS),
        "read": sum(len(outcome.read) for outcome in outcomes),
        "quarantined": sum(len(outcome.quarantined) for outcome in outcomes),
        "repaired whole": sum(not sum(outcome.kept[1:]) for outcome in outcomes),
        **dict(zip(WORDS, map(sum, kept), strict=True)),
        "seconds": sum(outcome.seconds for outcome in outcomes),
    }


def main() -> None:
    """Print the table and the result."""
    outcomes = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["MEMO_CACHE"] = f"{place}/cache"
        whole, scratch = write_small(Path(place) / "whole"), Path(place) / "scratch"
        print("| fault | data | read | quarantine.jsonl | `memo data check` | repaired |")
        print("|---|---|---|---|---|---|")
        for fault in faults(TINY, HUGE):
            folder = shutil.copytree(whole, scratch / "data")
            damage(folder, fault)
            outcomes.append(try_out(folder, scratch))
            print(_row(fault.name, fault.what, outcomes[-1]), flush=True)
            shutil.rmtree(scratch)
        for name, change in EVIL_INDEXES.items():
            folder = shutil.copytree(whole, scratch / "data")
            put_index(folder, change)
            outcomes.append(try_out(folder, scratch))
            print(_row("evil index", name, outcomes[-1]), flush=True)
            shutil.rmtree(scratch)
    print("RESULT", json.dumps({"bad_data": _sums(outcomes)}))


if __name__ == "__main__":
    main()
