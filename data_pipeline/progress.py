"""What a person sees of a build: how many recordings are done, how many a second, what remains.

On a terminal that is a bar; elsewhere, as in the log of a job, a line a minute.
"""

from collections.abc import Iterable
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

RATE_OVER_S = 600.0
"""Over the last ten minutes: the recordings of one file are all done at once."""
LINE_EVERY_S = 60.0


class RateColumn(ProgressColumn):
    """How many are done a second; nothing before any is."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        return Text(_rate(task), style="progress.data.speed")


class BuildProgress(Progress):
    """Counts recordings, and those that are quarantined; a context manager.

    Args:
        console: where it is drawn.
        line_every_s: between two lines, where that is no terminal.
    """

    def __init__(self, console: Console, line_every_s: float) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[quarantined]} quarantined"),
            console=console,
            speed_estimate_period=RATE_OVER_S,
            disable=not console.is_terminal,
        )
        self._line_every_s = line_every_s
        self._stopped = Event()
        self._thread = Thread(target=self._say_now_and_then, daemon=True)

    def start(self) -> None:
        """See `Progress`."""
        super().start()
        if self.disable:
            self._thread.start()

    def stop(self) -> None:
        """See `Progress`; where it stands at the end is said in any case."""
        super().stop()
        if self.disable:
            self._stopped.set()
            self._thread.join()
            self._say()

    def count(self, description: str, total: int) -> TaskID:
        """A task of so many recordings; nothing is shown of none."""
        return self.add_task(description, total=total, visible=total > 0, quarantined=0)

    def done(self, task: TaskID, recordings: int, quarantined: int = 0) -> None:
        """So many more are done, of which some are quarantined."""
        quarantined += self.tasks[task].fields["quarantined"]
        self.update(task, advance=recordings, quarantined=quarantined)

    def _say_now_and_then(self) -> None:
        while not self._stopped.wait(self._line_every_s):
            self._say()

    def _say(self) -> None:
        """A line of each task."""
        for task in self.tasks:
            if task.visible:
                self.console.print(
                    progress_line(task), highlight=False, markup=False, soft_wrap=True
                )


def build_progress(
    console: Console | None = None, line_every_s: float = LINE_EVERY_S
) -> BuildProgress:
    """What counts the recordings of a build.

    Args:
        console: where it is drawn; None is the standard output.
        line_every_s: between two lines, where that is no terminal.
    """
    return BuildProgress(console or Console(), line_every_s)


def progress_line(task: Task) -> str:
    """Where a task stands: done of all, rate, time left, quarantined."""
    rate = _rate(task)
    left_s = None if task.finished else task.time_remaining
    left = "" if left_s is None else f", {_duration(left_s)} left"
    return (
        f"{task.description}: {task.completed:,.0f} of {task.total:,.0f} done"
        f"{', ' + rate if rate else ''}{left}, {task.fields['quarantined']:,} quarantined"
    )


def say(lines: Iterable[str]) -> None:
    """Lines of their own, before anything is counted."""
    console = Console()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _rate(task: Task) -> str:
    """How many are done a second; "" before any is."""
    rate = task.finished_speed or task.speed
    return f"{rate:,.2f}/s" if rate else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
