"""How full micro-batches are, and how alike the ranks' shares, on the lengths of real clips.

    python -m benchmarks.packing --config configs/pretrain/mixture.yaml

The lengths are those that the stream plans with. A step fills a micro-batch for each rank (`fill`),
or has as many samples as that takes (`divide`), over and over, through three epochs of the largest
dataset. `full` is the share of the token budget that is used, over all steps; `imbalance` what the
busiest rank has more than the mean, the mean and the largest of all steps.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from data_pipeline.plan import divide, fill
from data_pipeline.stream import BatchMaker, Placement
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.setup import batch_makers, build_model, build_transform, model_spec, open_data

RANKS = (1, 2, 8, 64)
EPOCHS = 3


def main() -> None:
    """Plan, and print a table and the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    config = load_config(PretrainConfig, arguments.config, arguments.settings)
    maker = open_maker(config)
    rows = []
    for ranks in RANKS:
        for way in (by_filling, by_dividing):
            steps = list(way(maker, ranks))
            rows.append({"ranks": ranks, "by": way.__name__, **figures(steps, maker.token_budget)})
    table = Table(*rows[0], title=f"{maker.split.name}, budget {maker.token_budget}")
    for row in rows:
        table.add_row(
            *(f"{one:.4f}" if isinstance(one, float) else str(one) for one in row.values())
        )
    Console(width=120).print(table)
    print("RESULT", json.dumps({"packing": rows}))


def open_maker(config: PretrainConfig) -> BatchMaker:
    """The stream's view of the data."""
    data = open_data(config)
    spec = model_spec(config, data)
    transform = build_transform(config, build_model(config, spec, data), data.tokenizer)
    return batch_makers(config, data, transform, spec, Placement()).train


def by_filling(maker: BatchMaker, ranks: int) -> Iterator[NDArray[np.int64]]:
    """Tokens of each micro-batch of every step, int64 (ranks, micro-batches)."""
    order, position = maker.split.order(0), 0
    ahead = ranks * maker.token_budget  # a sample has a token at least
    while position < EPOCHS * len(maker.split):
        look = min(ahead, 4 * len(maker.split))
        lengths = maker.lengths.of(order.visits(np.arange(position, position + look)).samples)
        taken, plan = fill(lengths, ranks, ranks, maker.token_budget)
        ahead = 2 * taken
        position += taken
        yield _loads(lengths, plan)


def by_dividing(maker: BatchMaker, ranks: int) -> Iterator[NDArray[np.int64]]:
    """The same of steps of a fixed number of samples, which take about a micro-batch a rank."""
    order = maker.split.order(0)
    mean = maker.lengths.of(np.arange(len(maker.split))).mean()
    step = int(0.95 * ranks * maker.token_budget / mean)
    for position in range(0, EPOCHS * len(maker.split), step):
        lengths = maker.lengths.of(order.visits(np.arange(position, position + step)).samples)
        yield _loads(lengths, divide(lengths, ranks, maker.token_budget))


def _loads(lengths: NDArray[np.int64], plan: list[list[NDArray[np.int64]]]) -> NDArray[np.int64]:
    return np.array([[lengths[one].sum() for one in share] for share in plan])


def figures(steps: list[NDArray[np.int64]], budget: int) -> dict[str, float]:
    """What the steps have in common."""
    used = sum(int(step.sum()) for step in steps)
    room = sum(step.size for step in steps) * budget
    shares = [step.sum(axis=1) for step in steps]
    more = [float(share.max() / share.mean() - 1) for share in shares]
    return {
        "steps": len(steps),
        "micro-batches a rank": float(np.mean([step.shape[1] for step in steps])),
        "full": used / room,
        "imbalance, mean": float(np.mean(more)),
        "imbalance, largest": max(more),
    }


if __name__ == "__main__":
    main()
