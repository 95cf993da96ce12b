"""`--dry-run`: what a run would be, without taking a step or writing anything."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table

from data_pipeline.mixture import Mixture
from data_pipeline.plan import divide
from data_pipeline.quarantine import Notes
from data_pipeline.shards.reader import Split
from data_pipeline.stream import BatchMaker, Placement, TrainStream
from memo.config import AUTO, ModelSpec, PretrainConfig
from memo.model.flops import training_flops
from memo.objectives.transform import PretrainTransform
from memo.training.engine import check_stage
from memo.training.footprint import SPARE, Footprint, kept_bytes, most_useful, passing_bytes
from memo.training.loop import head_widths
from memo.training.memory import GIB
from memo.training.optimizer import warm_up_note
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

GPUS = (24, 40, 80, 141)
"""Sizes in GB, of which the last is an H200's."""


def dry_run(config: PretrainConfig) -> int:
    """Print the resolved settings, sizes, memory and the first planned batches; the exit status.

    Raises:
        UserError: whatever would stop the run at its start.
    """
    check_stage(config.distribution)
    console = Console()
    console.print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), markup=False)
    if note := warm_up_note(config.optimizer, config.steps):
        console.print(note, highlight=False)
    data = open_data(config)
    spec = model_spec(config, data)
    model = build_model(config, spec, data)
    transform = build_transform(config, model, data.tokenizer)
    budget = config.batch.token_budget
    if budget == AUTO:  # more would never be used
        budget = most_useful(config, ranks=1)
    maker = batch_makers(config, data, transform, spec, Placement()).within(budget).train
    maker = replace(maker, quarantine=Notes())  # which is of a run, and written
    state = first_state(config, data)
    with TrainStream(maker, state, step_size(config)) as stream:
        step = next(stream)
    batches, size = step.micro_batches, len(step.samples)
    valid = sum(len(split) for split in data.valid.values())
    tokens = sum(batch.tokens for batch in batches)
    widths = head_widths(transform.specs, spec)
    flops = sum(training_flops(spec, batch, widths) for batch in batches)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        ("parameters", f"{parameters:,}"),
        ("training FLOPs per token", f"{flops / max(tokens, 1):.3g}"),
        ("samples", f"{len(data.train):,} to train, {valid:,} to validate"),
        ("samples per step", f"{size:,}"),
        ("steps per epoch", f"{len(data.train) / size:.1f}"),
        ("epochs", f"{config.steps * size / len(data.train):.1f}"),
        *_shares(data.train),
        *([] if config.batch.micro_batches else _plan(config, maker)),
    ]
    for label, value in lines:
        console.print(f"{label:<32}{value}", highlight=False)
    plan = _Plan(config, spec, transform)
    console.print(_memory(plan, budget))
    console.print(_budgets(plan, budget))
    return 0


@dataclass(frozen=True)
class _Plan:
    """What the tables of memory are made from.

    Attributes:
        config: the settings.
        spec: the model's sizes.
        transform: makes examples.
        footprints: those that were asked for, by precision and recomputation.
    """

    config: PretrainConfig
    spec: ModelSpec
    transform: PretrainTransform
    footprints: dict[tuple[str, bool], Footprint] = field(default_factory=dict)

    def precision(self, stage: int) -> str:
        """In which a GPU would compute."""
        return self.config.distribution.precision or ("bf16" if stage else "fp32")

    def footprint(self, precision: str, recompute: bool) -> Footprint:
        """Of a pass on a GPU."""
        if (precision, recompute) not in self.footprints:
            about = (self.config, self.spec, self.transform, torch.device("cuda"))
            self.footprints[precision, recompute] = Footprint(*about, precision, recompute)
        return self.footprints[precision, recompute]

    def held(self, stage: int, ranks: int) -> float:
        """Bytes of a rank besides a micro-batch's pass."""
        precision, offload = self.precision(stage), self.config.distribution.offload
        parameters = self.footprint(precision, False).parameters
        kept = kept_bytes(parameters, stage, ranks, precision, offload)
        return kept + passing_bytes(parameters, stage, ranks, precision)


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
        plans = [divide(one, ranks, maker.token_budget) for one in lengths]
        each = np.mean([len(plan[0]) for plan in plans])
        total = sum(int(one.sum()) for one in lengths)
        cells = sum(len(plan[0]) for plan in plans) * ranks * maker.token_budget
        yield f"micro-batches on {ranks} ranks", f"{each:.1f} a step, {total / cells:.0%} full"


def _memory(plan: _Plan, tokens: int) -> Table:
    """A rank's memory for each ZeRO stage, without and with activation checkpointing."""
    title = f"GiB a rank on a GPU, micro-batches of {tokens:,} tokens (recomputing activations)"
    table = Table("ZeRO", "1 rank", "2 ranks", "8 ranks", "64 ranks", title=title)
    for stage in range(4):
        precision = plan.precision(stage)
        passes = [plan.footprint(precision, recompute).of(tokens) for recompute in (False, True)]
        cells = []
        for ranks in (1, 2, 8, 64):
            held = plan.held(stage, ranks)
            plain, recomputed = ((held + one) / GIB for one in passes)
            cells.append(f"{plain:.2f} ({recomputed:.2f})")
        table.add_row(f"{stage}, {precision}", *cells)
    return table


def _budgets(plan: _Plan, tokens: int) -> Table:
    """Tokens of a micro-batch that a GPU of some sizes has room for, on one rank.

    What a pass needs is taken to grow on as it does from these tokens to twice as many.
    """
    stage = plan.config.distribution.zero_stage
    title = f"largest batch.token_budget, zero_stage={stage}, 1 rank"
    table = Table("activations", *(f"{size} GB" for size in GPUS), title=title)
    for name, recompute in (("kept", False), ("recomputed", True)):
        footprint = plan.footprint(plan.precision(stage), recompute)
        need, twice = footprint.of(tokens), footprint.of(2 * tokens)
        each = (twice - need) / tokens
        rooms = [size * 1e9 * (1 - SPARE["cuda"]) - plan.held(stage, 1) for size in GPUS]
        most = [int(tokens + (room - need) / each) for room in rooms]
        longest = plan.config.limits.longest
        table.add_row(name, *(f"{one:,}" if one >= longest else "none" for one in most))
    return table
