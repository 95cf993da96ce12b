"""Whole runs on one and on two ranks: stopped and resumed, cut and distributed differently."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from data_pipeline.errors import AgreedError
from memo.config import Optimizer, PretrainConfig
from memo.training.optimizer import learning_rate
from memo.training.pretrain import REQUEUE, pretrain
from tests.distributed import run_ranks
from tests.memo.training.small_run import (
    STEPS,
    checkpoint,
    logged,
    small_config,
    write_small_dataset,
)

pytestmark = pytest.mark.slow

STOPS = (1, 2, 3)
"""Inside an epoch, across its end, at its end (see `small_run`)."""

STILL = ("model.dropout=0", "model.attention_dropout=0")
ZERO_STAGE = {1: 0, 2: 2}
"""Number of ranks -> the ZeRO stage that the runs on them take."""


def stop_at(config: PretrainConfig, step: int) -> int:
    """Run until the first rank, and it alone, is told to stop in this step; the exit status."""

    def rate(number: int, settings: Optimizer, steps: int) -> float:
        if number + 1 == step and os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGUSR1)
        return learning_rate(number, settings, steps)

    with patch("memo.training.loop.learning_rate", rate):
        return pretrain(config, "never")


def copy_run(whole: Path, run: Path) -> None:
    """The first rank copies; the others find it, for joining the run waits for all."""
    if os.environ["RANK"] == "0":
        shutil.copytree(whole, run)


def run_all(folder: str) -> None:
    """On every rank: all runs that the tests compare."""
    ranks = int(os.environ["WORLD_SIZE"])
    place, dataset = Path(folder) / f"{ranks}", Path(folder) / "dataset"
    stage = f"distribution.zero_stage={ZERO_STAGE[ranks]}"

    def settings(name: str, *changes: str) -> PretrainConfig:
        return small_config(dataset, place / name, stage, *changes)

    assert pretrain(settings("whole"), "auto") == 0
    with patch("memo.training.pretrain.write_report"):  # its figures take longer than a run
        run_others(settings, place, ranks)


def run_others(settings: Callable[..., PretrainConfig], place: Path, ranks: int) -> None:
    """All but the whole run."""
    for step in STOPS:
        copy_run(place / "whole", place / f"from-{step}")
        resumed = str(checkpoint(place / "whole", step))
        assert pretrain(settings(f"from-{step}"), resumed) == 0
    assert stop_at(settings("stopped"), 2) == REQUEUE
    assert not checkpoint(place / "stopped", 3).exists()
    assert pretrain(settings("stopped"), "auto") == 0
    assert pretrain(settings("still", *STILL), "never") == 0
    assert pretrain(settings("cut", *STILL, "batch.token_budget=140"), "never") == 0
    if ranks > 1:
        one = str(checkpoint(place.with_name("1") / "still", 2))
        assert pretrain(settings("of-one", *STILL), one) == 0
    with pytest.raises(AgreedError, match="2 non-finite steps in a row up to step 3"):
        pretrain(settings("wild", "optimizer.lr=1e30", "max_bad_steps=2"), "never")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs on one rank, `1`, and on two, `2`."""
    folder = tmp_path_factory.mktemp("runs")
    write_small_dataset(folder / "dataset")
    for ranks in ZERO_STAGE:
        run_ranks(run_all, str(folder), ranks)
    return folder


def assert_close(run: Path, other: Path, first_step: int = 1) -> None:
    """The same figures to rounding, in the steps from the first one on."""
    rows = [row for row in logged(run) if row["step"] >= first_step]
    others = [row for row in logged(other) if row["step"] >= first_step]
    assert rows
    for row, of_other in zip(rows, others, strict=True):
        assert row.keys() == of_other.keys()
        for key, value in row.items():
            np.testing.assert_allclose(value, of_other[key], rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("ranks", ZERO_STAGE)
@pytest.mark.parametrize("name", [*(f"from-{step}" for step in STOPS), "stopped"])
def test_stopping_and_resuming_changes_no_bit(runs: Path, ranks: int, name: str) -> None:
    whole, resumed = runs / f"{ranks}" / "whole", runs / f"{ranks}" / name
    rows = logged(whole)
    assert [row["step"] for row in rows if "lr" in row] == list(range(1, STEPS + 1))
    assert logged(resumed) == rows
    for file in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = (checkpoint(run, STEPS) / file for run in (resumed, whole))
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("ranks", ZERO_STAGE)
def test_the_token_budget_does_not_matter(runs: Path, ranks: int) -> None:
    assert_close(runs / f"{ranks}" / "cut", runs / f"{ranks}" / "still")


def test_the_number_of_ranks_does_not_matter(runs: Path) -> None:
    assert_close(runs / "2" / "still", runs / "1" / "still")
    assert_close(runs / "2" / "of-one", runs / "1" / "still", first_step=3)


def test_a_run_says_what_it_did(runs: Path) -> None:
    run = runs / "2" / "whole"
    assert (run / "checkpoints" / "latest").read_text().strip() == f"step-{STEPS:08d}"
    assert {"config.yaml", "metrics.jsonl", "report.html", "tensorboard"} <= {
        path.name for path in run.iterdir()
    }
    valid = [row["step"] for row in logged(run) if "valid/loss" in row]
    assert valid == [3, STEPS]
