"""Tuning as an array of folds in a real Slurm: one fold is preempted, then all are summed up."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from memo.tuning.run import finetune
from tests.cluster.jobs import (
    awaits,
    held,
    restarts,
    submit,
    wait_for,
    wait_for_restart,
    wait_for_state,
)
from tests.cluster.slurm import Cluster
from tests.launch.command import ROOT
from tests.memo.tuning.small_tuning import tuning_config, write_backbone, write_corpus, write_task

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

EPOCHS = "training.epochs=25"
"""So many that some are left when a busy machine has noticed the first."""


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


def test_an_array_of_folds_is_the_run_of_all(cluster: Cluster, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "demo")
    backbone = write_backbone(corpus, tmp_path / "backbone")
    folds = {"by": "speaker", "count": 2, "valid_groups": 4}
    task = write_task(tmp_path / "small.yaml", corpus, folds=folds)
    run, plain = tmp_path / "run", tmp_path / "plain"
    variables = {"TASK": str(task), "PRETRAINED": str(backbone), "CORES": "1"}
    changes = ["mode=adapter", "adapter.size=4", "threads=1", EPOCHS]
    changes += ["batch.global_batch=16", "optimizer.lr=3e-3", "optimizer.warmup_steps=2"]

    words = ["finetune", f"run_dir={run}", *changes]
    array, summary = submit(cluster, ROOT, tmp_path, variables, *words)
    second = f"{array}_1"
    said = run / "slurm" / "1" / f"{second}.out"
    wait_for(lambda: said.exists() and "fold 1, seed 1, epoch 1:" in said.read_text())
    with held(f"run_dir={run}", "folds=[1]") as (rank,):  # until the signal is there
        cluster.say("scancel", "--signal=USR1", second)
        wait_for(lambda: awaits(rank, signal.SIGUSR1))
    wait_for_restart(cluster, second)
    assert list((run / "partial" / "fold-1-seed-1").glob("step-*"))
    assert cluster.state(summary) == "PENDING"
    assert finetune(tuning_config(task, backbone, plain, "adapter", EPOCHS)) == 0
    wait_for_state(cluster, summary, "COMPLETED")

    assert (restarts(cluster, f"{array}_0"), restarts(cluster, second)) == (0, 1)
    assert "fold 1, seed 1: goes on from step" in said.read_text()
    assert results(run) == results(plain)
    assert results(run)["runs"] == 2
    assert (run / "report.html").is_file()
