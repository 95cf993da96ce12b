"""`--dry-run`: what a run would be, without taking a step or writing anything."""

from collections.abc import Iterator

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from torch import nn

from data_pipeline.mixture import Mixture
from data_pipeline.plan import divide
from data_pipeline.shards.reader import Split
from data_pipeline.stream import BatchMaker, Placement, TrainStream
from memo.config import PretrainConfig
from memo.model.flops import training_flops
from memo.training.loop import head_widths
from memo.training.setup import (
    batch_makers,
    build_model,
    build_transform,
    first_state,
    model_spec,
    open_data,
    step_size,
)

PLANNED = 20
"""Global batches that are planned."""

GIB = 2**30


def dry_run(config: PretrainConfig) -> int:
    """Print the resolved settings, sizes, memory and the first planned batches; the exit status.

    Raises:
        UserError: whatever would stop the run at its start.
    """
    console = Console()
    console.print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), markup=False)
    data = open_data(config)
    spec = model_spec(config, data)
    model = build_model(config, spec, data)
    transform = build_transform(config, model, data.tokenizer)
    maker = batch_makers(config, data, transform, spec, Placement()).train
    state = first_state(config, data)
    with TrainStream(maker, state, step_size(config)) as stream:
        step = next(stream)
    batches, size = step.micro_batches, len(step.samples)
    valid = sum(len(split) for split in data.valid.values())
    tokens = sum(batch.tokens for batch in batches)
    widths = head_widths(transform.specs, spec)
    flops = sum(training_flops(spec, batch, widths) for batch in batches)
    parameters = _count(model)
    lines = [
        ("parameters", f"{parameters:,}"),
        ("training FLOPs per token", f"{flops / tokens:.3g}"),
        ("samples", f"{len(data.train):,} to train, {valid:,} to validate"),
        ("samples per step", f"{size:,}"),
        ("steps per epoch", f"{len(data.train) / size:.1f}"),
        ("epochs", f"{config.steps * size / len(data.train):.1f}"),
        *_shares(data.train),
        *([] if config.batch.micro_batches else _plan(config, maker)),
    ]
    for label, value in lines:
        console.print(f"{label:<32}{value}", highlight=False)
    console.print(_memory(parameters))
    return 0


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _shares(train: Split | Mixture) -> Iterator[tuple[str, str]]:
    """What each dataset of a mixture has of the samples."""
    if isinstance(train, Mixture):
        for name, share in zip(train.names, train.shares, strict=True):
            yield f"share of {name}", f"{share:.1%}"


def _plan(config: PretrainConfig, maker: BatchMaker) -> Iterator[tuple[str, str]]:
    """How the first global batches would be cut on 1 to 8 ranks."""
    order = maker.split.order(config.seed)
    size = config.batch.global_batch
    positions = np.arange(PLANNED * size).reshape(PLANNED, size)
    lengths = [maker.lengths.of(order.visits(one).samples) for one in positions]
    for ranks in (1, 2, 8):
        plans = [divide(one, ranks, config.batch.token_budget) for one in lengths]
        each = np.mean([len(plan[0]) for plan in plans])
        total = sum(int(one.sum()) for one in lengths)
        cells = sum(len(plan[0]) for plan in plans) * ranks * config.batch.token_budget
        yield f"micro-batches on {ranks} ranks", f"{each:.1f} a step, {total / cells:.0%} full"


def _memory(parameters: int) -> Table:
    """Weights, gradients and AdamW's moments for each ZeRO stage, without activations."""
    table = Table("ZeRO", "1 rank", "2 ranks", "8 ranks", "64 ranks", title="GiB a rank, float32")
    for stage in range(4):
        cells = [f"{_bytes(parameters, stage, ranks) / GIB:.2f}" for ranks in (1, 2, 8, 64)]
        table.add_row(str(stage), *cells)
    return table


def _bytes(parameters: int, stage: int, ranks: int) -> float:
    """Bytes of a rank (Rajbhandari et al., SC 2020): what a stage partitions is divided by ranks.

    The moments take 8 bytes a parameter; from stage 1 on DeepSpeed keeps a master copy beside them.
    """
    weights = 4 / (ranks if stage == 3 else 1)
    gradients = 4 / (ranks if stage >= 2 else 1)
    optimizer = (12 if stage else 8) / (ranks if stage else 1)
    return parameters * (weights + gradients + optimizer)
