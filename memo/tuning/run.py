"""A tuning run from its settings to its results: what `launch/finetune.py` calls."""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from rich.console import Console

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.whole_file import write_atomically
from memo.evaluation.records import RESULTS, read_records
from memo.evaluation.tuning_report import write_tuning_report
from memo.multitask.job import SystemJob
from memo.multitask.texts import SharedStates
from memo.settings import parse_config
from memo.training.admission import brief, launch_facts, refuse_different
from memo.training.distributed import Ranks, join
from memo.training.engine import choose_precision
from memo.training.heartbeat import watched
from memo.training.signals import StopSignals, status_after
from memo.tuning.config import FinetuneConfig
from memo.tuning.continual import SequenceJob
from memo.tuning.course import Keeping, StoppedError, stop_if_asked
from memo.tuning.job import Artifact, Job, Record
from memo.tuning.results import TaskJob, fold_folder
from memo.tuning.task import is_system
from memo.tuning.together import tell_known_texts

CONFIG = "config.yaml"
ORIGIN = "origin.json"
PARTIAL = "partial"
FREE = ("name", "run_dir", "folds", "seeds", "threads", "max_quarantined", "remote")
"""Settings that change nothing of what a fold gives: a run may go on with others."""

_log = logging.getLogger(__name__)


def finetune(config: FinetuneConfig) -> int:
    """Run every fold with every seed that is not done yet, and sum up.

    Returns:
        The exit status, see `finetune_each`.

    Raises:
        UserError: something that the user can mend, the same on every rank.
    """
    return finetune_each([config])


def finetune_each(configs: Sequence[FinetuneConfig]) -> int:
    """One run after the other; those of frozen layers that are the same read a text once.

    Args:
        configs: one or more; the first says how many threads there are and when a rank hangs.

    Returns:
        The exit status: 0, or 85 or 130 if a signal has ended it; what was trained is kept then.

    Raises:
        UserError: see `finetune`; of any of them before the first begins. What ends one later, as
            steps that are not finite, is told when the others are done.
    """
    threads, hang_s = configs[0].threads, configs[0].distribution.hang_s
    ranks = join(threads, hang_s)
    with StopSignals() as signals:
        with watched(ranks, hang_s) as heard:
            stopped_by = _finetune_in_turn(configs, heard, signals)
        if stopped_by is None:
            return 0
        ranks.end_together()
        return status_after(stopped_by)


def _finetune_in_turn(
    configs: Sequence[FinetuneConfig], ranks: Ranks, signals: StopSignals
) -> int | None:
    """On ranks that are watched over; the signal that has ended it, if one has."""
    states = SharedStates()
    failed: list[str] = []
    try:
        for config in configs if len(configs) > 1 else ():  # the last may be hours away
            stop_if_asked(ranks, signals)
            ranks.does(f"opening {config.folder}")
            with ranks.together():
                _open_checked(config, ranks, states)
        for config in configs:
            stop_if_asked(ranks, signals)
            try:
                _finetune(config, ranks, states, signals)
            except AgreedError as error:  # all ranks have met it, so they stay in step
                if len(configs) == 1:
                    raise
                failed.append(f"{config.folder}: {error}")
                if ranks.first:
                    _log.warning("%s; the other runs go on", failed[-1])
    except StoppedError as stopped:
        return stopped.signal
    if failed:
        runs = f"{len(failed)} of {len(configs)} runs have failed"
        raise AgreedError(f"{runs}: {'; '.join(failed)}")
    return None


def _finetune(
    config: FinetuneConfig, ranks: Ranks, states: SharedStates, signals: StopSignals
) -> None:
    """One run."""
    refuse_different(ranks, launch_facts(config))
    with ranks.together():
        job = _open_checked(config, ranks, states)
        origin = job.origin()
    refuse_different(ranks, {name: brief(json.dumps(one)) for name, one in origin.items()})
    with ranks.together():
        if ranks.first:
            _write(config.folder / ORIGIN, json.dumps(origin, indent=1))
            _write(config.folder / CONFIG, _dumped(config))
            if known := tell_known_texts(job.divided, job.folds):
                _log.warning("%s: %s", config.folder, known)
    for fold, seed in product(job.folds, job.seeds):
        _run_fold(job, ranks, fold, seed, signals)
    ranks.does("summing up")
    with ranks.together():
        if ranks.first:
            _sum_up(job)


