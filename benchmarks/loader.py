"""Loaders on the same clips: samples per CPU second of this one, webdataset, litdata and MDS.

    pip install litdata mosaicml-streaming          # those that are missing are left out, and named
    python -m benchmarks.loader datasets/grid --work build/loader

The training split is written in each loader's own form; webdataset reads our tars. First every
loader must give the same clips, bit for bit. Then each reads all of them in a process of its own,
round by round in turn, one thread: `read` decodes them (this one shuffled, webdataset through its
buffer of 1,000, litdata in order, MDS shuffled), `train` tokenises, masks and packs them as well,
with the same code behind each. `cold` is wall time after the files were dropped from the page
cache. The first lines are of reading the tars' bytes alone.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from data_pipeline import cpu_torch
from data_pipeline.clip import MEMBERS, Clip, Word, clip_from_members, clip_members
from data_pipeline.order import StreamState
from data_pipeline.packing import Example, pack
from data_pipeline.shards.reader import Split, open_dataset
from data_pipeline.stream import BatchMaker, Placement, StepSize, TrainStream
from memo.config import PretrainConfig
from memo.objectives.transform import PretrainTransform
from memo.settings import load_config
from memo.training.setup import (
    Data,
    batch_makers,
    build_model,
    build_transform,
    model_spec,
    open_data,
)

SEED = 1234
BUFFER = 1_000
"""Samples of webdataset's shuffle buffer."""
BUDGET, STEP = 4_096, 64
PEERS = {"webdataset": "webdataset", "litdata": "litdata", "mds": "streaming"}


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Attributes:
        loader: name.
        dataset: folder of our form.
        work: folder of the other forms.
        train: tokenise, mask and pack as well.
    """

    loader: str
    dataset: Path
    work: Path
    train: bool


def members_of(clip: Clip) -> dict[str, bytes]:
    """A clip as bytes, the same whatever it was read with."""
    return dict(clip_members(clip))


def write_others(split: Split, work: Path, loaders: Sequence[str]) -> None:
    """Write what is missing of the other loaders' forms."""
    clips = [(split.read(at).key, members_of(split.read(at))) for at in range(len(split))]
    if "litdata" in loaders and not (work / "litdata").exists():
        import litdata  # noqa: PLC0415

        litdata.optimize(
            fn=_as_arrays, inputs=clips, output_dir=str(work / "litdata"), chunk_bytes="64MB",
            num_workers=1,
        )  # fmt: skip
    if "mds" in loaders and not (work / "mds").exists():
        from streaming import MDSWriter  # noqa: PLC0415

        columns = {"key": "str", **{_column(name): _mds_kind(name) for name in MEMBERS}}
        with MDSWriter(out=str(work / "mds"), columns=columns) as writer:
            for clip in clips:
                writer.write({**dict.fromkeys(columns, b""), **_for_mds(_as_arrays(clip))})


def _column(member: str) -> str:
    return member.replace(".", "_")


def _mds_kind(member: str) -> str:
    return "ndarray" if member.endswith("npy") else "bytes"


def _for_mds(sample: Mapping[str, Any]) -> dict[str, Any]:
    nothing = np.zeros((0, 0), dtype=np.float16)
    empty = {_column(name): nothing for name in MEMBERS if name.endswith("npy")}
    return {**empty, **sample}


def _as_arrays(clip: tuple[str, dict[str, bytes]]) -> dict[str, Any]:
    """What the other loaders are given: arrays as arrays, the rest as bytes."""
    key, members = clip
    rows = clip_from_members(key, members)
    arrays = {"face.npy": rows.face, "expression.npy": rows.expression, "speech.npy": rows.speech}
    sample: dict[str, Any] = {"key": key}
    for name, content in members.items():
        sample[_column(name)] = np.asarray(arrays[name]) if name in arrays else content
    return sample


