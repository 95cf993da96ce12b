"""What the ranks send each other in a step, counted in real runs on gloo.

    python -m benchmarks.collectives

Two and four ranks train a model on the demo corpus at every ZeRO stage. Every collective operation
of torch is counted in the third step, those that the ranks agree by apart from DeepSpeed's. A row's
volume is in bytes of all parameters (the Psi of Rajbhandari et al., SC 2020, who count 2 Psi at
stages 0 to 2 and 3 Psi at stage 3): a whole tensor counts once for a reduce, a broadcast, a reduce-
scatter or an all-gather, twice for an all-reduce. Of n ranks each sends (n - 1) / n of it, as in a
ring. bf16 is emulated.
"""

import argparse
import functools
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributed import distributed_c10d

WHOLE = {
    "all_reduce": ("tensor", 2),
    "reduce": ("tensor", 1),
    "broadcast": ("tensor", 1),
    "all_gather": ("tensor_list", 1),
    "all_gather_into_tensor": ("output_tensor", 1),
    "reduce_scatter": ("input_list", 1),
    "reduce_scatter_tensor": ("input", 1),
    "all_to_all": ("input_tensor_list", 1),
    "all_to_all_single": ("input", 1),
}
"""Operation -> its argument that is whole, and how often a ring sends it."""
STEPS = 3
BUDGET = 512


class Case(NamedTuple):
    """What is run: on so many ranks, how many micro-batches each, ..."""

    ranks: int
    size: str
    stage: int
    precision: str
    each: int


CASES = [
    *(Case(2, "demo", stage, "fp32", 1) for stage in range(4)),
    *(Case(ranks, "small", stage, "fp32", 1) for ranks in (2, 4) for stage in range(4)),
    *(Case(2, "small", stage, "fp32", 2) for stage in range(4)),
    *(Case(2, "demo", stage, "bf16", 1) for stage in range(1, 4)),
]


