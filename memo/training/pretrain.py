"""A pretraining run from its settings to its report: what `launch/pretrain.py` calls."""

import math
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from data_pipeline.errors import UserError
from data_pipeline.stream import check_ranks
from data_pipeline.whole_file import write_atomically
from memo.config import AUTO, PretrainConfig
from memo.evaluation.report import write_report
from memo.model.flops import measure_matmul_peak
from memo.objectives.pretraining_model import PretrainingModel
from memo.training.admission import brief, launch_facts, refuse_different, sole_run
from memo.training.begun import has_begun, note_begun
from memo.training.checkpoint import Progress
from memo.training.distributed import Ranks, join
from memo.training.engine import Engine, choose_precision
from memo.training.heartbeat import watched
from memo.training.loop import Run, owes_validation, train
from memo.training.memory import GIB, free_bytes
from memo.training.monitor import Monitor
from memo.training.optimizer import warm_up_note
from memo.training.progress import Display
from memo.training.rehearsal import rehearse, runs_short, settle_budget, with_budget
from memo.training.saving import is_own, latest_step, point_latest, refuse_unwritable
from memo.training.setup import (
    Data,
    batch_makers,
    build_model,
    build_transform,
    check_resumable,
    checkpoint_to_resume,
    first_state,
    model_spec,
    open_data,
    prepare_demo,
    run_folder,
    step_size,
)
from memo.training.signals import status_after


def pretrain(config: PretrainConfig, resume: str) -> int:
    """Train, log, save, report.

    Args:
        config: the settings.
        resume: see `checkpoint_to_resume`.

    Returns:
        The exit status: 0 when all steps are done; 85 or 130 if a signal ended the run before.

    Raises:
        UserError: something that the user can mend, the same on every rank.
    """
    ranks = join(config.threads, config.distribution.hang_s)
    with ExitStack() as lock:
        # No limit, for all of a large dataset may be compared with its hashes.
        with watched(ranks, math.inf) as heard:
            heard.does("opening the data and the model")
            refuse_different(ranks, launch_facts(config))
            run = set_up(config, resume, ranks, lock)
        return _pretrain(run, resume)


def _pretrain(run: Run, resume: str) -> int:
    """All that is left of a run; the exit status."""
    config, ranks = run.config, run.ranks
    with Display(config.name, config.steps, run.progress.step, ranks.first) as display:
        if run.progress.step >= config.steps and not owes_validation(run):
            display.say(f"{run.folder} has taken all of its {config.steps} steps")
            if ranks.first and _owes_report(run.folder):
                display.say(f"wrote {write_report(run.folder)}")
            return 0
        if note := warm_up_note(config.optimizer, config.steps):
            display.say(note)
        with watched(ranks, config.distribution.hang_s) as heard:
            run = settle_budget(replace(run, ranks=heard))
            display.say(rehearse(run))
        with ranks.together():
            if ranks.first:
                _write_config(run.folder, run.config)
                _begin_at(run)
                note_begun(run.folder, resume, os.environ)
        stopped_by = _train(run, display)
        if stopped_by is None:
            if ranks.first:
                display.say(f"wrote {write_report(run.folder)}")
            return 0
    ranks.end_together()  # every log is closed by now
    return status_after(stopped_by)


def _owes_report(folder: Path) -> bool:
    """Whether a run was killed between its last step and its report; an older one is none."""
    log, page = folder / "metrics.jsonl", folder / "report.html"
    if not log.exists():  # these steps were taken in another folder
        return False
    return not page.exists() or page.stat().st_mtime < log.stat().st_mtime


def _train(run: Run, display: Display) -> int | None:
    """Take the steps that are left; see `train`."""
    with ExitStack() as log:
        monitor = None
        with run.ranks.together():
            if run.ranks.first:
                begun = Monitor(run.folder, run.progress.step, run.progress.roll_backs)
                monitor = log.enter_context(begun)
        return train(run, monitor, display)


