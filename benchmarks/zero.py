"""A step of our engine at every ZeRO stage against plain PyTorch, DistributedDataParallel + AdamW.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.zero --size small

Five models with the same weights take the same steps on the same packed batches of the demo corpus,
in the same processes. The plain side has the same loss, each objective's sum divided by its count
over all ranks and micro-batches, gathers gradients in the last micro-batch of a step alone
(`no_sync`), clips, and has the same fused AdamW; it logs nothing. First each stage's losses,
gradient norms and weights after `--checked` steps are compared with the plain side's, dropout
included. Then all take turns, round by round, in another order each time, and the first round does
not count. A ratio is that of two turns of one round: of the wall time of the slowest rank, and of
the CPU time of all ranks. At the end a few steps are taken with a stopwatch on their parts: `count`
is the sum over the ranks that the exact loss needs, `rest` our engine's seeding of dropout and
logged sums; what DeepSpeed adds is in the others, and so is waiting for the other rank.

Settings follow as `key=value`, e.g. `batch.micro_batches=2`. Exit status 1 if a stage differs.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, TypedDict
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.jobs import DEMO
from benchmarks.pieces import Pieces, open_pieces
from data_pipeline.packing import PackedBatch
from data_pipeline.stream import Step
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.distributed import join
from memo.training.engine import Engine
from memo.training.optimizer import decay_groups, seed_step

STAGES = (0, 1, 2, 3)
PLAIN = "ddp"
PARTS = ("count", "forward", "backward", "update", "rest")
CLOSE = {"loss": 1e-5, "gradient norm": 1e-4, "weights": 1e-3}
"""Largest relative difference; of the weights the norm of the difference to that of the change."""
BATCHES = ("batch.micro_batches=6", "batch.token_budget=1024", "threads=1")
TAKEN = 4
"""Steps of a turn."""
LR = 1e-4


class Figures(TypedDict):
    """Of a side.

    Attributes:
        ms: milliseconds of a step.
        wall, cpu: quartiles of the ratio to the plain side.
    """

    ms: float
    wall: list[float]
    cpu: list[float]


class Side(Protocol):
    """One way of taking steps."""

    def step(self, step: Step, number: int) -> tuple[float, float]:
        """Take one; its loss, on the plain side this rank's share, and the gradient norm."""

    def weights(self) -> Mapping[str, Tensor] | None:
        """All parameters by name; on the first rank."""

    def parts(self) -> list[tuple[object, str, str]]:
        """Where each part of a step is: object, method, name."""


