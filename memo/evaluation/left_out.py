"""Tasks that were left out, each learned on what the others share: Table 3 of ASP-MTL."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memo.evaluation.figures import draw_bars
from memo.evaluation.page import Comparison, PageTable, run_names
from memo.evaluation.right import Right, average, difference_cell, right_answers

Results = Mapping[str, Any]


def tasks_of(results: Results) -> list[str]:
    """The task that each view of a run is about."""
    return [one.get("task", name) for name, one in results["members"].items()]


def compare_left_out(runs: Sequence[Path], results: Sequence[Results]) -> Comparison:
    """A row for each task that was left out, a column for each view of it, and their averages.

    Args:
        runs: folders.
        results: the content of their `results.json`; all of the same views.

    Raises:
        UserError: two views of a run do not answer the same texts, or a run is not done.
    """
    views = list(results[0]["members"])
    right = [right_answers(run, one, views) for run, one in zip(runs, results, strict=True)]
    names, labels = [tasks_of(one)[0] for one in results], run_names(runs)
    by_view = {view: _by_run(right, labels, view) for view in views}
    rows = []
    for label, name, run in zip(labels, names, runs, strict=True):
        of_run = [{label: by_view[view][label]} for view in views]
        rows.append([label, name, *_cells(of_run, run)])
    rows.append(["average", "", *_cells(list(by_view.values()), runs[0])])
    head = ["run", "left out", *views, *(f"{view} less {views[0]} (95 %)" for view in views[1:])]

    def draw() -> list[tuple[str, str]]:
        bars = {
            view: [float(one.shares.mean()) for one in of_view.values()]
            for view, of_view in by_view.items()
        }
        return [("", draw_bars("left out", names, bars, "accuracy"))]

    return Comparison(PageTable(f"{results[0]['task']}, a task left out", head, rows), draw)


def _by_run(
    right: Sequence[Mapping[str, Right]], labels: Sequence[str], view: str
) -> dict[str, Right]:
    """Of one view, the answers of every run."""
    return {label: one[view] for label, one in zip(labels, right, strict=True)}


def _cells(views: Sequence[Mapping[str, Right]], run: Path) -> list[str]:
    """The accuracy of each view, and what the later ones differ from the first by."""
    means = [f"{average(one):.4f}" for one in views]
    return [*means, *(difference_cell(views[0], one, run) for one in views[1:])]