def set_up(config: PretrainConfig, resume: str, ranks: Ranks, lock: ExitStack) -> Run:
    """Open, build and check everything before anything is written but the demo corpus.

    The run's folder stays locked until `lock` is closed.
    """
    with ranks.together():
        precision = choose_precision(config.distribution, ranks.device)
        if ranks.first:
            prepare_demo(config)
    again = _begins_again(config, resume, ranks)
    with ranks.together():
        newest = latest_step(run_folder(config) / "checkpoints")
        checkpoint = checkpoint_to_resume(config, resume, again)
        if checkpoint is not None and config.batch.token_budget == AUTO:
            config = with_budget(config, checkpoint.config.batch.token_budget)
        data = open_data(config)
        spec = model_spec(config, data)
        model = build_model(config, spec, data)
        if checkpoint is not None:
            check_resumable(checkpoint, config, spec, data)
            state = checkpoint.state()
            model.load_state_dict(state.model)
        transform = build_transform(config, model, data.tokenizer)
        makers = batch_makers(config, data, transform, spec, ranks.placement)
        check_ranks(makers.train, step_size(config))
    progress = checkpoint.progress if checkpoint else Progress(0, 0, first_state(config, data))
    facts = {"first step": progress.step, "precision": precision}
    refuse_different(ranks, {**_data_facts(data), **facts})
    with ranks.together():
        if ranks.first:
            _claim(run_folder(config), newest, lock)
    engine = _build_engine(config, model, ranks)
    if checkpoint is not None:
        engine.restore(state)
    return Run(
        config=config,
        folder=run_folder(config),
        ranks=ranks,
        spec=spec,
        features=data.features,
        model=model,
        engine=engine,
        tokenizer=data.tokenizer,
        transform=transform,
        makers=makers,
        progress=progress,
        begins_at=checkpoint.folder if checkpoint else None,
        peak_flops=_peak_flops(ranks.device, precision),
    )


def _begins_again(config: PretrainConfig, resume: str, ranks: Ranks) -> bool:
    """See `has_begun`; the first rank's answer is that of all."""
    begun = False
    with ranks.together():
        if ranks.first:
            begun = has_begun(run_folder(config), resume, os.environ)
    return bool(ranks.max(begun))


def _data_facts(data: Data) -> dict[str, str]:
    """What the ranks' data must agree in."""
    return {
        "data": data.train.fingerprint,
        "tokenizer": data.tokenizer.fingerprint,
        "features": brief(data.features.model_dump_json()),
        **{f"validation data of {name}": one.fingerprint for name, one in data.valid.items()},
    }


def _claim(folder: Path, newest: float, lock: ExitStack) -> None:
    """Lock a run's folder for this process alone.

    Args:
        folder: of the run.
        newest: see `latest_step`, as it was before the checkpoint to go on from was chosen: all of
            a large dataset may have been compared with its hashes since.
        lock: when it is closed, the folder is free.

    Raises:
        UserError: another run trains into it, or has done so meanwhile; or nothing can be saved.
    """
    refuse_unwritable(folder / "checkpoints")
    lock.enter_context(sole_run(folder))
    if latest_step(folder / "checkpoints") != newest:
        raise UserError(f"{folder} was trained into meanwhile; start again, to go on from there")


def _build_engine(config: PretrainConfig, model: PretrainingModel, ranks: Ranks) -> Engine:
    """The engine with everything that it keeps between two steps."""
    weights = {name: one.weight for name, one in config.objectives.items()}
    free, engines = free_bytes(ranks.device), []

    def build() -> None:
        settings = (config.optimizer, config.distribution, ranks, config.seed)
        engines.append(Engine(model, weights, *settings))

    with watched(ranks, config.distribution.hang_s) as heard:
        if runs_short(build):
            heard.refuse(
                f"the model and AdamW's moments need more than the {free / GIB:.2f} GiB that are "
                "free; take a smaller model, more ranks or a higher distribution.zero_stage"
            )
    return engines[0]


def _peak_flops(device: torch.device, precision: str) -> float:
    """Of this rank's device, in the precision of the run."""
    if device.type == "cpu":
        return measure_matmul_peak(device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return measure_matmul_peak(device, dtype, size=8192)


def _begin_at(run: Run) -> None:
    """Let `latest` name the run's own checkpoint that it goes back to, as the log is cut back."""
    root = run.folder / "checkpoints"
    if run.begins_at is not None and is_own(root, run.begins_at):
        point_latest(root, run.begins_at.name)


def _write_config(folder: Path, config: PretrainConfig) -> None:
    """`config.yaml`, as resolved."""
    folder.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_atomically(folder / "config.yaml", content.encode())