class Plain:
    """DistributedDataParallel and AdamW, with the exact loss.

    Args:
        pieces: of the run.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        model = pieces.model().to(pieces.ranks.device)
        self.model = DistributedDataParallel(model, gradient_as_bucket_view=True)
        optimizer = pieces.config.optimizer
        groups = decay_groups(self.model, optimizer.weight_decay)
        self.adam = torch.optim.AdamW(
            groups, lr=LR, betas=optimizer.betas, eps=optimizer.eps, fused=True
        )

    def step(self, step: Step, number: int) -> tuple[float, float]:
        """Loss of this rank's share, and the norm."""
        del number
        factors, loss = self.count(step.micro_batches), 0.0
        for batch in step.micro_batches[:-1]:
            with self.model.no_sync():
                loss += self.backward(self.forward(batch), factors)
        loss += self.backward(self.forward(step.micro_batches[-1]), factors)
        return loss, self.update()

    def count(self, batches: Sequence[PackedBatch]) -> Tensor:
        """What each objective's sum is to be multiplied with."""
        weights = self.pieces.weights
        device = self.pieces.ranks.device
        here = [sum(one.count(name) for one in batches) for name in weights]
        counts = torch.tensor(here, device=device)
        dist.all_reduce(counts)
        return torch.tensor(list(weights.values()), device=device) / counts.clamp(min=1)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Sums of the objectives' losses."""
        losses = self.model(batch.to(self.pieces.ranks.device))
        return torch.stack([losses[name].sum for name in self.pieces.weights])

    def backward(self, sums: Tensor, factors: Tensor) -> float:
        """DistributedDataParallel takes the mean over the ranks."""
        loss = (sums * factors).sum()
        (loss * self.pieces.ranks.count).backward()
        return float(loss.detach())

    def update(self) -> float:
        """Clip and step; the norm before."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.pieces.config.optimizer.clip)
        self.adam.step()
        self.adam.zero_grad()
        return float(norm)

    def weights(self) -> dict[str, Tensor]:
        """Of the model inside."""
        return {name: one.detach().clone() for name, one in self.model.module.named_parameters()}

    def parts(self) -> list[tuple[object, str, str]]:
        """Where each part of a step is: object, method, name."""
        return [(self, name, name) for name in PARTS[:-1]]


class Staged:
    """Our engine at a ZeRO stage.

    Args:
        pieces: of the run.
        stage: of ZeRO.
    """

    def __init__(self, pieces: Pieces, stage: int) -> None:
        with patch.object(nn.functional, "linear", nn.functional.linear):
            self.engine: Engine = pieces.engine(stage)
            self.linear = nn.functional.linear  # ZeRO-3 puts its own into the whole process

    def step(self, step: Step, number: int) -> tuple[float, float]:
        """Loss and norm."""
        with patch.object(nn.functional, "linear", self.linear):
            result = self.engine.step(step.micro_batches, number, LR)
        return result.loss, result.grad_norm

    def weights(self) -> Mapping[str, Tensor] | None:
        """Of the engine."""
        state = self.engine.collect()
        return None if state is None else state.model

    def parts(self) -> list[tuple[object, str, str]]:
        """Where each part of a step is: object, method, name."""
        within = self.engine.deepspeed
        return [
            (self.engine, "_count", "count"),
            (within, "forward", "forward"),
            (within, "backward", "backward"),
            (within, "step", "update"),
        ]


def main() -> None:
    """Compare, measure, print a table and the result."""
    arguments = _arguments()
    settings = [f"model.size={arguments.size}", *BATCHES, *arguments.settings]
    config = load_config(PretrainConfig, DEMO, settings)
    ranks = join(config.threads)
    pieces = open_pieces(config, ranks)
    sides = {PLAIN: Plain(pieces)} | {f"zero {stage}": Staged(pieces, stage) for stage in STAGES}
    steps = pieces.steps(pieces.start(), max(arguments.checked, TAKEN))
    differences = compare(pieces, sides, steps[: arguments.checked])
    turns = measure(pieces, sides, steps[:TAKEN], arguments.rounds)
    parts = {name: stopwatch(side, steps[:TAKEN]) for name, side in sides.items()}
    if not ranks.first:
        return
    rows = {name: figures(turns[name], turns[PLAIN]) for name in turns}
    _print(rows, parts, arguments.size)
    micro_batches = [len(one.micro_batches) for one in steps[:TAKEN]]
    about: dict[str, Any] = {
        "size": arguments.size,
        "ranks": ranks.count,
        "micro-batches of a rank": micro_batches,
    }
    size_mb = 4e-6 * sum(tensor.numel() for tensor in pieces.model().parameters())
    added = {name: (row["ms"] - rows[PLAIN]["ms"]) / size_mb for name, row in rows.items()}
    about |= {"MB of gradients": size_mb, "ms added per MB": added}
    result = {**about, "differences": differences, "turns": rows, "ms of a step": parts}
    print("RESULT", json.dumps({"zero": result}))
    far = [one for one in differences.values() if any(one[name] > CLOSE[name] for name in CLOSE)]
    sys.exit(1 if far else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("demo", "small"), default="small")
    parser.add_argument("--checked", type=int, default=8, help="steps that are compared")
    parser.add_argument("--rounds", type=int, default=15, help="that count")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser.parse_intermixed_args()


def compare(
    pieces: Pieces, sides: Mapping[str, Side], steps: Sequence[Step]
) -> dict[str, dict[str, float]]:
    """Of each stage the largest relative differences from the plain side; see `CLOSE`."""
    first = dict(pieces.model().named_parameters())
    rows = {name: _take(pieces, side, steps) for name, side in sides.items()}
    weights = {name: side.weights() for name, side in sides.items()}
    expected, plain = rows.pop(PLAIN), weights[PLAIN]
    assert plain is not None
    change = _distance(plain, first)
    return {
        name: {
            "loss": float(np.abs(found[:, 0] / expected[:, 0] - 1).max()),
            "gradient norm": float(np.abs(found[:, 1] / expected[:, 1] - 1).max()),
            "weights": 0.0
            if (theirs := weights[name]) is None
            else _distance(theirs, plain) / change,
        }
        for name, found in rows.items()
    }


def _take(pieces: Pieces, side: Side, steps: Sequence[Step]) -> NDArray[np.float64]:
    """Losses and gradient norms of some steps, (steps, 2)."""
    rows = []
    for number, step in enumerate(steps):
        seed_step(pieces.config.seed, number, pieces.ranks.rank)
        loss, norm = side.step(step, number)
        if isinstance(side, Plain):
            loss = float(pieces.ranks.sum(torch.tensor(loss)))
        rows.append((loss, norm))
    return np.array(rows)


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The norm of the difference of all parameters."""
    apart = [(one[name] - other[name]).detach().square().sum() for name in other]
    return math.sqrt(float(torch.stack(apart).sum()))


