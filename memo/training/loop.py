"""The training loop: from where a run stands to its last step, or to a request to stop."""

import math
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
from memo.training.checkpoint import Progress, open_checkpoint
from memo.training.distributed import Ranks
from memo.training.engine import Engine, ObjectiveResult, StepResult
from memo.training.heartbeat import watched
from memo.training.monitor import (
    ROLL_BACKS,
    Monitor,
    Pace,
    Supply,
    Taken,
    lacks_validation,
    objective_columns,
    step_columns,
)
from memo.training.optimizer import learning_rate
from memo.training.progress import Display
from memo.training.saving import (
    Saver,
    folder_of,
    go_back_to,
    is_own,
    steps_so_far,
    write_checkpoint,
)
from memo.training.setup import Makers, step_size
from memo.training.signals import StopSignals
from memo.training.spikes import LossRecord, step_before

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
        begins_at: checkpoint that it goes on from; None if it is new.
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
    begins_at: Path | None
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
        AgreedError: too many non-finite steps in a row, too many bad samples, a loss that rises
            again and again, or a last checkpoint that cannot be written.
    """
    with (
        StopSignals() as signals,
        Saver(display.say) as saver,
        watched(run.ranks, run.config.distribution.hang_s) as ranks,
    ):
        run = replace(run, ranks=ranks)
        return _Training(run, monitor, display, signals, saver).until_it_ends()


class _Training:
    """A run with what goes on around its steps.

    Args:
        run: moved on by every step.
        monitor, display: see `train`.
        signals: that ask to stop.
        saver: writes the checkpoints.
    """

    def __init__(
        self,
        run: Run,
        monitor: Monitor | None,
        display: Display,
        signals: StopSignals,
        saver: Saver,
    ) -> None:
        self.run = run
        self._monitor, self._display = monitor, display
        self._signals, self._saver = signals, saver
        self._supply, self._pace = Supply(run.makers.train), Pace(run.peak_flops)

    def until_it_ends(self) -> int | None:
        """Steps and roll-backs until the last step, or until a signal; see `train`."""
        if owes_validation(self.run) and (interrupted := self._validate()):
            return self._leave(interrupted)
        while True:
            back_to = None
            with _stream(self.run) as stream:
                for step in self._steps(stream):
                    self._take(step, stream.wait_s)
                    back_to = self._step_to_go_back_to()
                    if back_to is not None:
                        break
                    stopped_by = self._close()
                    if stopped_by is not None:
                        return stopped_by or None
            if back_to is None:
                return None
            self._go_back(back_to)

    def _steps(self, stream: TrainStream) -> Iterator[Step]:
        """The data of every step that is left."""
        for number in range(self.run.progress.step + 1, self.run.config.steps + 1):
            self.run.ranks.does(f"waiting for the data of step {number}")
            step = next(stream)
            self.run.ranks.does(f"step {number}")
            yield step

    def _take(self, step: Step, waited_s: float) -> None:
        """One step, with what it says of itself."""
        begin = perf_counter()
        run, config, number = self.run, self.run.config, self.run.progress.step
        refuse_other_data(run.ranks, step.digest)
        lr = learning_rate(number, config.optimizer, config.steps)
        result = run.engine.step(step.micro_batches, number, lr)
        self.run = replace(run, progress=_advance(run.progress, step, result, config))
        seconds, done = perf_counter() - begin + waited_s, number + 1
        did = len(step.samples), result.tokens, _flops(run, step)
        self._pace.count(Taken(seconds, waited_s, *did))
        self._display.step(done)
        if not result.applied:
            _report_bad_step(self.run, step, self._display, self._monitor)
        if done % config.log_every == 0 or done == config.steps:
            row = _columns(self.run, result, lr) | self._pace.columns() | self._supply.columns()
            self._display.log(row)
            if self._monitor is not None:
                self._monitor.write(row)

    def _close(self) -> int | None:
        """What follows a step.

        Returns:
            The signal that ends the run; 0 if it ends because this was the last step; else None.
        """
        config, done = self.run.config, self.run.progress.step
        interrupted = _is_validated(config, done) and self._validate()
        self.run.ranks.does(f"what follows step {done}")
        stopped_by = interrupted or _agree_to_stop(self.run, self._signals)
        ends = stopped_by or done == config.steps
        if ends or done % config.checkpoint_every == 0:
            if self._monitor is not None:
                self._monitor.sync()
            _save(self.run, self._saver)
        if not ends:
            return None
        with self.run.ranks.together():
            self._saver.finish()
        if done == config.steps and not interrupted:
            return 0
        return self._leave(stopped_by)

    def _leave(self, stopped_by: int) -> int:
        step = self.run.progress.step
        self._display.say(f"asked to stop: step {step} is saved; the same command goes on")
        return stopped_by

    def _validate(self) -> int:
        """Loss and metric of each objective on the validation splits, over all ranks.

        Of a mixture also those of each dataset that has such a split.

        Returns:
            The signal that came before all was done, so that nothing is logged; else 0.
        """
        run = self.run
        try:
            tables = {
                name: _validation_sums(run, maker, self._signals)
                for name, maker in run.makers.valid.items()
            }
        except _InterruptedError as interrupted:
            (stopped_by,) = interrupted.args
            return int(stopped_by)
        columns = _validation_columns(run, torch.stack(list(tables.values())).sum(dim=0))
        if isinstance(run.makers.train.split, Mixture):
            for name, table in tables.items():
                of_dataset = _validation_columns(run, table)
                columns |= {f"{name}/{key}": value for key, value in of_dataset.items()}
        row: dict[str, float] = {"step": run.progress.step}
        row |= {f"valid/{key}": value for key, value in columns.items()}
        self._display.validation(row)
        if self._monitor is not None:
            self._monitor.write(row)
        return 0

    def _step_to_go_back_to(self) -> int | None:
        """The step of a checkpoint from before the loss rose; None as long as it has not risen.

        Raises:
            AgreedError: the run has gone back too often already.
        """
        settings, progress = self.run.config.roll_back, self.run.progress
        if settings is None or not progress.losses.is_spike(settings):
            return None
        if progress.roll_backs >= settings.most:
            raise AgreedError(
                f"the loss has risen again at step {progress.step}, after {settings.most} "
                "roll-backs; lower optimizer.lr, or look at the data around that step"
            )
        self.run.ranks.does(f"the roll-back after step {progress.step}")
        found = None
        if self.run.ranks.first:
            self._saver.wait()
            saved = steps_so_far(self.run.folder / "checkpoints")
            found = step_before(saved, progress.step, progress.losses.high)
        found = self.run.ranks.gather(found)[0]
        if found is None:
            self._display.say(
                f"step {progress.step}: the loss has risen, and there is no checkpoint from before"
            )
            calm = replace(
                progress, losses=LossRecord()
            )  # the new level is the course from here on
            self.run = replace(self.run, progress=calm)
        return found

    def _go_back(self, step: int) -> None:
        """Take up a checkpoint, and go on with the data that come next."""
        run, now = self.run, self.run.progress
        with run.ranks.together():
            root = run.folder / "checkpoints"
            checkpoint = open_checkpoint(folder_of(root, step))
            state = checkpoint.state()
            if run.ranks.first:
                go_back_to(root, step)
        run.engine.go_back(state)
        number = now.roll_backs + 1
        then = replace(checkpoint.progress, stream=now.stream, roll_backs=number)
        self.run = replace(run, progress=then)
        self._display.say(
            f"step {now.step}: the loss has risen; back to step {step} (roll-back {number}), "
            "without the data since"
        )
        self._display.step(step)
        if self._monitor is not None:
            self._monitor.go_back(step, {"step": step, ROLL_BACKS: number, "from_step": now.step})


def owes_validation(run: Run) -> bool:
    """Whether a signal came in the validation of the step that the run goes on from.

    That of another run owes nothing. All ranks call it together.
    """
    step, root = run.progress.step, run.folder / "checkpoints"
    if not step or run.begins_at is None or not _is_validated(run.config, step):
        return False
    first = run.ranks.first and is_own(root, run.begins_at)
    return bool(run.ranks.max(int(first and lacks_validation(run.folder, step))))


def _is_validated(config: PretrainConfig, step: int) -> bool:
    """Whether a validation follows this step."""
    return step % config.valid_every == 0 or step == config.steps


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


def _advance(
    progress: Progress, step: Step, result: StepResult, config: PretrainConfig
) -> Progress:
    losses = progress.losses
    if config.roll_back is not None:
        losses = losses.after(result.loss if result.applied else math.nan, config.roll_back)
    return Progress(
        step=progress.step + 1,
        tokens=progress.tokens + result.tokens,
        stream=step.state_after,
        losses=losses,
        roll_backs=progress.roll_backs,
        bad_steps=0 if result.applied else progress.bad_steps + 1,
    )


def _save(run: Run, saver: Saver) -> None:
    """Begin to write a checkpoint of where the run stands; all ranks call it together."""
    state = run.engine.collect()
    if state is not None:
        root = run.folder / "checkpoints"
        about = (run.progress, run.config, run.spec, run.features, run.tokenizer)
        saver.begin(partial(write_checkpoint, root, state, *about))


def _report_bad_step(run: Run, step: Step, display: Display, monitor: Monitor | None) -> None:
    """Say and log which samples made a step non-finite; stop the run after too many.

    Raises:
        AgreedError: `max_bad_steps` in a row.
    """
    in_a_row = run.progress.bad_steps
    here = [key for batch in step.micro_batches for key in batch.keys]
    keys = [key for keys in run.ranks.gather(here) for key in keys]
    named = ", ".join(keys)
    display.say(f"step {run.progress.step} skipped: a loss or gradient is not finite; {named}")
    if monitor is not None:
        monitor.skip(run.progress.step, in_a_row, keys)
    if in_a_row >= run.config.max_bad_steps:
        raise AgreedError(
            f"{in_a_row} non-finite steps in a row up to step {run.progress.step}; lower "
            "optimizer.lr, or look at the samples named above"
        )


def _flops(run: Run, step: Step) -> float:
    """Of this rank's micro-batches."""
    widths = head_widths(run.transform.specs, run.spec)
    return sum(training_flops(run.spec, batch, widths) for batch in step.micro_batches)


def _columns(run: Run, result: StepResult, lr: float) -> dict[str, float]:
    """Of a row of the log, what its step tells."""
    split, seed = run.makers.train.split, run.config.seed
    samples = run.progress.stream.position(len(split))
    return {
        "step": run.progress.step,
        "epoch": samples / len(split),
        "samples": samples,
        "tokens": run.progress.tokens,
        "lr": lr,
        **step_columns(result),
        **(split.progress(seed, samples) if isinstance(split, Mixture) else {}),
    }


def head_widths(targets: Mapping[str, TargetSpec], spec: ModelSpec) -> dict[str, int]:
    """Objective name -> outputs of its head's last layer: a row's columns, or the vocabulary."""
    return {name: one.shape[0] if one.shape else spec.vocab_size for name, one in targets.items()}


class _InterruptedError(Exception):
    """A validation is given up, for a signal of this number asks the run to stop."""


def _validation_sums(run: Run, maker: BatchMaker, signals: StopSignals) -> Tensor:
    """Sum of losses, count and sum of metrics of each objective, float32 (objectives, 3).

    Raises:
        _InterruptedError: on all ranks, before the same batch.
    """

    def next_batch() -> None:
        run.ranks.does(f"validation after step {run.progress.step}")
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
