"""Runs that learned the same tasks in the same order side by side; and who is understood abroad."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from memo.evaluation.figures import draw_bars, draw_lines, draw_table
from memo.evaluation.page import Comparison, PageTable, run_names
from memo.evaluation.records import finished_records
from memo.evaluation.statistics import by_fold_and_seed, interval, summarise

Results = Mapping[str, Any]
FLOAT_BYTES = 4


def compare_sequences(runs: Sequence[Path], results: Sequence[Results]) -> Comparison:
    """UAR after the last stage, what was forgotten, and what is kept.

    Args:
        runs: folders.
        results: the content of their `results.json`.

    Raises:
        UserError: they learned other tasks or other folds, or one is not done.
    """
    _check_tasks(runs, results)
    tasks = results[0]["tasks"]
    head = [
        "run", *(f"UAR {task}" for task in tasks),
        "average", "average less the first's", "forgetting", "95 % interval", "backward",
        "forward", "numbers kept", "bytes kept", "runs",
    ]  # fmt: skip
    averages = [_averages(run, one) for run, one in zip(runs, results, strict=True)]
    pairs = zip(runs[1:], averages[1:], strict=True)
    differences = ["", *(_difference(averages[0], one, run) for run, one in pairs)]
    names = run_names(runs)
    rows = [_row(*about) for about in zip(names, results, differences, strict=True)]

    def draw() -> list[tuple[str, str]]:
        return [
            *_before_and_after(names, results),
            ("Numbers kept", _growth(names, results)),
            *_confusions(names, results),
        ]

    return Comparison(PageTable(" → ".join(tasks), head, rows), draw)


def _check_tasks(runs: Sequence[Path], results: Sequence[Results]) -> None:
    for run, one in zip(runs, results, strict=True):
        if one["tasks"] != results[0]["tasks"]:
            raise UserError(
                f"{run} learned {', '.join(one['tasks'])}, {runs[0]} "
                f"{', '.join(results[0]['tasks'])}; compare runs of the same order"
            )


def _row(name: str, results: Results, difference: str) -> list[str]:
    uar, figures, kept = results["R"]["uar"], results["transfer"]["uar"], results["kept_numbers"]
    return [
        name,
        *(f"{m:.4f} ± {d:.4f}" for m, d in zip(uar["mean"][-1], uar["std"][-1], strict=True)),
        f"{figures['average']['mean']:.4f}",
        difference,
        _mean(figures["forgetting"]),
        interval(figures["forgetting"]) if figures["forgetting"] else "–",
        _mean(figures["backward"]),
        _mean(figures["forward"]),
        f"{kept[-1]:,}",
        f"{FLOAT_BYTES * kept[-1]:,}",
        str(results["runs"]),
    ]


def _mean(summary: Mapping[str, float] | None) -> str:
    return "–" if summary is None else f"{summary['mean']:.4f}"


def _averages(run: Path, results: Results) -> dict[tuple[int, int], float]:
    """Mean UAR of all tasks after the last stage, by fold and seed."""
    return {
        (one["fold"], one["seed"]): float(np.mean(one["R"]["uar"][-1]))
        for one in finished_records(run, results)
    }


def _difference(
    first: Mapping[tuple[int, int], float], own: Mapping[tuple[int, int], float], run: Path
) -> str:
    """Mean and interval of the difference, which is taken fold by fold and seed by seed."""
    if own.keys() != first.keys():
        raise UserError(f"{run} has other folds or seeds than the first run")
    apart = [(fold, seed, own[fold, seed] - first[fold, seed]) for fold, seed in own]
    summary = summarise(by_fold_and_seed(apart)).to_json()
    return f"{summary['mean']:+.4f} ({interval(summary)})"


def _before_and_after(names: Sequence[str], results: Sequence[Results]) -> list[tuple[str, str]]:
    """For every task but the last, each run's UAR right after it was learned and at the end."""
    tasks = results[0]["tasks"]
    found = []
    for number, task in enumerate(tasks[:-1]):
        matrices = [one["R"]["uar"]["mean"] for one in results]
        bars = {
            "right after learning": [
                rows[min(number + 1, len(rows) - 1)][number] for rows in matrices
            ],
            "after the last task": [rows[-1][number] for rows in matrices],
        }
        figure = draw_bars(f"before and after, {task}", names, bars, "UAR")
        found.append((f"{task} before and after {', '.join(tasks[number + 1 :])}", figure))
    return found


def _growth(names: Sequence[str], results: Sequence[Results]) -> str:
    """What must be kept after each task; tasks that are learned at once are one point."""
    lines = {}
    for name, one in zip(names, results, strict=True):
        tasks, kept = len(one["tasks"]), one["kept_numbers"]
        lines[name] = (list(range(tasks - len(kept) + 1, tasks + 1)), kept)
    return draw_lines("growth", lines, "tasks learned", "numbers kept")


def _confusions(names: Sequence[str], results: Sequence[Results]) -> list[tuple[str, str]]:
    """Of each task after the last, the runs next to one another."""
    found = []
    for number, task in enumerate(results[0]["tasks"]):
        classes = results[0]["classes"][number]
        for name, one in zip(names, results, strict=True):
            table = np.array(one["confusion"][number], dtype=float)
            shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
            figure = draw_table(f"{task} {name}", shares, classes, classes)
            found.append((f"Confusion on {task} in the end, {name}", figure))
    return found


def compare_corpora(runs: Sequence[Path], results: Sequence[Results]) -> Comparison:
    """What a model that was tuned on one corpus gives on the others.

    Args:
        runs: of sequences, each of which begins with another of the same tasks.
        results: the content of their `results.json`.

    Raises:
        UserError: a task stands first in none of them, or in two.
    """
    tasks = sorted(results[0]["tasks"])
    of_first = {one["tasks"][0]: one for one in results}
    if sorted(of_first) != tasks or any(sorted(one["tasks"]) != tasks for one in results):
        raise UserError(f"give a run that begins with each of {', '.join(tasks)}")
    means = np.array([_first_stage(of_first[task], tasks, "mean") for task in tasks])
    deviations = np.array([_first_stage(of_first[task], tasks, "std") for task in tasks])
    rows = [
        [task, *(f"{m:.4f} ± {d:.4f}" for m, d in zip(mean, deviation, strict=True))]
        for task, mean, deviation in zip(tasks, means, deviations, strict=True)
    ]
    table = PageTable("UAR across corpora", ["tuned on", *tasks], rows)
    return Comparison(
        table,
        lambda: [("tuned on (rows), tested on", draw_table("cross corpus", means, tasks, tasks))],
    )


def _first_stage(results: Results, tasks: Sequence[str], what: str) -> NDArray[np.float64]:
    """UAR on each of the tasks after the first stage."""
    row = results["R"]["uar"][what][1]
    return np.array([row[results["tasks"].index(task)] for task in tasks])
