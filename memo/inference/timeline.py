"""The timeline of predictions as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

COLOURS = (
    "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f",
    "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#bab0ac",
)  # fmt: skip


def write_timeline(predictions: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """The page: for each file a bar of utterances, coloured by emotion, and their probabilities.

    Args:
        predictions: `Prediction`s as dictionaries, in order.
        classes: names, each of which gets a colour.
    """
    files: dict[str, list[Mapping[str, Any]]] = {}
    for one in predictions:
        files.setdefault(one["file"], []).append(one)
    environment = Environment(
        loader=PackageLoader("memo.inference", "."), autoescape=select_autoescape(default=True)
    )
    colours = {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(classes)}
    return environment.get_template("timeline.html.j2").render(
        files=[(name, _length_s(rows), rows) for name, rows in files.items()], colours=colours
    )


def _length_s(rows: Sequence[Mapping[str, Any]]) -> float:
    """To the end of the last utterance; what cannot be used may claim any time."""
    used = [one["end_s"] for one in rows if one["emotion"]] or [one["end_s"] for one in rows]
    return max(used) or 1.0  # of some no length is known