def _open_checked(config: FinetuneConfig, ranks: Ranks, states: SharedStates) -> Job:
    """The job, if it can be run here and in its folder; nothing is written."""
    choose_precision(config.distribution, ranks.device)
    job = open_job(config, states)
    job.check_ranks(ranks.count)
    _check_folder(job)
    return job


def open_job(config: FinetuneConfig, states: SharedStates) -> Job:
    """One task, several in turn, or several at once; nothing is written.

    Args:
        config: the settings.
        states: what frozen layers have read for other runs of this process.

    Raises:
        UserError: anything that does not fit.
    """
    if config.tasks:
        return SequenceJob.open(config)
    assert config.task is not None, "the settings have one or several"
    return SystemJob.open(config, states) if is_system(config.task) else TaskJob.open(config)


def _check_folder(job: Job) -> None:
    """The run's folder is new, or of a run with the same settings, backbone, corpora and tasks.

    Raises:
        UserError: it has a run with others.
    """
    folder = job.config.folder
    if not (folder / CONFIG).is_file():
        return
    found = yaml.safe_load((folder / CONFIG).read_text("utf8"))
    config = parse_config(FinetuneConfig, found, str(folder / CONFIG))
    before, now = _telling(config), _telling(job.config)
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise UserError(
            f"{folder} has a run with other settings ({', '.join(changed)}); set name= or "
            "run_dir=, or remove it"
        )
    try:
        origin = json.loads((folder / ORIGIN).read_text("utf8"))
    except (OSError, ValueError):
        raise UserError(f"{folder / ORIGIN} cannot be read; set name= or run_dir=") from None
    for name, value in job.origin().items():
        if origin.get(name) != value:
            raise UserError(
                f"{folder} has folds of another {name}; set name= or run_dir=, or remove it"
            )


def _telling(config: FinetuneConfig) -> dict[str, Any]:
    """The settings that change what a fold gives."""
    settings = config.model_dump(mode="json")
    del settings["distribution"]["hang_s"]
    return {name: value for name, value in settings.items() if name not in FREE}


def _dumped(config: FinetuneConfig) -> str:
    """The settings as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.encode())


def _run_fold(job: Job, ranks: Ranks, fold: int, seed: int, signals: StopSignals) -> None:
    """One fold with one seed, unless it is done; or what is left of it."""
    folder = fold_folder(job.config.folder, fold, seed)
    done = ranks.gather(folder.is_dir())[0]
    if done:
        return
    stop_if_asked(ranks, signals)  # the fold before was tested since its training has looked
    ranks.does(f"fold {fold}, seed {seed}")
    keeping = Keeping(job.config.folder / PARTIAL / folder.name, signals)
    record, artifacts = job.learn(fold, seed, ranks, keeping)
    with ranks.together():
        if ranks.first:
            _save_fold(job.config.folder, folder, record, artifacts)
            _clear(keeping.folder)


def _save_fold(run: Path, folder: Path, record: Record, artifacts: Sequence[Artifact]) -> None:
    """Write a fold's folder, whole or not at all; one that another run has written stays.

    It says the same: that run had the same settings, or it had been refused.
    """
    temporary = run / PARTIAL / f"{folder.name}-{uuid4().hex}"
    temporary.mkdir(parents=True)
    for one in artifacts:
        one.save(temporary / one.name)
    content = json.dumps(record, indent=1, ensure_ascii=False)
    (temporary / "result.json").write_text(content, "utf8")
    for path in (*temporary.rglob("*"), temporary):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(temporary)


def _clear(kept: Path) -> None:
    """Remove what was kept of a fold that is done."""
    shutil.rmtree(kept, ignore_errors=True)
    with suppress(OSError):  # others may be writing there
        kept.parent.rmdir()


def _sum_up(job: Job) -> None:
    """`results.json`, the report, and the tables on the terminal."""
    folder = job.config.folder
    results = job.summarise(read_records(folder))
    _write(folder / RESULTS, json.dumps(results, indent=1, ensure_ascii=False))
    console = Console()
    for table in job.tables(results):
        console.print(table)
    report = write_tuning_report(folder)
    console.print(f"wrote {folder / RESULTS} and {report}", highlight=False, soft_wrap=True)
