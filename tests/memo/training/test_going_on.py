"""A run that goes on from a checkpoint: where it is told to, with what is owed."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.errors import AgreedError
from memo.config import PretrainConfig
from memo.evaluation.validate import validate
from memo.objectives.base import LossSum
from memo.training import loop as loop_module
from memo.training import pretrain as pretrain_module
from memo.training.engine import Batch, Engine, StepResult
from memo.training.pretrain import pretrain
from memo.training.saving import point_latest
from memo.training.setup import Data, open_data
from memo.training.signals import REQUEUE
from tests.memo.training.small_run import (
    STEPS,
    checkpoint,
    logged,
    small_config,
    write_small_dataset,
)


@pytest.mark.slow
def test_a_run_that_went_back_and_died_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(write_small_dataset(tmp_path / "dataset"), tmp_path / "run")
    assert pretrain(config, "auto") == 0
    log = logged(tmp_path / "run")

    def dies(self: Engine, batches: Sequence[Batch], number: int, lr: float) -> StepResult:
        raise RuntimeError(f"dies in {self} of {len(batches)} at {number} with {lr}")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", dies)
        with pytest.raises(RuntimeError, match="dies"):
            pretrain(config, str(checkpoint(tmp_path / "run", 2)))
    assert [row["step"] for row in logged(tmp_path / "run")] == [1, 2]
    assert checkpoint(tmp_path / "run", STEPS).exists()
    assert pretrain(config, "auto") == 0
    assert logged(tmp_path / "run") == log


@pytest.mark.parametrize("by", ["slurm", "torchrun"])
def test_a_job_goes_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Started again, it goes on with what it has saved since; another job goes back as it says."""
    run = tmp_path / "run"
    config = small_config(write_small_dataset(tmp_path / "dataset"), run, "steps=2")
    assert pretrain(config, "auto") == 0
    assert not (run / "begun.jsonl").exists()
    taken: list[int] = []
    step = Engine.step

    def counted(self: Engine, batches: Sequence[Batch], number: int, lr: float) -> StepResult:
        taken.append(number + 1)
        return step(self, batches, number, lr)

    monkeypatch.setattr(Engine, "step", counted)
    back = str(checkpoint(run, 1))
    for job, restarts, expected in (("7", 1, [2]), ("7", 2, []), ("8", 0, [2]), ("8", 1, [])):
        if by == "slurm":
            monkeypatch.setenv("SLURM_JOB_ID", job)
            monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        else:
            monkeypatch.setattr(os, "getppid", partial(int, job))
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))
        taken.clear()
        assert pretrain(config, back) == 0
        assert taken == expected


@pytest.mark.slow
def test_a_validation_is_owed_before_the_first_row_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("steps=2", "valid_every=1", "log_every=2")
    dataset = write_small_dataset(tmp_path / "dataset")
    config = small_config(dataset, tmp_path / "run", *changes)

    def asked_to_stop(*arguments: Any, **named: Any) -> dict[str, LossSum]:  # noqa: ANN401
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "validate", asked_to_stop)
        assert pretrain(config, "auto") == REQUEUE
    assert pretrain(config, "auto") == 0
    rows = logged(tmp_path / "run")
    assert [row["step"] for row in rows if "valid/loss" in row] == [1, 2]
    begun = small_config(dataset, tmp_path / "other", *changes)
    assert pretrain(begun, str(checkpoint(tmp_path / "run", 1))) == 0
    rows = logged(tmp_path / "other")
    assert [row["step"] for row in rows if "valid/loss" in row] == [2]


@pytest.mark.slow
def test_non_finite_steps_are_counted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run that is stopped before it has counted enough of them would never end by itself."""
    config = small_config(
        write_small_dataset(tmp_path / "dataset"), tmp_path / "run", "max_bad_steps=3"
    )
    step = Engine.step

    def diverged(self: Engine, batches: Sequence[Batch], number: int, lr: float) -> StepResult:
        if number == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return replace(step(self, batches, number, lr), applied=number == 0)

    monkeypatch.setattr(Engine, "step", diverged)
    assert pretrain(config, "auto") == REQUEUE
    with pytest.raises(AgreedError, match="3 non-finite steps in a row up to step 4"):
        pretrain(config, "auto")
    in_a_row = [row["skipped_in_a_row"] for row in logged(tmp_path / "run") if "skipped" in row]
    assert in_a_row == [1, 2, 3]


def test_a_run_that_was_trained_into_meanwhile_is_not_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run saves, and ends, while the second one compares the data with their hashes."""
    run = tmp_path / "run"
    config = small_config(write_small_dataset(tmp_path / "dataset"), run, "steps=2")
    assert pretrain(config, "auto") == 0
    point_latest(run / "checkpoints", checkpoint(run, 1).name)

    def long(config: PretrainConfig) -> Data:
        point_latest(run / "checkpoints", checkpoint(run, 2).name)
        return open_data(config)

    monkeypatch.setattr(pretrain_module, "open_data", long)
    with pytest.raises(AgreedError, match=r"run was trained into meanwhile; start again"):
        pretrain(config, "auto")
    assert (run / "checkpoints" / "latest").read_text() == f"{checkpoint(run, 2).name}\n"
    assert pretrain(config, "auto") == 0