class Counting:
    """Counts operations and their whole bytes, of the step that is taken.

    Attributes:
        calls, sent: (owner, operation) -> how many, and bytes; the owner is `memo` or `deepspeed`.
    """

    def __init__(self) -> None:
        self.clear()
        self._owner = "deepspeed"
        self._inside = False

    def clear(self) -> None:
        """Begin anew."""
        self.calls: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[tuple[str, str]] = Counter()

    def wrap(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        """The operation, which is counted; what it calls itself is not."""
        whole, factor = WHOLE[name]
        signature = inspect.signature(operation)

        @functools.wraps(operation)
        def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if self._inside:
                return operation(*args, **kwargs)
            found = signature.bind(*args, **kwargs).arguments[whole]
            tensors: list[Tensor] = [found] if isinstance(found, Tensor) else found
            self.calls[self._owner, name] += 1
            self.sent[self._owner, name] += factor * sum(one.nbytes for one in tensors)
            self._inside = True
            try:
                return operation(*args, **kwargs)
            finally:
                self._inside = False

        return counted

    def agreed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of `Ranks`, what it sends is the ranks' agreement."""

        @functools.wraps(method)
        def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self._owner = "memo"
            try:
                return method(*args, **kwargs)
            finally:
                self._owner = "deepspeed"

        return counted

    @contextmanager
    def everywhere(self) -> Iterator[None]:
        """Count all that is called; begin before the processes join."""
        for name in WHOLE:
            counted = self.wrap(name, getattr(dist, name))
            for module in (dist, distributed_c10d):
                setattr(module, name, counted)
        from memo.training.distributed import Ranks  # noqa: PLC0415

        with (
            patch.object(Ranks, "sum", self.agreed(Ranks.sum)),
            patch.object(Ranks, "max", self.agreed(Ranks.max)),
            patch.object(Ranks, "gather", self.agreed(Ranks.gather)),
            patch("memo.training.engine.supports_bf16", lambda: True),
        ):
            yield


def rank_main(folder: Path, cases: list[Case]) -> None:
    """As one rank, run the cases; the first writes what was counted."""
    counting = Counting()
    with counting.everywhere():
        from memo.training.distributed import join  # noqa: PLC0415

        ranks = join(threads=1)
        found = [measure(case, folder, ranks, counting) for case in cases]
    if ranks.first:
        (folder / "found.json").write_text(json.dumps(found))


def measure(case: Case, folder: Path, ranks: Any, counting: Counting) -> dict[str, Any]:  # noqa: ANN401
    """Three steps as the training loop takes them; what the third has sent."""
    from data_pipeline.stream import TrainStream  # noqa: PLC0415
    from memo.config import PretrainConfig  # noqa: PLC0415
    from memo.settings import load_config  # noqa: PLC0415
    from memo.training import setup  # noqa: PLC0415
    from memo.training.admission import refuse_other_data  # noqa: PLC0415
    from memo.training.engine import Engine  # noqa: PLC0415

    settings = [
        f"data.dataset={folder / 'demo'}",
        f"model.size={case.size}",
        f"batch.micro_batches={case.ranks * case.each}",
        f"batch.token_budget={BUDGET}",
        f"distribution.zero_stage={case.stage}",
        f"distribution.precision={case.precision}",
    ]
    config = load_config(PretrainConfig, None, settings)
    data = setup.open_data(config)
    spec = setup.model_spec(config, data)
    model = setup.build_model(config, spec, data)
    parameters = sum(one.numel() for one in model.parameters())
    transform = setup.build_transform(config, model, data.tokenizer)
    maker = setup.batch_makers(config, data, transform, spec, ranks.placement).train
    weights = {name: one.weight for name, one in config.objectives.items()}
    engine = Engine(model, weights, config.optimizer, config.distribution, ranks, config.seed)
    state, size = setup.first_state(config, data), setup.step_size(config)
    with TrainStream(maker, state, size, prefetch=1) as stream:
        for number in range(STEPS):
            step = next(stream)
            counting.clear()
            refuse_other_data(ranks, step.digest)
            engine.step(step.micro_batches, number, config.optimizer.lr)
            ranks.max(0)  # the signal to stop
    engine.close()
    return row(case, parameters, counting)


def row(case: Case, parameters: int, counting: Counting) -> dict[str, Any]:
    """What is shown of a case."""
    psi = parameters * (2 if case.precision == "bf16" else 4)
    names = sorted({name for owner, name in counting.calls if owner == "deepspeed"})
    return {
        **case._asdict(),
        "parameters": parameters,
        "volume, Psi": sum(counting.sent["deepspeed", name] for name in names) / psi,
        "of it": {name: counting.sent["deepspeed", name] / psi for name in names},
        "calls": sum(counting.calls["deepspeed", name] for name in names),
        "agreements": sum(n for (owner, _), n in counting.calls.items() if owner == "memo"),
        "their bytes, sent": sum(n for (owner, _), n in counting.sent.items() if owner == "memo"),
    }


def run_ranks(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """Start so many processes and wait for what the first has counted."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    command = [sys.executable, "-m", "benchmarks.collectives", "--rank-in", str(folder)]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | common | {"RANK": str(one), "LOCAL_RANK": "0"},
            stdout=subprocess.DEVNULL,  # DeepSpeed's bf16 optimizer prints
        )
        for one in range(ranks)
    ]
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise SystemExit(f"a rank of {ranks} has failed")
    found: list[dict[str, Any]] = json.loads((folder / "found.json").read_text())
    return found


def main() -> None:
    """Run all cases and print a table and the result; or be one rank."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank-in", type=Path, help=argparse.SUPPRESS)
    folder = parser.parse_args().rank_in
    if folder is not None:
        ranks = int(os.environ["WORLD_SIZE"])
        rank_main(folder, [case for case in CASES if case.ranks == ranks])
        return
    rows = []
    with tempfile.TemporaryDirectory() as work:
        write_corpus(Path(work) / "demo")
        for ranks in sorted({case.ranks for case in CASES}):
            rows += run_ranks(Path(work), ranks)
    table = Table(*rows[0])
    for one in rows:
        table.add_row(*(shown(value) for value in one.values()))
    Console(width=180).print(table)
    print("RESULT", json.dumps({"collectives": rows}))


def shown(value: object) -> str:
    """A cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {one:.3f}" for name, one in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def write_corpus(folder: Path) -> None:
    """A few demo clips and a tokenizer."""
    from data_pipeline.corpora.demo import write_demo  # noqa: PLC0415
    from data_pipeline.shards.reader import open_dataset  # noqa: PLC0415
    from memo.tokenizer import train_sentencepiece  # noqa: PLC0415

    write_demo(folder, train=200, valid=1)
    train_sentencepiece(open_dataset(folder).split("train").texts(), folder / "tokenizer", 200)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
