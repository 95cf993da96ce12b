"""What a person sees of a run: a live line on a terminal, a line a log entry elsewhere."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """Shows the steps of a run; a context manager. Only the first rank shows anything.

    Args:
        name: of the run.
        steps: in all.
        done: taken before.
        shown: whether to show anything.
    """

    def __init__(self, name: str, steps: int, done: int, shown: bool) -> None:
        self._console = Console(quiet=not shown)
        self._live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._progress.add_task(name, total=steps, completed=done, figures="")
        self._steps = steps

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, message: str) -> None:
        """A line of its own."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def step(self, number: int) -> None:
        """So many steps are done."""
        self._progress.update(self._task, completed=number)

    def log(self, row: Mapping[str, float]) -> None:
        """The figures of a log entry."""
        figures = _figures(row)
        self._progress.update(self._task, figures=figures)
        if not self._live:
            left_s = (self._steps - row["step"]) * row["step_s"]
            self.say(f"step {row['step']:.0f}/{self._steps} {figures}  {_duration(left_s)} left")

    def validation(self, row: Mapping[str, float]) -> None:
        """The figures of a validation."""
        metrics = [
            f"{key.removeprefix('valid/metric/')} {value:.3f}"
            for key, value in row.items()
            if key.startswith("valid/metric/")
        ]
        self.say(f"step {row['step']:.0f} validation: {'  '.join(metrics)}")


def _figures(row: Mapping[str, float]) -> str:
    losses = [
        f"{key.removeprefix('loss/')} {value:.3f}"
        for key, value in row.items()
        if key.startswith("loss/")
    ]
    speed = f"{row['tokens_per_s']:,.0f} tokens/s  data wait {row['data_wait']:.0%}"
    return f"{'  '.join(losses)}  {speed}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