def _as_clip(sample: Mapping[str, Any], record: Mapping[str, Any]) -> Clip:
    """What the other loaders give back, as a clip; everything is taken as it is."""
    rows = {
        field: np.asarray(sample[column])
        for field, column in (("face", "face_npy"), ("expression", "expression_npy"),
                              ("speech", "speech_npy"))
        if column in sample and np.asarray(sample[column]).size
    }  # fmt: skip
    words = tuple(map(Word._make, record["words"]))
    return Clip(
        **{**record, **rows, "key": sample["key"], "words": words, "tags": tuple(record["tags"])}
    )


def read_tar(job: Job) -> Iterator[Clip]:
    """The bytes of the tars, and no clip."""
    for path in sorted(job.dataset.glob("train-*.tar")):
        with path.open("rb", buffering=0) as file:
            while file.read(2**20):
                pass
    yield from ()


def read_memo(job: Job) -> Iterator[Clip]:
    """This loader, shuffled."""
    split = open_dataset(job.dataset).split("train")
    for sample in split.order(SEED).visits(np.arange(len(split))).samples.tolist():
        yield split.read(sample)


def read_webdataset(job: Job) -> Iterator[Clip]:
    """The same tars through webdataset and its shuffle buffer."""
    import webdataset  # noqa: PLC0415

    urls = [str(path) for path in sorted(job.dataset.glob("train-*.tar"))]
    stream = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=SEED)
    for sample in stream.shuffle(BUFFER).decode():
        found = {_column(name): value for name, value in sample.items()}
        yield _as_clip({**found, "key": sample["__key__"]}, sample["json"])


def read_litdata(job: Job) -> Iterator[Clip]:
    """litdata, in order."""
    import litdata  # noqa: PLC0415

    for sample in litdata.StreamingDataset(str(job.work / "litdata"), shuffle=False):
        yield _as_clip(sample, json.loads(bytes(sample["json"])))


def read_mds(job: Job) -> Iterator[Clip]:
    """MosaicML Streaming, shuffled."""
    import streaming  # noqa: PLC0415

    streaming.base.util.clean_stale_shared_memory()
    folder = str(job.work / "mds")
    for sample in streaming.StreamingDataset(local=folder, shuffle=True, batch_size=1):
        yield _as_clip(sample, json.loads(bytes(sample["json"])))


READERS: dict[str, Callable[[Job], Iterator[Clip]]] = {
    "tar": read_tar,
    "memo": read_memo,
    "webdataset": read_webdataset,
    "litdata": read_litdata,
    "mds": read_mds,
}


def open_run(job: Job) -> tuple[PretrainConfig, Data, PretrainTransform, BatchMaker]:
    """What tokenises and masks: the settings of a small model."""
    settings = [f"data.dataset={job.dataset}", "model.size=demo", f"batch.token_budget={BUDGET}"]
    config = load_config(PretrainConfig, None, settings)
    data = open_data(config)
    spec = model_spec(config, data)
    transform = build_transform(config, build_model(config, spec, data), data.tokenizer)
    return config, data, transform, batch_makers(config, data, transform, spec, Placement()).train


