"""`report.html`: a run's curves, throughput and objectives on one self-contained page."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from data_pipeline.errors import UserError
from memo.evaluation.figures import Axes, draw
from memo.evaluation.page import PageTable, write_page

Row: TypeAlias = Mapping[str, Any]
"""One line of `metrics.jsonl`."""


@dataclass(frozen=True)
class Plot:
    """One figure of the page: its title and, by label, the points (step, value) of each line."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def write_report(run: Path) -> Path:
    """Write `report.html` into a run's folder.

    Args:
        run: folder with `metrics.jsonl`.

    Returns:
        The page's path.

    Raises:
        UserError: there is no run, or it has logged nothing yet.
    """
    rows = read_metrics(run / "metrics.jsonl")
    if not rows:
        raise UserError(f"{run / 'metrics.jsonl'} is empty; the run has logged nothing yet")
    return write_page(
        run,
        _summary(rows),
        [PageTable("", OBJECTIVE_COLUMNS, _objective_rows(rows))],
        [(plot.title, _draw(plot)) for plot in _plots(rows) if plot.lines],
    )


def read_metrics(path: Path) -> list[Row]:
    """All lines of a `metrics.jsonl`.

    Raises:
        UserError: the file is missing, or a line is no JSON object.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}; give the folder of a run")
    rows = []
    for number, line in enumerate(path.read_text("utf8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            raise UserError(f"{path}, line {number}: not a JSON object") from None
    return rows


def _series(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """(step, value) of every row that has a finite value of this key."""
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    return [(step, value) for step, value in points if math.isfinite(value)]


def _names(rows: Sequence[Row], prefix: str) -> list[str]:
    """What follows a prefix in the keys, in order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith(prefix))
    return [key.removeprefix(prefix) for key in keys]


def _plots(rows: Sequence[Row]) -> list[Plot]:
    """All figures, in the order of the page."""
    plots = [_plot(rows, "loss", {"training": "loss", "validation": "valid/loss"})]
    for kind in ("loss", "metric"):
        for name in _names(rows, f"{kind}/"):
            keys = {"training": f"{kind}/{name}", "validation": f"valid/{kind}/{name}"}
            plots.append(_plot(rows, f"{name}: {kind}", keys))
    plots.append(_plot(rows, "tokens per second", {"tokens/s": "tokens_per_s"}))
    plots.append(_plot(rows, "share of time waiting for data", {"waiting": "data_wait"}))
    plots.append(_plot(rows, "learning rate", {"lr": "lr"}))
    plots.append(_plot(rows, "gradient norm", {"norm": "grad_norm"}))
    return plots


def _plot(rows: Sequence[Row], title: str, keys: Mapping[str, str]) -> Plot:
    series = {label: _series(rows, key) for label, key in keys.items()}
    return Plot(title, {label: points for label, points in series.items() if points})


def _draw(plot: Plot) -> str:
    """The figure as a `data:` URL of an SVG image."""

    def lines(axes: Axes) -> None:
        for label, points in plot.lines.items():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=label, marker="." if len(points) < 30 else "")
        axes.set_xlabel("step")
        axes.legend(frameon=False)

    return draw(plot.title, lines)


LAST_FIGURES: tuple[tuple[str, str, str], ...] = (
    ("steps", "step", ",.0f"),
    ("epoch", "epoch", ".1f"),
    ("samples", "samples", ",.0f"),
    ("tokens", "tokens", ",.0f"),
    ("loss", "loss", ".4f"),
)
MEDIAN_FIGURES: tuple[tuple[str, str, str], ...] = (
    ("tokens/s (median)", "tokens_per_s", ",.0f"),
    ("MFU (median)", "mfu", ".0%"),
    ("waiting for data (median)", "data_wait", ".1%"),
)
"""Label, key in the log, and format."""


def _summary(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The run in a few numbers: label and value."""
    last = next((row for row in reversed(rows) if "loss" in row), rows[-1])
    series = {key: _series(rows, key) for _, key, _ in MEDIAN_FIGURES}
    return [
        *(
            (label, f"{value:{form}}")
            for label, key, form in LAST_FIGURES
            if (value := last.get(key)) is not None
        ),
        *(
            (label, f"{_median([value for _, value in series[key]]):{form}}")
            for label, key, form in MEDIAN_FIGURES
            if series[key]
        ),
    ]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


OBJECTIVE_COLUMNS = (
    "objective",
    "first loss",
    "loss",
    "metric",
    "validation loss",
    "validation metric",
)


def _objective_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Per objective: first and last training loss, last metric, last validation loss and metric."""
    columns = ("loss/{}", "metric/{}", "valid/loss/{}", "valid/metric/{}")
    table = []
    for name in _names(rows, "loss/"):
        series = [_series(rows, column.format(name)) for column in columns]
        first = f"{series[0][0][1]:.4f}" if series[0] else "–"
        table.append([name, first, *(f"{one[-1][1]:.4f}" if one else "–" for one in series)])
    return table
