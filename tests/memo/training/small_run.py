"""A dozen clips of the demo corpus and the settings of a run on them that takes a second."""

import json
from pathlib import Path
from typing import Any

from data_pipeline.corpora.demo import write_demo
from data_pipeline.shards.reader import open_dataset
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.tokenizer import train_sentencepiece

SAMPLES, GLOBAL_BATCH, STEPS = 12, 8, 5
"""Step 1 ends inside the first epoch, step 2 across its end, step 3 at the end of the second."""

TIMES = {"samples_per_s", "tokens_per_s", "mfu", "data_wait", "step_s", "read_mb_per_s"}
"""What two equal runs differ in."""


def write_small_dataset(folder: Path) -> Path:
    """The dataset with its tokenizer, in shards of which the order is drawn."""
    write_demo(folder, train=SAMPLES, valid=4)
    train = open_dataset(folder).split("train")
    texts = [train.read_text(sample) or "" for sample in range(len(train))]
    train_sentencepiece(texts, folder / "tokenizer", 100)
    return folder


def small_settings(dataset: Path, run: Path, *changes: str) -> list[str]:
    """Every step is logged and saved, and every checkpoint kept."""
    return [
        f"data.dataset={dataset}",
        f"run_dir={run}",
        f"steps={STEPS}",
        f"batch.global_batch={GLOBAL_BATCH}",
        "threads=1",
        "log_every=1",
        "valid_every=3",
        "checkpoint_every=1",
        "keep_checkpoints=null",
        "model.hidden=32",
        "model.layers=1",
        "model.heads=2",
        "model.ffn=64",
        "optimizer.lr=1e-3",
        "optimizer.warmup_steps=2",
        *changes,
    ]


def small_config(dataset: Path, run: Path, *changes: str) -> PretrainConfig:
    """`small_settings`, read."""
    return load_config(PretrainConfig, None, small_settings(dataset, run, *changes))


def logged(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log, without what time alone decides."""
    return [{key: one for key, one in row.items() if key not in TIMES} for row in timed(run)]


def timed(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def checkpoint(run: Path, step: int) -> Path:
    """Where a run keeps what it saved after a step."""
    return run / "checkpoints" / f"step-{step:08d}"