def measure(
    pieces: Pieces, sides: Mapping[str, Side], steps: Sequence[Step], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Of each side's turns that count: wall seconds of the slowest rank, CPU seconds of all."""
    names = list(sides)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            dist.barrier()
            wall, cpu = time.perf_counter(), time.process_time()
            for one, step in enumerate(steps):
                sides[name].step(step, one)
            took = time.perf_counter() - wall, time.process_time() - cpu
            walls, cpus = zip(*pieces.ranks.gather(took), strict=True)
            turns[name].append((max(walls), sum(cpus)))
    return {name: found[1:] for name, found in turns.items()}


def figures(turns: Sequence[tuple[float, float]], plain: Sequence[tuple[float, float]]) -> Figures:
    """Seconds of a step, and quartiles of the ratios to the plain side's turns."""
    ratios = np.array(turns) / np.array(plain)
    quartiles = np.quantile(ratios, (0.25, 0.5, 0.75), axis=0)  # (3, 2)
    return {
        "ms": 1e3 * float(np.median(turns, axis=0)[0]) / TAKEN,
        "wall": quartiles[:, 0].tolist(),
        "cpu": quartiles[:, 1].tolist(),
    }


def stopwatch(side: Side, steps: Sequence[Step]) -> dict[str, float]:
    """Milliseconds of a step in each of its parts, on the first rank."""
    spent = dict.fromkeys((*PARTS, "all"), 0.0)
    with ExitStack() as stack:
        for owner, method, name in side.parts():
            timed = _timed(getattr(owner, method), name, spent)
            stack.enter_context(patch.object(owner, method, timed))
        dist.barrier()
        for number, step in enumerate(steps):
            _timed(side.step, "all", spent)(step, number)
    spent["rest"] = 2 * spent["all"] - sum(spent.values())
    return {name: 1e3 * spent[name] / len(steps) for name in PARTS}


def _timed(method: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """The method; what its calls take is added up under the name."""

    def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        begin = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            spent[name] += time.perf_counter() - begin

    return timed


def _print(
    rows: Mapping[str, Figures], parts: Mapping[str, Mapping[str, float]], size: str
) -> None:
    table = Table("", "ms", "wall", "quartiles", "CPU", "quartiles", *PARTS, title=size)
    for name, row in rows.items():
        cells = [f"{row['ms']:.1f}"]
        for low, middle, high in (row["wall"], row["cpu"]):
            cells += [f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
        table.add_row(name, *cells, *(f"{parts[name][part]:.1f}" for part in PARTS))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
