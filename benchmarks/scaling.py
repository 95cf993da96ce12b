r"""Time and cost of pretraining on 1 to 256 GPUs, on paper: the tables of docs/scaling.md.

    python -m benchmarks.scaling datasets/grid datasets/ravdess datasets/korean_speech \
        --tokenizer datasets/mixture-tokenizer --markdown

Clips, tokens and bytes of an hour are measured on the datasets, FLOPs counted as in `memo.model`.
What was measured elsewhere, with its command in docs/results.md, and what is assumed of machines
that were not at hand stands below, each by its name.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.clips import Video, video_of
from memo.config import OBJECTIVES, SIZES, Limits, ModelSpec
from memo.model.flops import encoder_flops
from memo.model.memobert import MemoBert
from memo.objectives import build_objectives
from memo.objectives.pretraining_model import PretrainingModel

# Measured.
LOADER = 2_800
"""Clips a second that the thread of one rank makes ready (benchmarks.loader on GRID)."""
PLAN_S = 1.5e-6
"""Seconds of a rank's thread for each clip of the whole global batch: order and plan 0.47 µs, the
index that its length stands in 1.03 (benchmarks.simulate)."""
VOLUME = {1: (3.0, 0.0), 3: (0.0, 2.0)}
"""Times the parameters that a ring sends, by ZeRO stage: in a step, and for each micro-batch
(benchmarks.collectives, as the agreements)."""
TEXT_S = 2e-4
"""Seconds of a rank's thread for each clip of the global batch whose text was not counted before:
reading and cutting it (MELD 1.8e-4, GRID 3.1e-4, busy cores)."""
AGREEMENTS = 4
"""All-reduces of a few numbers in a step."""
EXTRACTION = 4.7
"""Seconds of video whose features a core makes in a second (GRID: 2,707 s in 286 s on two)."""
INDEX_BYTES = 125
"""Of a clip: a row of 112 and its key."""

# From the papers and configs/pretrain.
STEPS, BATCH, BUDGET, CHECKPOINT_EVERY = 40_000, 640, 16_384, 1_000
STAGE, RECOMPUTED = {"base": 1, "large": 3}, {"base": 1.0, "large": 4 / 3}
"""ZeRO stage, and FLOPs with activation checkpointing over those without."""
VOCABULARY, FACES, EXPRESSIONS, SPEECH = 30_522, 342, 7, 384
A_GPU = 64
"""Clips of a GPU in a step of the pass over the data, where the batch grows with the GPUs."""
HOURS_A_FAILURE = 50_000
"""GPU-hours: 419 interruptions of 16,384 GPUs in 54 days (Llama 3 herd of models, 2024, 3.3.4)."""

# Assumed of machines that were not at hand.
A_NODE = 8
LAUNCH_S = 1e-3
"""Least seconds of a layer for a micro-batch, forward and backward: some 60 kernels of 10 µs and
Python around them."""
NODE_BYTES_S = 50e9
"""Network of a node: one card of 400 Gbit/s; a ring through all nodes goes at this rate."""
AGREEMENT_S = 1e-4
CHECKPOINT_BYTES_S = 2e9
"""At which a checkpoint is gathered on the first rank's host while the training waits."""
CORE_PRICE = 0.04
"""Dollars of an hour of one CPU core."""

GPUS = tuple(2**power for power in range(9))
HOURS = (1_000, 100_000)
BYTES = 2
"""Of a parameter or gradient that is sent: bf16."""


@dataclass(frozen=True)
class Gpu:
    """What is assumed of a GPU.

    Attributes:
        name: of it.
        peak: bf16 FLOP/s without sparsity, as its maker says.
        ring: bytes a second of a ring in a node.
        price: dollars an hour.
    """

    name: str
    peak: float
    ring: float
    price: float


H200, A100 = Gpu("H200", 989e12, 360e9, 3.5), Gpu("A100", 312e12, 230e9, 1.5)
SHARES = (0.3, 0.4, 0.5)
"""Of the peak that a step may reach."""


