"""Figures of reports, as `data:` URLs of SVG images; the same data give the same bytes."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = Any
"""Matplotlib's; slow to import, and only reports need it."""


def draw(title: str, plot: Callable[[Axes], None], width: float = 5, height: float = 3) -> str:
    """One figure.

    Args:
        title: names it; not shown.
        plot: draws into the axes.
        width: in inches.
        height: in inches.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": title}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        plot(axes)
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(image.getvalue()).decode()


def draw_table(
    title: str,
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    form: str = ".2f",
) -> str:
    """A matrix as colours and numbers, values in 0..1.

    Args:
        title: names the figure.
        values: (rows, columns).
        rows: their names.
        columns: their names.
        form: of a number.
    """

    def plot(axes: Axes) -> None:
        axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            colour = "white" if value > 0.6 else "black"
            axes.text(column, row, f"{value:{form}}", ha="center", va="center", color=colour)

    return draw(title, plot, 1.6 + 0.75 * len(columns), 1.2 + 0.45 * len(rows))


def draw_bars(
    title: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]], unit: str
) -> str:
    """Bars side by side.

    Args:
        title: names the figure.
        groups: names along the axis.
        bars: label -> a value for each group; NaN leaves the place of its bar empty.
        unit: what the values are.
    """

    def plot(axes: Axes) -> None:
        places, width = np.arange(len(groups)), 0.8 / len(bars)
        for number, (label, values) in enumerate(bars.items()):
            left = places - 0.4 + width * (number + 0.5)
            axes.bar(left, values, width * 0.95, label=label)
        axes.set_xticks(places, groups, rotation=20, ha="right")
        axes.set_ylabel(unit)
        if len(bars) > 1:
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    return draw(title, plot, 2 + 0.9 * len(groups), 3)


def draw_lines(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    across: str,
    unit: str,
) -> str:
    """Lines through points.

    Args:
        title: names the figure.
        lines: label -> positions and values.
        across: what the positions are.
        unit: what the values are.
    """

    def plot(axes: Axes) -> None:
        for label, (places, values) in lines.items():
            axes.plot(places, values, marker="o", label=label)
        axes.set_xticks(sorted({place for places, _ in lines.values() for place in places}))
        axes.set_ylim(bottom=min(0, *(min(values) for _, values in lines.values()), 0))
        axes.set_xlabel(across)
        axes.set_ylabel(unit)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))

    return draw(title, plot, 6, 3)
