"""Pretraining on two nodes of a real Slurm: preempted, requeued, resumed."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.jobs import (
    copy_checkout,
    logged_step,
    restarts,
    submit,
    wait_for,
    wait_for_restart,
    wait_for_state,
)
from tests.cluster.slurm import Cluster
from tests.launch.command import TORCHRUN, launch
from tests.memo.training.small_run import (
    checkpoint,
    logged,
    small_settings,
    write_small_dataset,
)

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STEPS = 120
"""So many that some are left when a busy machine has noticed the first ones twice."""
TWO_NODES = {"NODES": "2", "GPUS": "1", "CORES": "1"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("slurm") / "dataset")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty: the settings stand in the command."""
    path = tmp_path_factory.mktemp("config") / "empty.yaml"
    path.write_text("{}\n")
    return path


def settings(dataset: Path, run: Path) -> list[str]:
    rare = ("valid_every=20", "checkpoint_every=1000", "keep_checkpoints=1", f"steps={STEPS}")
    return small_settings(dataset, run, *rare)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def saved_steps(run: Path, job: str) -> list[int]:
    """At which it was stopped, by what it says."""
    said = (run / "slurm" / "1" / f"{job}.out").read_text()
    return [int(step) for step in re.findall(r"step (\d+) is saved", said)]


def test_preempted_twice_is_never_preempted(
    cluster: Cluster, dataset: Path, config: Path, tmp_path: Path
) -> None:
    """By a signal and by a partition of higher priority; between them the code has changed."""
    checkout, run = copy_checkout(tmp_path / "checkout"), tmp_path / "a run of 5%x"
    variables = TWO_NODES | {"CONFIG": str(config)}
    (job,) = submit(cluster, checkout, tmp_path, variables, "pretrain", *settings(dataset, run))
    wait_for(lambda: logged_step(run) >= 2)
    cluster.say("scancel", "--signal=USR1", job)
    wait_for_restart(cluster, job)
    (checkout / "memo" / "training" / "loop.py").write_text("raise SystemExit('new code')")
    wait_for(lambda: logged_step(run) >= saved_steps(run, job)[0] + 2)
    subprocess.run(
        ["srun", "--partition=high", "--exclusive", "--nodes=2", "sleep", "1"],
        env=cluster.environment,
        timeout=360,
        check=True,
    )
    plain = tmp_path / "plain"
    words = [f"--config={config}", *settings(dataset, plain)]
    assert launch("pretrain.py", tmp_path, *words, by=TORCHRUN).returncode == 0
    wait_for_state(cluster, job, "COMPLETED")

    first, second = saved_steps(run, job)
    assert 0 < first < second < STEPS
    assert restarts(cluster, job) == 2
    assert logged(run) == logged(plain)
    assert files(checkpoint(run, STEPS)) == files(checkpoint(plain, STEPS)) != {}
