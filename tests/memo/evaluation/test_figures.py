"""What figures show, read from their SVG."""

import base64
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from memo.evaluation.figures import Axes, draw, draw_bars, draw_lines, draw_table

pytestmark = pytest.mark.draws

HEAD = "data:image/svg+xml;base64,"


def picture(url: str) -> str:
    assert url.startswith(HEAD)
    svg = base64.b64decode(url.removeprefix(HEAD)).decode()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    return svg


def texts(svg: str) -> list[str]:
    """Matplotlib writes letters as outlines, and what they spell as a comment."""
    return re.findall(r"<!-- (.*?) -->", svg)


def test_a_table_has_its_names_and_numbers() -> None:
    values = np.array([[0.25, 1.0, 0.0], [0.5, 0.125, 0.75]])
    shown = texts(picture(draw_table("confusion", values, ["a", "b"], ["x", "y", "z"], ".3f")))
    assert shown[:3] == ["x", "y", "z"]
    assert {"a", "b"} < set(shown)
    assert [one for one in shown if "." in one] == [f"{value:.3f}" for value in values.flat]


def test_bars_have_a_legend_if_there_are_several_to_a_group() -> None:
    several = texts(picture(draw_bars("b", ["one", "two"], {"p": [1, 2], "q": [3, 4]}, "UAR")))
    assert {"one", "two", "UAR", "p", "q"} < set(several)
    assert "p" not in texts(picture(draw_bars("b", ["one"], {"p": [1]}, "UAR")))


def test_lines_are_marked_where_there_are_values() -> None:
    lines = {"first": ([0, 50, 75], [0.5, 0.4, 0.1]), "second": ([0, 50], [0.3, 0.2])}
    longer = {**lines, "second": ([0, 50, 75], [0.3, 0.2, 0.2])}
    svgs = [picture(draw_lines("lost", one, "lost, %", "accuracy")) for one in (lines, longer)]
    assert {"0", "50", "75", "lost, %", "accuracy", "first", "second"} < set(texts(svgs[0]))
    few, more = (svg.count('xlink:href="#m') for svg in svgs)  # ticks are such marks, too
    assert more == few + 1


@pytest.mark.parametrize("title", ["a", "b"])
def test_the_same_data_give_the_same_bytes(title: str) -> None:
    plot: Callable[[Axes], None] = lambda axes: axes.plot([1, 2], [3, 4])  # noqa: E731
    assert draw(title, plot) == draw(title, plot)
    assert 'width="432pt" height="144pt"' in picture(draw(title, plot, width=6, height=2))
