"""The training loop: from where a run stands to its last step, or to a request to stop."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from data_pipeline.errors import AgreedError
from data_pipeline.mixture import Mixture
from data_pipeline.packing import TargetSpec
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.stream import BatchMaker, Step, TrainStream
from memo.config import ModelSpec, PretrainConfig
from memo.evaluation.validate import validate
from memo.model.flops import training_flops
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer
from memo.training.admission import refuse_other_data
from memo.training.checkpoint import Progress
from memo.training.distributed import Ranks
from memo.training.engine import Engine, ObjectiveResult, StepResult
from memo.training.heartbeat import Heartbeat
from memo.training.monitor import Monitor, Supply, lacks_validation, objective_columns, step_columns
from memo.training.optimizer import learning_rate
from memo.training.progress import Display
from memo.training.saving import Saver, write_checkpoint
from memo.training.setup import Makers, step_size
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
        makers: make this rank's micro-batches.
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
    makers: Makers
    progress: Progress
    peak_flops: float


def train(run: Run, monitor: Monitor | None, display: Display) -> int | None:
    """Take steps until the last one, or until a signal asks to stop.

    Args:
        run: from where it stands.
        monitor: the log, on the first rank.
        display: what a person sees.

    Returns:
        The signal that ended the run before its last step or validation; else None.

    Raises:
        AgreedError: too many non-finite steps in a row, too many bad samples, or a last checkpoint
            that cannot be written.
    """
    config, bad_steps, supply = run.config, 0, Supply(run.makers.train)
    with (
        _stream(run) as stream,
        StopSignals() as signals,
        Saver(display.say) as saver,
        Heartbeat(run.ranks.rank, run.ranks.count, config.distribution.hang_s) as heart,
        heart.explained(),
    ):
        if owes_validation(run) and (
            stopped_by := _validate(run, monitor, display, heart, signals)
        ):
            return _leave(run, stopped_by, display)
        for done, step, waited_s in _steps(run, stream, heart):
            begin = perf_counter()
            refuse_other_data(run.ranks, step)
            lr = learning_rate(done - 1, config.optimizer, config.steps)
            result = run.engine.step(step.micro_batches, done - 1, lr)
            run = replace(run, progress=_advance(run.progress, step, result))
            bad_steps = 0 if result.applied else bad_steps + 1
            seconds = perf_counter() - begin + waited_s
            display.step(done)
            if not result.applied:
                _report_bad_step(run, step, display, bad_steps)
            if done % config.log_every == 0 or done == config.steps:
                row = _columns(run, step, result, lr, seconds, waited_s) | supply.columns()
                display.log(row)
                if monitor is not None:
                    monitor.write(row)
            interrupted = _is_validated(config, done) and _validate(
                run, monitor, display, heart, signals
            )
            heart.does(f"what follows step {done}")
            stopped_by = interrupted or _agree_to_stop(run, signals)
            ends = stopped_by or done == config.steps
            if ends or done % config.checkpoint_every == 0:
                _save(run, saver)
            if ends:
                with run.ranks.together():
                    saver.finish()
            if interrupted or (stopped_by and done < config.steps):
                return _leave(run, stopped_by, display)
    return None


def owes_validation(run: Run) -> bool:
    """Whether a signal came in the validation of the step that the run goes on from.

    All ranks call it together.
    """
    step = run.progress.step
    if not step or not _is_validated(run.config, step):
        return False
    return bool(run.ranks.max(int(run.ranks.first and lacks_validation(run.folder, step))))


def _is_validated(config: PretrainConfig, step: int) -> bool:
    """Whether a validation follows this step."""
    return step % config.valid_every == 0 or step == config.steps


def _leave(run: Run, stopped_by: int, display: Display) -> int:
    display.say(f"asked to stop: step {run.progress.step} is saved; the same command goes on")
    return stopped_by


def _agree_to_stop(run: Run, signals: StopSignals) -> int:
    """The signal that some rank has received; 0 if none has.

    Raises:
        AgreedError: there are too many bad samples on some rank.
    """
    quarantine = run.makers.train.quarantine
    full = quarantine.excess is not None
    stopped_by = run.ranks.max(FULL if full else signals.received or 0)
    if stopped_by == FULL:
        with run.ranks.together():
            quarantine.check()
    return stopped_by


def _stream(run: Run) -> TrainStream:
    return TrainStream(run.makers.train, run.progress.stream, step_size(run.config))


def _steps(run: Run, stream: TrainStream, heart: Heartbeat) -> Iterator[tuple[int, Step, float]]:
    """Number from 1, data, and seconds waited for it, of every step that is left."""
    for number in range(run.progress.step + 1, run.config.steps + 1):
        heart.does(f"waiting for the data of step {number}")
        step = next(stream)
        heart.does(f"step {number}")
        yield number, step, stream.wait_s


def _advance(progress: Progress, step: Step, result: StepResult) -> Progress:
    return Progress(progress.step + 1, progress.tokens + result.tokens, step.state_after)


def _save(run: Run, saver: Saver) -> None:
    """Begin to write a checkpoint of where the run stands; all ranks call it together."""
    state = run.engine.collect()
    if state is not None:
        root = run.folder / "checkpoints"
        about = (run.progress, run.config, run.spec, run.features, run.tokenizer)
        saver.begin(partial(write_checkpoint, root, state, *about))


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


def _columns(
    run: Run, step: Step, result: StepResult, lr: float, seconds: float, waited_s: float
) -> dict[str, float]:
    """Of a row of the log, what a step tells."""
    widths = head_widths(run.transform.specs, run.spec)
    flops = sum(training_flops(run.spec, batch, widths) for batch in step.micro_batches)
    split, seed = run.makers.train.split, run.config.seed
    samples = run.progress.stream.position(len(split))
    return {
        "step": run.progress.step,
        "epoch": samples / len(split),
        "samples": samples,
        "tokens": run.progress.tokens,
        "lr": lr,
        **step_columns(result),
        "samples_per_s": len(step.samples) / seconds,
        "tokens_per_s": result.tokens / seconds,
        "mfu": flops / seconds / run.peak_flops,
        "data_wait": waited_s / seconds,
        "step_s": seconds,
        **(split.progress(seed, samples) if isinstance(split, Mixture) else {}),
    }


def head_widths(targets: Mapping[str, TargetSpec], spec: ModelSpec) -> dict[str, int]:
    """Objective name -> outputs of its head's last layer: a row's columns, or the vocabulary."""
    return {name: one.shape[0] if one.shape else spec.vocab_size for name, one in targets.items()}


class _InterruptedError(Exception):
    """A validation is given up, for a signal of this number asks the run to stop."""


def _validate(
    run: Run, monitor: Monitor | None, display: Display, heart: Heartbeat, signals: StopSignals
) -> int:
    """Loss and metric of each objective on the validation splits, over all ranks.

    Of a mixture also those of each dataset.

    Returns:
        The signal that came before all was done, so that nothing is logged; else 0.
    """
    try:
        tables = {
            name: _validation_sums(run, maker, heart, signals)
            for name, maker in run.makers.valid.items()
        }
    except _InterruptedError as interrupted:
        (stopped_by,) = interrupted.args
        return int(stopped_by)
    whole = torch.stack(list(tables.values())).sum(dim=0)
    columns = _validation_columns(run, whole)
    if len(tables) > 1:
        for name, table in tables.items():
            of_dataset = _validation_columns(run, table)
            columns |= {f"{name}/{key}": value for key, value in of_dataset.items()}
    row = {f"valid/{key}": value for key, value in columns.items()}
    display.validation({"step": run.progress.step, **row})
    if monitor is not None:
        monitor.write({"step": run.progress.step, **row})
    return 0


def _validation_sums(run: Run, maker: BatchMaker, heart: Heartbeat, signals: StopSignals) -> Tensor:
    """Sum of losses, count and sum of metrics of each objective, float32 (objectives, 3).

    Raises:
        _InterruptedError: on all ranks, before the same batch.
    """

    def next_batch() -> None:
        heart.does(f"validation after step {run.progress.step}")
        if stopped_by := run.ranks.max(signals.received or 0):
            raise _InterruptedError(stopped_by)

    engine, device = run.engine.deepspeed, run.ranks.device
    sums = validate(engine, run.transform, maker, device, next_batch=next_batch)
    return run.ranks.sum(
        torch.stack([torch.stack(list(sums[name])) for name in run.config.objectives])
    )


def _validation_columns(run: Run, table: Tensor) -> dict[str, float]:
    """`loss`, `loss/<name>` and `metric/<name>` of sums as `_validation_sums` gives them."""
    weights = {name: one.weight for name, one in run.config.objectives.items()}
    objectives = {
        name: ObjectiveResult(loss / max(count, 1), metric / max(count, 1), int(count))
        for name, (loss, count, metric) in zip(weights, table.tolist(), strict=True)
    }
    loss = sum(weights[name] * one.loss for name, one in objectives.items())
    return {"loss": loss, **objective_columns(objectives)}
