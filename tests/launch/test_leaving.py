"""A command at its end keeps its status: `srun` sends SIGTERM when another rank has left."""

import os
import subprocess

import pytest

from tests.launch.command import JOINED, PYTHON, ROOT

ASKED_LATE = """
import os, runpy, signal, sys
script, sys.argv[1:] = sys.argv[1], ["nothing.like=this"]
status = runpy.run_path(script)["main"]()
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(status)
"""


@pytest.mark.parametrize("script", ["pretrain.py", "finetune.py"])
def test_a_refused_command_leaves_with_its_own_status(script: str) -> None:
    ended = subprocess.run(
        [*PYTHON, "-c", ASKED_LATE, str(ROOT / "launch" / script)],
        env={key: one for key, one in os.environ.items() if key not in JOINED}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert "nothing" in ended.stderr
