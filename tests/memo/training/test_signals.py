import os
import signal
import subprocess
import sys

import pytest

from memo.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_request_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("rank", "told"), [("0", 1), ("1", 0)])
def test_a_second_interrupt_ends_the_process(
    rank: str, told: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr().err.count("Ctrl-C again ends it at once") == told
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


LEAVES = """
import os, signal, sys, threading
from memo.training.signals import StopSignals, leave_in_peace
signals = StopSignals()
if {noted}:
    signals.__enter__()
thread = threading.Thread(target=leave_in_peace)
thread.start()
thread.join()
if {noted}:
    signals.__exit__(None, None, None)
assert signal.getsignal(signal.SIGTERM) != signals._note  # Python takes it back as it ends
for number in (signal.SIGTERM, signal.SIGUSR1):
    os.kill(os.getpid(), number)
sys.exit(85)
"""


@pytest.mark.parametrize("noted", [False, True])
def test_a_thread_may_let_the_process_leave_in_peace(noted: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVES.format(noted=noted)], check=False)
    assert ended.returncode == 85