@dataclass(frozen=True)
class Job:
    """A model on some data.

    Attributes:
        size: of the model.
        parameters: how many it trains.
        flops: of a clip, forward and backward, on average.
        tokens: of a clip.
        clip_bytes: in a shard.
    """

    size: str
    parameters: int
    flops: float
    tokens: float
    clip_bytes: float


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step, and what they are spent on.

    Attributes:
        compute: of the forward and backward passes.
        send: of the collectives; nothing is assumed to be hidden behind the passes.
        data: of the thread that makes the batches ahead.
        save: of a checkpoint, divided by the steps between two.
    """

    compute: float
    send: float
    data: float
    save: float

    @property
    def without_loader(self) -> float:
        """If the data were always there."""
        return self.compute + self.send + self.save

    @property
    def total(self) -> float:
        """Of a step in a long run."""
        return max(self.compute + self.send, self.data) + self.save

    @property
    def bound(self) -> str:
        """What takes most of it."""
        return (
            "loader"
            if self.data > self.compute + self.send
            else ("network" if self.send > self.compute else "GPU")
        )


def step_time(job: Job, gpu: Gpu, share: float, gpus: int, clips: int) -> StepTime:
    """A step of so many clips over all GPUs, in as few micro-batches as the budget allows."""
    layers, parts = SIZES[job.size]["layers"], math.ceil(job.tokens * clips / gpus / BUDGET)
    work = job.flops * RECOMPUTED[job.size] * clips / gpus / (share * gpu.peak)
    return StepTime(
        compute=max(work, parts * layers * LAUNCH_S),
        send=send_time(job, gpu, gpus, parts),
        data=clips / gpus / LOADER + clips * PLAN_S,
        save=12 * job.parameters / CHECKPOINT_BYTES_S / CHECKPOINT_EVERY,
    )


def send_time(job: Job, gpu: Gpu, gpus: int, parts: int) -> float:
    """Seconds of a ring through all GPUs for so many micro-batches, and of the agreements."""
    if gpus == 1:
        return 0.0
    rate = gpu.ring if gpus <= A_NODE else NODE_BYTES_S
    once, each = VOLUME[STAGE[job.size]]
    sent = (once + each * parts) * BYTES * job.parameters * (gpus - 1) / gpus
    return sent / rate + AGREEMENTS * AGREEMENT_S


def job_of(size: str, video: Video) -> Job:
    """The model on clips like these; the heads' few positions are left out of the FLOPs."""
    spec = ModelSpec(
        **SIZES[size], vocab_size=VOCABULARY, face_dim=FACES, face_classes=EXPRESSIONS,
        speech_dim=SPEECH, max_speech=Limits().speech,
    )  # fmt: skip
    with torch.device("meta"):
        model = PretrainingModel(MemoBert(spec), build_objectives(OBJECTIVES, spec))
    clips = len(video.tokens)
    rows = video.rows.face.sum() * FACES + video.rows.speech.sum() * SPEECH
    flops = 3 * (encoder_flops(spec, video.tokens.tolist()) + 2 * spec.hidden * float(rows))
    parameters = sum(one.numel() for one in model.parameters())
    return Job(size, parameters, flops / clips, float(video.tokens.mean()), video.bytes / clips)


def recipe_rows(job: Job, gpu: Gpu, share: float) -> Iterator[dict[str, str]]:
    """MEmoBERT's 40,000 steps of 640 clips, whatever the data."""
    one = step_time(job, gpu, share, 1, BATCH).total
    for gpus in GPUS:
        step = step_time(job, gpu, share, gpus, BATCH)
        hours = STEPS * step.total / 3600
        yield {
            "GPUs": f"{gpus}",
            "clips a GPU": f"{BATCH / gpus:g}",
            **step_cells(step),
            "hours": f"{hours:.2f}",
            "GPU-hours": f"{gpus * hours:.1f}",
            "$": f"{gpus * hours * gpu.price:,.0f}",
            "efficiency": f"{one / step.total / gpus:.2f}",
            "hours if data were there": f"{STEPS * step.without_loader / 3600:.2f}",
        }


