import io
from threading import Event

import pytest
from rich.console import Console

from data_pipeline.progress import build_progress


class Clock:
    """Seconds, as a test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    """Tells when three lines were written."""

    def __init__(self) -> None:
        super().__init__()
        self.third = Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= 3:
            self.third.set()
        return written


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(screen: io.StringIO) -> Console:
    return Console(file=screen, width=120, force_terminal=True, color_system=None)


def test_the_bar_tells_the_rate_and_the_time_that_remains(
    screen: io.StringIO, console: Console
) -> None:
    """Of a build that goes on: what was done before is counted, and is none of the rate."""
    progress, clock = build_progress(console), Clock()
    progress.get_time = clock
    task = progress.count("grid", 1000)
    progress.done(task, 400)
    console.print(progress)
    assert "grid" in screen.getvalue()
    assert "/s" not in screen.getvalue()
    for _ in range(4):  # files of many recordings, longer apart than rich remembers by itself
        clock.now += 100
        progress.done(task, 25, quarantined=1)
    screen.seek(0)
    screen.truncate()
    console.print(progress)
    said = screen.getvalue()
    assert "500/1000" in said
    assert "0.25/s" in said
    assert "0:33:20" in said  # 500 more at a rate of 0.25
    assert "4 quarantined" in said


def test_a_log_has_plain_lines_of_what_is_done_and_left(screen: io.StringIO) -> None:
    console = Console(file=screen, width=20)
    clock = Clock()
    with build_progress(console, line_every_s=1000) as progress:
        progress.get_time = clock
        progress.count("looking for speech", 0)
        task = progress.count("[grid]", 12_000)
        progress.done(task, 1_000, quarantined=2)
        for _ in range(4):
            clock.now += 100
            progress.done(task, 50, quarantined=1)
        assert screen.getvalue() == ""
    # 10,800 more at a rate of 0.5: 21,600 s
    line = "[grid]: 1,200 of 12,000 done, 0.50/s, 6:00:00 left, 6 quarantined\n"
    assert screen.getvalue() == line


def test_a_log_has_a_line_now_and_then_whether_something_is_done_or_not() -> None:
    screen = Screen()
    with build_progress(Console(file=screen), line_every_s=0.001) as progress:
        progress.count("grid", 10)
        assert screen.third.wait(30)
    lines = screen.getvalue().splitlines()
    assert set(lines) == {"grid: 0 of 10 done, 0 quarantined"}
