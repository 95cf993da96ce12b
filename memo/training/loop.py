"""The training loop: from where a run stands to its last step, or to a request to stop."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch

from data_pipeline.errors import AgreedError
from data_pipeline.packing import TargetSpec
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.stream import BatchMaker, Step, TrainStream
from memo.config import ModelSpec, PretrainConfig
from memo.evaluation.validate import validate
from memo.model.flops import training_flops
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer
from memo.training.checkpoint import Progress, write_checkpoint
from memo.training.distributed import Ranks
from memo.training.engine import Engine, ObjectiveResult, StepResult
from memo.training.monitor import Monitor, objective_columns, step_columns
from memo.training.optimizer import learning_rate
from memo.training.progress import Display
from memo.training.signals import StopSignals

FULL = 1000
"""Stands for "too many bad samples" where the ranks agree on a signal's number."""


@dataclass(frozen=True)
class Run:
    """All that the loop needs.

    Attributes:
        config: the settings.
        folder: of the run.
        ranks: this process among the others.
        spec: the model's sizes.
        features: what the dataset's rows are.
        model: the model inside the engine.
        engine: takes the steps.
        tokenizer: stored in checkpoints.
        transform: makes examples.
        train, valid: make this rank's micro-batches.
        progress: where the run stands.
        peak_flops: what this rank's device can do in a second.
    """

    config: PretrainConfig
    folder: Path
    ranks: Ranks
    spec: ModelSpec
    features: FeatureSchema
    model: PretrainingModel
    engine: Engine
    tokenizer: Tokenizer
    transform: PretrainTransform
    train: BatchMaker
    valid: BatchMaker
    progress: Progress
    peak_flops: float


def train(run: Run, monitor: Monitor | None, display: Display) -> int | None:
    """Take steps until the last one, or until a signal asks to stop.

    Args:
        run: from where it stands.
        monitor: the log, on the first rank.
        display: what a person sees.

    Returns:
        The signal that ended the run before its last step; else None.

    Raises:
        AgreedError: too many non-finite steps in a row, or too many bad samples.
    """
    config, bad_steps = run.config, 0
    with _stream(run) as stream, StopSignals() as signals:
        for done, step, waited_s in _steps(run, stream):
            begin = perf_counter()
            lr = learning_rate(done - 1, config.optimizer, config.steps)
            result = run.engine.step(step.micro_batches, done - 1, lr)
            run = replace(run, progress=_advance(run.progress, step, result))
            bad_steps = 0 if result.applied else bad_steps + 1
            seconds = perf_counter() - begin + waited_s
            display.step(done)
            if not result.applied:
                _report_bad_step(run, step, display, bad_steps)
            if done % config.log_every == 0 or done == config.steps:
                _log(run, step, result, lr, seconds, waited_s, monitor, display)
            if done % config.valid_every == 0 or done == config.steps:
                _validate(run, monitor, display)
            stopped_by = _agree_to_stop(run, signals)
            if stopped_by or done % config.checkpoint_every == 0 or done == config.steps:
                save(run)
            if stopped_by and done < config.steps:
                display.say(f"asked to stop: step {done} is saved; the same command goes on")
                return stopped_by
    return None


def _agree_to_stop(run: Run, signals: StopSignals) -> int:
    """The signal that some rank has received; 0 if none has.

    Raises:
        AgreedError: there are too many bad samples on some rank.
    """
    full = any(maker.quarantine.excess for maker in (run.train, run.valid))
    stopped_by = run.ranks.max(FULL if full else signals.received or 0)
    if stopped_by == FULL:
        with run.ranks.together():
            run.train.quarantine.check()
            run.valid.quarantine.check()
    return stopped_by


def _stream(run: Run) -> TrainStream:
    return TrainStream(run.train, run.progress.stream, run.config.batch.global_batch)


def _steps(run: Run, stream: TrainStream) -> Iterator[tuple[int, Step, float]]:
    """Number from 1, data, and seconds waited for it, of every step that is left."""
    for number in range(run.progress.step + 1, run.config.steps + 1):
        yield number, next(stream), stream.wait_s


def _advance(progress: Progress, step: Step, result: StepResult) -> Progress:
    return Progress(progress.step + 1, progress.tokens + result.tokens, step.state_after)


def save(run: Run) -> None:
    """Write a checkpoint of where the run stands; all ranks call it together."""
    state = run.engine.collect()
    with run.ranks.together():
        if state is not None:
            root = run.folder / "checkpoints"
            write_checkpoint(
                root, state, run.progress, run.config, run.spec, run.features, run.tokenizer
            )


def _report_bad_step(run: Run, step: Step, display: Display, in_a_row: int) -> None:
    """Say which samples made a step non-finite; stop the run after too many.

    Raises:
        AgreedError: `max_bad_steps` in a row.
    """
    here = [key for batch in step.micro_batches for key in batch.keys]
    keys = ", ".join(key for keys in run.ranks.gather(here) for key in keys)
    display.say(f"step {run.progress.step} skipped: a loss or gradient is not finite; {keys}")
    if in_a_row >= run.config.max_bad_steps:
        raise AgreedError(
            f"{in_a_row} non-finite steps in a row up to step {run.progress.step}; lower "
            "optimizer.lr, or look at the samples named above"
        )


def _log(
    run: Run,
    step: Step,
    result: StepResult,
    lr: float,
    seconds: float,
    waited_s: float,
    monitor: Monitor | None,
    display: Display,
) -> None:
    """One row of the log."""
    widths = head_widths(run.transform.specs, run.spec)
    flops = sum(training_flops(run.spec, batch, widths) for batch in step.micro_batches)
    total = len(run.train.split)
    row = {
        "step": run.progress.step,
        "epoch": run.progress.stream.position(total) / total,
        "samples": run.progress.stream.position(total),
        "tokens": run.progress.tokens,
        "lr": lr,
        **step_columns(result),
        "tokens_per_s": result.tokens / seconds,
        "mfu": flops / seconds / run.peak_flops,
        "data_wait": waited_s / seconds,
        "step_s": seconds,
    }
    display.log(row)
    if monitor is not None:
        monitor.write(row)


def head_widths(targets: Mapping[str, TargetSpec], spec: ModelSpec) -> dict[str, int]:
    """Objective name -> outputs of its head's last layer: a row's columns, or the vocabulary."""
    return {name: one.shape[0] if one.shape else spec.vocab_size for name, one in targets.items()}


def _validate(run: Run, monitor: Monitor | None, display: Display) -> None:
    """Loss and metric of each objective on the validation split, over all ranks."""
    sums = validate(run.engine.deepspeed, run.transform, run.valid, run.ranks.device)
    table = torch.stack([torch.stack(list(one)) for one in sums.values()])  # (objectives, 3)
    objectives = {
        name: ObjectiveResult(loss / max(count, 1), metric / max(count, 1), int(count))
        for name, (loss, count, metric) in zip(sums, run.ranks.sum(table).tolist(), strict=True)
    }
    weights = {name: one.weight for name, one in run.config.objectives.items()}
    loss = sum(weights[name] * one.loss for name, one in objectives.items())
    columns = {"loss": loss, **objective_columns(objectives)}
    row = {f"valid/{key}": value for key, value in columns.items()}
    display.validation({"step": run.progress.step, **row})
    if monitor is not None:
        monitor.write({"step": run.progress.step, **row})