def pass_rows(job: Job, gpu: Gpu, share: float, clips_an_hour: float) -> Iterator[dict[str, str]]:
    """One pass over the data, the batch growing with the GPUs."""
    first = step_time(job, gpu, share, 1, BATCH).total / BATCH
    for gpus in GPUS:
        clips = max(BATCH, A_GPU * gpus)
        step = step_time(job, gpu, share, gpus, clips)
        a_node = min(gpus, A_NODE) * clips / gpus / step.total * job.clip_bytes
        counting = max(step.total, step.data + clips * TEXT_S)
        hours = {given: given * clips_an_hour / clips * step.total / 3600 for given in HOURS}
        yield {
            "GPUs": f"{gpus}",
            "clips a step": f"{clips:,}",
            **step_cells(step),
            **{f"{given:,} h": f"{hours[given]:,.2f}" for given in HOURS},
            "and its texts counted": f"{hours[HOURS[-1]] * counting / step.total:,.2f}",
            **{f"$ of {given:,} h": f"{gpus * hours[given] * gpu.price:,.0f}" for given in HOURS},
            "efficiency": f"{first / (step.total / clips) / gpus:.2f}",
            "a node reads": f"{a_node / 1e9:.2f} GB/s",
            "and with `fetch`": f"{clips / step.total * job.clip_bytes / 1e9:.1f} GB/s",
        }


def step_cells(step: StepTime) -> dict[str, str]:
    """Milliseconds of the parts of a step."""
    return {
        "GPU ms": f"{1e3 * step.compute:.1f}",
        "network ms": f"{1e3 * step.send:.1f}",
        "loader ms": f"{1e3 * step.data:.1f}",
        "bound by": step.bound,
    }


def data_rows(video: Video) -> Iterator[dict[str, str]]:
    """What so many hours of video are."""
    clips_an_hour = 3600 * len(video.tokens) / video.seconds
    for hours in HOURS:
        clips = hours * clips_an_hour
        cores = hours / EXTRACTION
        yield {
            "hours": f"{hours:,}",
            "clips": f"{clips:.3g}",
            "tokens": f"{clips * video.tokens.mean():.3g}",
            "shards of 1,000": f"{clips / 1000:,.0f}",
            "shards": f"{clips * video.bytes / len(video.tokens) / 1e12:.3g} TB",
            "indexes": f"{clips * INDEX_BYTES / 1e9:.3g} GB",
            "features, core-hours": f"{cores:,.0f}",
            "$ of them": f"{cores * CORE_PRICE:,.0f}",
            "texts counted, hours of every rank": f"{clips * TEXT_S / 3600:.2g}",
            "epochs of the 40,000 steps": f"{STEPS * BATCH / clips:.3g}",
        }


def compute_rows(jobs: Sequence[Job], clips_an_hour: float) -> Iterator[dict[str, str]]:
    """GPU-hours of the arithmetic alone."""
    for job in jobs:
        for gpu in (H200, A100):
            for share in SHARES:
                second = job.flops * RECOMPUTED[job.size] / (share * gpu.peak)
                yield {
                    "model": job.size,
                    "GPU": gpu.name,
                    "share of the peak": f"{share}",
                    "40,000 steps": f"{STEPS * BATCH * second / 3600:.2f}",
                    **{
                        f"{hours:,} h once": f"{hours * clips_an_hour * second / 3600:.2f}"
                        for hours in HOURS
                    },
                    "clips/s of a GPU": f"{1 / second:,.0f}",
                }


def main() -> None:
    """Print the tables and the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.4, help="of the GPU's peak")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    video = video_of(arguments.datasets, arguments.tokenizer)
    clips_an_hour = 3600 * len(video.tokens) / video.seconds
    jobs = [job_of(size, video) for size in STAGE]
    tables = {
        "The data": list(data_rows(video)),
        "GPU-hours of the arithmetic alone": list(compute_rows(jobs, clips_an_hour)),
    }
    for job in jobs:
        share = arguments.share
        tables[f"`{job.size}`: 40,000 steps of 640 clips"] = list(recipe_rows(job, H200, share))
        once = list(pass_rows(job, H200, share, clips_an_hour))
        tables[f"`{job.size}`: once through the data"] = once
    for title, rows in tables.items():
        print(f"\n### {title}\n\n{markdown(rows)}") if arguments.markdown else show(title, rows)
    measured = {
        "seconds of a clip": video.seconds / len(video.tokens),
        "largest share of face rows": float(np.mean(video.rows.face == Limits().face)),
        "jobs": [asdict(job) for job in jobs],
    }
    print("RESULT", json.dumps({"scaling": measured}))


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A table for the document."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def show(title: str, rows: Sequence[dict[str, str]]) -> None:
    """A table for the screen."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*row.values())
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
