import io

import pytest
from rich.console import Console

from data_pipeline.progress import build_progress


class Clock:
    """Seconds, as a test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


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
    task = progress.add_task("grid", total=1000)
    progress.advance(task, 400)
    console.print(progress)
    assert "grid" in screen.getvalue()
    assert "/s" not in screen.getvalue()
    for _ in range(4):  # files of many recordings, longer apart than rich remembers by itself
        clock.now += 100
        progress.advance(task, 25)
    screen.seek(0)
    screen.truncate()
    console.print(progress)
    said = screen.getvalue()
    assert "500/1000" in said
    assert "0.25/s" in said
    assert "0:33:20" in said  # 500 more at a rate of 0.25
