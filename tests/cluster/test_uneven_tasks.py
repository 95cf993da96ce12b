"""Nodes of a step with different numbers of tasks, as in partitions of several kinds of nodes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.jobs import outside
from tests.cluster.slurm import Cluster
from tests.launch.command import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SCRIPT = """
import os
from memo.training.distributed import join, processes_here
ranks = join(1)
mine = ranks.rank, int(os.environ["SLURM_NODEID"]), int(os.environ["LOCAL_RANK"])
everyone = ranks.gather((*mine, processes_here(os.environ)))
if ranks.first:
    print(everyone)
"""
"""What each rank, its node, its number there, and how many are there."""


def test_two_tasks_on_one_node_and_one_on_the_other(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "who.py"
    script.write_text(SCRIPT)
    ended = subprocess.run(
        ["srun", "--nodes=2", "--ntasks=3", "--distribution=block", sys.executable, str(script)],
        cwd=tmp_path,
        env=outside(cluster, ROOT),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[(0, 0, 0, 2), (1, 0, 1, 2), (2, 1, 0, 1)]"
