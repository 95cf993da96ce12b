"""How long a rank waits for its first batch, anywhere in the order, and what memory it takes.

    python -m benchmarks.start --work build/start

The corpus: 4,096 shards of 2,442 demo clips each, 10^7 in all, which are links to one tar. Each row
is measured in a process of its own, imports left out: dataset.json and its shards, a small model,
the order, lengths, reading, tokenising, masking, packing, until the first step of 64 samples is
there; no text was counted before. Then three epochs of 16 of the shards, and the memory that is the
process's own after each.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from data_pipeline import cpu_torch
from data_pipeline.corpora.demo import write_demo
from data_pipeline.order import StreamState
from data_pipeline.shards.dataset import FILE, parse_info
from data_pipeline.shards.index import index_path
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.writer import ShardWriter
from data_pipeline.stream import Placement, StepSize, TrainStream
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.tokenizer import train_sentencepiece
from memo.training.setup import batch_makers, build_model, build_transform, model_spec, open_data

SEED, STEP = 1234, 64
A_SHARD, SHARDS, FEW = 2_442, 4_096, 16
POSITIONS = (0, 10, 10**7)
EPOCHS = 3
KIB_A_MIB = 1024


def main() -> None:
    """Measure everything in processes of its own, or one thing as such a process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="folder for the corpora")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # a position, or "epochs"
    arguments = parser.parse_args()
    work: Path = arguments.work
    if arguments.only == "epochs":
        print(json.dumps(memory_over_epochs(work)))
    elif arguments.only:
        print(json.dumps(wait_for_first(work, int(arguments.only))))
    else:
        make_corpora(work)
        show(work, arguments.rounds)


def make_corpora(work: Path) -> None:
    """One shard, and datasets that have it many times."""
    if work.exists():
        return
    write_demo(work / "demo", train=A_SHARD, valid=1)
    clips = open_dataset(work / "demo").split("train")
    features = open_dataset(work / "demo").info.features
    with ShardWriter(
        work / "one", name="one", corpus="demo", licence="CC0-1.0", features=features,
        samples_per_shard=A_SHARD,
    ) as writer:  # fmt: skip
        for sample in range(len(clips)):
            writer.write("train", clips.read(sample))
        writer.write("valid", open_dataset(work / "demo").split("valid").read(0))
    train_sentencepiece(clips.texts(), work / "tokenizer", 1000)
    for name, shards in (("many", SHARDS), ("few", FEW)):
        link_shards(work / "one", work / name, shards)


def link_shards(source: Path, out: Path, count: int) -> None:
    """A dataset that has the training shard of another one so many times, and its other shard."""
    out.mkdir()
    info = parse_info((source / FILE).read_bytes(), source)
    shard, other = info.shards
    copies = [f"train-{number:06d}.tar" for number in range(count)]
    for old, new in [(shard.name, name) for name in copies] + [(other.name, other.name)]:
        os.link(source / old, out / new)
        os.link(index_path(source / old), index_path(out / new))
    shards = (*(replace(shard, name=name) for name in copies), other)
    (out / FILE).write_text(info.model_copy(update={"shards": shards}).model_dump_json())


def wait_for_first(work: Path, position: int) -> float:
    """Seconds until the first step from a position is there; no text was counted before."""
    os.environ["MEMO_CACHE"] = str(work / f"cache-{os.getpid()}")
    with open_stream(work, "few", 0) as stream:  # imports, and the code of every stage
        next(stream)
    begin = perf_counter()
    with open_stream(work, "many", position) as stream:
        next(stream)
        seconds = perf_counter() - begin
    shutil.rmtree(os.environ["MEMO_CACHE"], ignore_errors=True)
    return seconds


def memory_over_epochs(work: Path) -> list[float]:
    """MiB of the process's own memory, mapped files left out, after each epoch."""
    os.environ["MEMO_CACHE"] = str(work / f"cache-{os.getpid()}")
    found = []
    with open_stream(work, "few", 0) as stream:
        for _ in range(EPOCHS):
            for _ in range(FEW * A_SHARD // STEP):
                next(stream)
            found.append(own_memory())
    shutil.rmtree(os.environ["MEMO_CACHE"], ignore_errors=True)
    return found


def open_stream(work: Path, name: str, position: int) -> TrainStream:
    """Everything between a dataset's folder and the steps from a position on."""
    settings = [
        f"data.dataset={work / name}",
        f"data.tokenizer={work / 'tokenizer'}",
        "model.size=demo",
    ]
    config = load_config(PretrainConfig, None, settings)
    data = open_data(config)
    spec = model_spec(config, data)
    transform = build_transform(config, build_model(config, spec, data), data.tokenizer)
    maker = batch_makers(config, data, transform, spec, Placement()).train
    state = StreamState.start(SEED, data.train.fingerprint).advance(position, len(data.train))
    return TrainStream(maker, state, StepSize(STEP))


def own_memory() -> float:
    """MiB that are not of mapped files."""
    status = Path("/proc/self/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / KIB_A_MIB


def show(work: Path, rounds: int) -> None:
    """A table, and the result."""
    waits: dict[int, list[float]] = {position: [] for position in POSITIONS}
    for _ in range(rounds):
        for position in POSITIONS:
            waits[position].append(in_process(work, str(position)))
    table = Table("first sample", "seconds until the first step, median", "least", "most")
    for position, seconds in waits.items():
        middle = statistics.median(seconds)
        table.add_row(
            f"{position:,}", *(f"{one:.3f}" for one in (middle, min(seconds), max(seconds)))
        )
    memory = in_process(work, "epochs")
    Console(width=100).print(table, f"MiB after each epoch of {FEW * A_SHARD:,} samples: {memory}")
    print("RESULT", json.dumps({"first_s": waits, "memory_mib": memory}))


def in_process(work: Path, what: str) -> Any:  # noqa: ANN401
    """What a process of its own says."""
    command = [sys.executable, "-m", "benchmarks.start", "--work", str(work), "--only", what]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cpu_torch.install()
    main()
