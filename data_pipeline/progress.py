"""What a person sees of a build: how many recordings are done, how many a second, what remains."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

RATE_OVER_S = 600.0
"""Over the last ten minutes: the recordings of one file are all done at once."""


class RateColumn(ProgressColumn):
    """How many are done a second; nothing before any is."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        rate = task.finished_speed or task.speed
        return Text(f"{rate:,.2f}/s" if rate else "", style="progress.data.speed")


def say(lines: Iterable[str]) -> None:
    """Lines of their own, before anything is drawn."""
    console = Console()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def build_progress(console: Console | None = None) -> Progress:
    """A bar that counts recordings.

    Args:
        console: where it is drawn; None is the terminal.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=RATE_OVER_S,
    )
