"""What goes back to the queue of a real Slurm, and what does not; a stand-in trains."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster.jobs import output, outside, restarts, wait_for, wait_for_state
from tests.cluster.slurm import Cluster
from tests.launch.command import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

BEGINNING = """
import os, pathlib, signal, sys, time
from memo.training.signals import leave_in_peace
first = os.environ["SLURM_PROCID"] == "0"
restarted = "SLURM_RESTART_COUNT" in os.environ

def meet(where):  # goes on when both ranks of this start are so far
    mark = f"{where}-{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    pathlib.Path(f"{mark}-{os.environ['SLURM_PROCID']}").touch()
    while not all(pathlib.Path(f"{mark}-{rank}").exists() for rank in (0, 1)):
        time.sleep(0.1)

def prepare_to_leave():  # the first that leaves makes srun send SIGTERM to the other
    leave_in_peace()
    meet("peace")
"""

SAVED_ONCE = """
if not restarted:
    prepare_to_leave()
    sys.exit(85)
"""
"""A first start that ends as after a stop signal."""


def submit(cluster: Cluster, folder: Path, program: str, before: str = "") -> str:
    """Two ranks on two nodes that run this instead of pretraining; they have begun.

    Args:
        cluster: to submit to.
        folder: where they run.
        program: what they do when both have begun.
        before: what each does before it has.
    """
    (folder / "launch").mkdir()
    whole = f'{BEGINNING}{before}\nmeet("began")\n{program}'
    (folder / "launch" / "pretrain.py").write_text(whole)
    script = ROOT / "launch" / "slurm" / "pretrain.sbatch"
    said = subprocess.check_output(
        ["sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", str(script)],
        cwd=folder,
        env=outside(cluster, ROOT),
        text=True,
    )
    wait_for(lambda: len([*folder.glob("began-0-*")]) == 2)
    return said.strip()


def test_preempted_while_it_starts_it_starts_again(cluster: Cluster, tmp_path: Path) -> None:
    """SIGTERM ends the ranks; the batch script asks Slurm what has happened."""
    job = submit(cluster, tmp_path, "if not restarted: time.sleep(600)")
    subprocess.run(
        ["srun", "--partition=high", "--exclusive", "--nodes=2", "sleep", "1"],
        env=cluster.environment,
        timeout=360,
        check=True,
    )
    wait_for_state(cluster, job, "COMPLETED")
    assert restarts(cluster, job) == 1


def test_a_signal_for_the_start_before_is_no_failure(cluster: Cluster, tmp_path: Path) -> None:
    """SIGTERM, but no preemption, soon after a second start; a first one would have failed."""
    program = f"""{SAVED_ONCE}
if os.environ["SLURM_RESTART_COUNT"] == "1":
    pathlib.Path("second").touch()
    time.sleep(600)
"""
    job = submit(cluster, tmp_path, program)
    wait_for((tmp_path / "second").exists)
    cluster.say("scancel", "--signal=TERM", job)
    wait_for_state(cluster, job, "COMPLETED")
    assert restarts(cluster, job) == 2


def test_a_slow_rank_leaves_with_its_own_status(cluster: Cluster, tmp_path: Path) -> None:
    """The first that leaves makes srun end the others; the run still counts as one that saved."""
    leaving = "prepare_to_leave()\nif first: time.sleep(2)\n"
    program = f"{leaving}sys.exit(0 if restarted else 85)"
    job = submit(cluster, tmp_path, program)
    wait_for_state(cluster, job, "COMPLETED")
    assert restarts(cluster, job) == 1


def test_a_rank_that_fails_ends_all_for_good(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "sys.exit(2) if first else time.sleep(600)")
    wait_for_state(cluster, job, "FAILED")
    assert restarts(cluster, job) == 0


def test_a_refusal_ends_a_restarted_job_for_good(cluster: Cluster, tmp_path: Path) -> None:
    """The first rank keeps the store for the others, and is still there when they have left."""
    program = f"""{SAVED_ONCE}
if os.environ["SLURM_RESTART_COUNT"] != "1":
    sys.exit(0)
from torch.distributed import TCPStore
from memo.training.distributed import describe_process
from memo.training.heartbeat import Heartbeat
describe_process(os.environ)
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
store = TCPStore(*place, 2, first)
with Heartbeat(int(os.environ["RANK"]), 2, 60, store) as heart:
    time.sleep(600) if first else heart.refuse("a mistake")
"""
    job = submit(cluster, tmp_path, program)
    wait_for_state(cluster, job, "FAILED")
    assert restarts(cluster, job) == 1
    assert ": a mistake" in output(cluster, job)


def test_a_cancelled_run_saves_and_stays_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    save = "def save(*_): pathlib.Path('saved').touch(); os._exit(85)\n"
    heard = f"{save}signal.signal(signal.SIGTERM, save)"
    job = submit(cluster, tmp_path, "time.sleep(600)", heard)
    cluster.say("scancel", job)
    wait_for((tmp_path / "saved").exists)
    wait_for_state(cluster, job, "CANCELLED")
    wait_for(lambda: not cluster.say("squeue", "-h"))
    assert cluster.state(job) == "CANCELLED"