def train_on(job: Job) -> Iterator[Callable[[], int]]:
    """First what sets up, then what runs through an epoch and says how many samples it had."""
    _, data, transform, maker = open_run(job)

    def ours() -> int:
        made = 0

        def counted(clip: Clip, sample: int, epoch: int) -> Example:
            nonlocal made
            made += 1  # also in the steps that are prepared ahead and then not taken
            return transform(clip, sample, epoch)

        state = StreamState.start(SEED, data.train.fingerprint)
        with TrainStream(replace(maker, transform=counted), state, StepSize(STEP)) as stream:
            for _ in islice(stream, len(data.train) // STEP):
                pass
        return made

    def others() -> int:
        waiting: list[Example] = []
        samples = tokens = 0
        for number, clip in enumerate(READERS[job.loader](job)):
            waiting.append(transform(clip, number, 0))
            samples += 1
            tokens += waiting[-1].tokens
            if tokens > BUDGET:
                pack(waiting[:-1], transform.specs, maker.face_dim, maker.speech_dim)
                waiting = waiting[-1:]
                tokens = waiting[0].tokens
        return samples

    yield ours if job.loader == "memo" else others


def measure(job: Job) -> dict[str, float]:
    """CPU and wall seconds of one pass, after one that is not counted, and its samples."""
    if job.train:
        (once,) = train_on(job)
    else:
        once = lambda: sum(1 for _ in READERS[job.loader](job))  # noqa: E731
    begin = perf_counter()
    once()
    first = perf_counter() - begin
    wall, cpu = perf_counter(), process_time()
    samples = once()
    return {
        "samples": samples,
        "cpu_s": process_time() - cpu,
        "wall_s": perf_counter() - wall,
        "first_s": first,
    }


def digest(job: Job) -> dict[str, str]:
    """Key -> hash of the clip."""
    found = {}
    for clip in READERS[job.loader](job):
        content = b"".join(name.encode() + one for name, one in members_of(clip).items())
        found[clip.key] = hashlib.sha256(content).hexdigest()
    return found


def in_process(job: Job, what: str) -> dict[str, Any]:
    """`measure` or `digest` of a job, in a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.loader", str(job.dataset), "--work", str(job.work),
        "--only", job.loader, "--what", what, *(["--train"] if job.train else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job.loader}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def drop_from_cache(folders: Sequence[Path]) -> None:
    """Let the next reading come from the disk."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(dataset: Path, work: Path, loaders: Sequence[str], rounds: int) -> dict[str, Any]:
    """Equality first, then every loader in turn."""
    jobs = {
        (name, train): Job(name, dataset, work, train)
        for name in loaders
        for train in (False, True)
        if not (train and name == "tar")
    }
    hashes = {name: in_process(Job(name, dataset, work, False), "digest") for name in loaders[1:]}
    for name, found in hashes.items():
        if found != hashes["memo"]:
            raise SystemExit(f"{name} gives other clips than memo")
    runs: dict[tuple[str, bool], list[dict[str, float]]] = {key: [] for key in jobs}
    for _ in range(rounds):
        for key, job in jobs.items():
            drop_from_cache([dataset, work])
            runs[key].append(in_process(job, "measure"))
    return {f"{name}{'+train' if train else ''}": _row(one) for (name, train), one in runs.items()}


def _row(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    rate = middle["samples"] / middle["cpu_s"]
    return {**middle, "per_cpu_s": rate}


def show(rows: Mapping[str, Mapping[str, float]]) -> None:
    """The table."""
    table = Table("loader", "samples per CPU s", "memo is", "warm, wall s", "cold, wall s")
    for name, row in rows.items():
        base = rows["memo+train" if name.endswith("+train") else "memo"]["per_cpu_s"]
        times = f"{base / row['per_cpu_s']:.2f} x" if row["samples"] else ""
        rate = f"{row['per_cpu_s']:,.0f}" if row["samples"] else ""
        table.add_row(name, rate, times, f"{row['wall_s']:.3f}", f"{row['first_s']:.3f}")
    Console(width=100).print(table)


def main() -> None:
    """Compare, or measure one loader for the process that compares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--what", default="measure")
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cpu_torch.install()
    if arguments.only:
        job = Job(arguments.only, arguments.dataset, arguments.work, arguments.train)
        print(json.dumps(measure(job) if arguments.what == "measure" else digest(job)))
        return
    missing = [name for name, module in PEERS.items() if importlib.util.find_spec(module) is None]
    loaders = [name for name in READERS if name not in missing]
    arguments.work.mkdir(parents=True, exist_ok=True)
    write_others(open_dataset(arguments.dataset).split("train"), arguments.work, loaders)
    rows = compare(arguments.dataset, arguments.work, loaders, arguments.rounds)
    show(rows)
    print("RESULT", json.dumps({"missing": missing, "loaders": rows}))


if __name__ == "__main__":
    main()
