import subprocess
import sys

import pytest

from data_pipeline.errors import AgreedError, UserError
from memo.training.rank import told_status
from memo.training.signals import INTERRUPTED


@pytest.mark.parametrize(
    ("mistake", "rank", "told"),
    [
        (UserError("no such file"), "0", "program: no such file\n"),
        (UserError("no such file"), "1", "program: no such file\n"),
        (AgreedError("no such file"), "0", "program: no such file\n"),
        (AgreedError("no such file"), "1", ""),
    ],
)
def test_a_mistake_is_told_once(
    mistake: UserError,
    rank: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run() -> int:
        raise mistake

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("memo.training.rank.leave_in_peace", lambda: None)
    assert told_status("program", run) == 2
    assert capsys.readouterr().err == told


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("memo.training.rank.leave_in_peace", lambda: None)
    assert told_status("program", run) == INTERRUPTED


ENDS = """
import os, signal, sys
from memo.training.rank import told_status
status = told_status("program", lambda: {status})
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(status)
"""


@pytest.mark.parametrize(("status", "left_with"), [(0, -15), (2, 2), (85, 85)])
def test_a_status_that_says_something_outlives_the_launcher(status: int, left_with: int) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDS.format(status=status)], check=False)
    assert ended.returncode == left_with
