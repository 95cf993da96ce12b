"""Starts a script of `launch/` as a user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = (sys.executable,)
TORCHRUN = (*PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
# A test of this process may have joined a group alone, and its port is taken.
JOINED = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


def launch(
    script: str, folder: Path, *words: str, by: tuple[str, ...] = PYTHON
) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder of its own, where anything that it leaves is seen."""
    outside = {key: one for key, one in os.environ.items() if key not in JOINED}
    return subprocess.run(
        [*by, str(ROOT / "launch" / script), *words],
        cwd=folder,
        env=outside | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
