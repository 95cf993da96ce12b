"""SIGTERM, SIGINT and SIGUSR1: finish the step, write a checkpoint, leave."""

import ctypes
import os
import signal
from threading import Event
from types import FrameType, TracebackType
from typing import Self

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
REQUEUE = 85
"""Exit status after SIGUSR1 or SIGTERM, with which a scheduler takes the machine: run it again."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

ASKED = b"\nstops as soon as all that was done can be kept; Ctrl-C again ends it at once\n"
"""Told after Ctrl-C: a step, or opening a large corpus, may take its time."""


def status_after(received: int) -> int:
    """The exit status of a run that was stopped by a signal."""
    return INTERRUPTED if received == signal.SIGINT else REQUEUE


class StopSignals:
    """Context manager that notes a request to stop instead of dying of it.

    SIGINT after any of them ends the process at once. What was noted counts only when all ranks
    have agreed (`Ranks.max`), for a launcher may tell them at different moments, or only one.

    Attributes:
        received: number of the signal; None if there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in WATCHED}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            ignored = _leaving.is_set() and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if ignored else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT and os.environ.get("RANK", "0") == "0":
            os.write(2, ASKED)  # to stderr; `print` may be at work, for this is a handler
        self.received = number


def leave_in_peace() -> None:
    """Let the process end with the status it has: from now on SIGTERM and SIGUSR1 are not heard.

    `srun --kill-on-bad-exit` sends SIGTERM to the other processes when the first has left, and
    would take the death of one of them for the end of the run. Any thread may call this, also while
    the main one waits in a collective operation: `signal.signal` is for that one alone.
    """
    _leaving.set()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        _set_signal(number, signal.SIG_IGN)


_leaving = Event()
_set_signal = ctypes.pythonapi.PyOS_setsig
_set_signal.argtypes, _set_signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
