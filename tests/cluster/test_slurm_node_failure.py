"""A node of a real Slurm fails under a pretraining run."""

from pathlib import Path

import pytest

from tests.cluster.jobs import logged_step, restarts, submit, wait_for, wait_for_state
from tests.cluster.slurm import NODES, Cluster
from tests.launch.command import ROOT, TORCHRUN, launch
from tests.memo.training.small_run import (
    checkpoint,
    logged,
    small_settings,
    write_small_dataset,
)

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STEPS = 160
"""So many that some are left when a busy machine has noticed the twelfth."""


@pytest.fixture(scope="module")
def silence_s() -> int:
    """So few that the failure is soon noticed."""
    return 30


@pytest.mark.parametrize("node", NODES, ids=["the first", "the other"])
def test_a_run_goes_on_when_a_node_has_failed(cluster: Cluster, node: str, tmp_path: Path) -> None:
    """To the same bits, from the last checkpoint, as soon as there are two nodes again."""
    dataset, run, plain = (tmp_path / name for name in ("dataset", "run", "plain"))
    write_small_dataset(dataset)
    config = tmp_path / "empty.yaml"
    config.write_text("{}\n")
    settings = ("valid_every=20", "checkpoint_every=5", "keep_checkpoints=2", f"steps={STEPS}")
    variables = {"NODES": "2", "GPUS": "1", "CORES": "1", "CONFIG": str(config)}
    words = small_settings(dataset, run, *settings)
    (job,) = submit(cluster, ROOT, tmp_path, variables, "pretrain", *words)
    wait_for(lambda: logged_step(run) >= 12)
    cluster.crash(node)
    wait_for(lambda: cluster.state(job) == "PENDING")
    failed_at = logged_step(run)
    cluster.boot(node)
    words = [f"--config={config}", *small_settings(dataset, plain, *settings)]
    assert launch("pretrain.py", tmp_path, *words, by=TORCHRUN).returncode == 0
    wait_for_state(cluster, job, "COMPLETED")

    assert failed_at < STEPS
    # Slurm may send a node that is back what it wanted to send before: an end of the first start.
    assert restarts(cluster, job) in (1, 2)
    assert logged(run) == logged(plain)
    name = "model.safetensors"
    ends = [(checkpoint(one, STEPS) / name).read_bytes() for one in (run, plain)]
    assert ends[0] == ends[1]
