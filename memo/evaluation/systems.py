"""Pages and comparisons of systems that learn several tasks at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.errors import UserError
from memo.evaluation.figures import draw_bars, draw_lines, draw_table
from memo.evaluation.left_out import compare_left_out, tasks_of
from memo.evaluation.page import Comparison, PageTable, run_names, write_page
from memo.evaluation.right import average, difference_cell, right_answers
from memo.evaluation.statistics import interval

Results = Mapping[str, Any]

MAIN = {False: "wa", True: "accuracy"}
"""Multi-label? -> the score that is called accuracy."""
COMMON = "on the samples that have every modality"
"""Title of the table in which patterns of visible modalities can be compared."""

SIDES = ("for", "against")
"""The last class, in `memo.multitask.probes.typical_words`."""


def main_name(member: Results) -> str:
    """Name of a task's accuracy among its scores."""
    return MAIN[bool(member["multi_label"])]


def answered_of(member: Results) -> str:
    """How many of the test texts were answered; the others had nothing in sight, or were broken."""
    if "answered" not in member:  # an older run
        return ""
    return f"{member['answered']:,} of {member['texts']:,}"


def on_common(members: Results) -> Results:
    """The members as they are on the texts that every view of their task answers.

    Of patterns of visible modalities these are the samples that have all of them. {} where the
    views have answered the same texts anyway, or the run is an older one.
    """
    found = {name: {**one, **one["common"]} for name, one in members.items() if "common" in one}
    alike = all(one["answered"] == members[name]["answered"] for name, one in found.items())
    return {} if alike else found


def system_page(run: Path, results: Results, records: Sequence[Results]) -> Path:
    """Write the page of a run."""
    average = results["average"]
    summary = [
        ("average accuracy", f"{average['mean']:.4f} ± {average['std']:.4f}"),
        ("average error", f"{100 * (1 - average['mean']):.2f} %"),
        ("95 % interval", interval(average)),
        ("trained parameters", f"{results['trained_parameters']:,}"),
        ("seconds", f"{results['seconds']:,.0f}"),
        ("runs", str(results["runs"])),
        *_vectors(results),
    ]
    members = results["members"]
    bars = {
        "accuracy": [one["scores"][main_name(one)]["mean"] for one in members.values()],
        "majority": [one["majority"] for one in members.values()],
    }
    figures = [("Accuracy", draw_bars("accuracy", [*members], bars, "accuracy"))]
    figures += _traces(records[0])
    figures += [
        (f"Confusion of {name}", _confusion(name, one))
        for name, one in members.items()
        if "confusion" in one["scores"] and len(one["answers"]) > 2
    ]
    tables = [_scores("Tasks", members)]
    if common := on_common(members):
        tables.append(_scores(f"Tasks {COMMON}", common))
    tables += [*_trait_tables(members), *_examined(results, records[0])]
    return write_page(run, summary, tables, figures)


def _vectors(results: Results) -> list[tuple[str, str]]:
    """How many words have a vector in a file, if there is one and the run is no older one."""
    if not (of := results.get("vectors")):
        return []
    words = f"{of['found']:,.0f} of {of['words']:,.0f}"
    return [("words with a vector", f"{words} ({100 * of['share']:.1f} % of occurrences)")]


def _scores(title: str, members: Results) -> PageTable:
    """Every score of every task."""
    names = list(
        dict.fromkeys(
            score
            for one in members.values()
            for score, value in one["scores"].items()
            if isinstance(value, Mapping)
        )
    )
    rows = []
    for name, one in members.items():
        found = [one["scores"].get(score) for score in names]
        cells = ["" if s is None else f"{s['mean']:.4f} ± {s['std']:.4f}" for s in found]
        rows.append([name, *cells, f"{one['majority']:.4f}", answered_of(one)])
    return PageTable(title, ["task", *names, "majority", "answered"], rows)


def _trait_tables(members: Results) -> list[PageTable]:
    return [
        PageTable(
            f"Accuracy of each trait, {name}",
            one["answers"],
            [[f"{value:.4f}" for value in one["scores"]["of_trait"]]],
        )
        for name, one in members.items()
        if "of_trait" in one["scores"]
    ]


def _examined(results: Results, record: Results) -> list[PageTable]:
    """What was measured of the trained models, and the words that move their answers."""
    tables = []
    if measured := results.get("examined"):
        rows = [[name, f"{value:.4f}"] for name, value in measured.items()]
        tables.append(PageTable("Measured of the trained models", ["", "mean"], rows))
    if words := record["examined"].get("typical"):
        rows = [[name, *(", ".join(of[side]) for side in SIDES)] for name, of in words.items()]
        tables.append(PageTable("Typical words, first fold", ["encoder", *SIDES], rows))
    return tables


def _traces(record: Results) -> list[tuple[str, str]]:
    """What was watched from epoch to epoch, in the first fold."""
    traces = record["traces"]
    names = [name for name in traces[0] if name != "epoch"]
    if not names or len(traces) < 2:
        return []
    epochs = [one["epoch"] for one in traces]
    lines = {name: (epochs, [one.get(name, np.nan) for one in traces]) for name in names}
    return [("Watched, first fold", draw_lines("traces", lines, "epoch", ""))]


def _confusion(name: str, member: Results) -> str:
    table = np.array(member["scores"]["confusion"], dtype=float)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return draw_table(name, shares, member["answers"], member["answers"])


def compare_systems(runs: Sequence[Path], results: Sequence[Results]) -> Comparison:
    """Accuracy of every task and their average; differences to the first run with intervals.

    Runs that left out different tasks make another table (see `compare_left_out`).

    Args:
        runs: folders.
        results: the content of their `results.json`.

    Raises:
        UserError: they are not of the same texts, or one is not done.
    """
    names = list(results[0]["members"])
    same_views = all(list(one["members"]) == names for one in results)
    if same_views and any(tasks_of(one) != tasks_of(results[0]) for one in results):
        return compare_left_out(runs, results)
    shared = [name for name in names if all(name in one["members"] for one in results)]
    if not shared:
        raise UserError(f"{runs[0]} and the other runs have no task in common")
    pairs = list(zip(runs, results, strict=True))
    right = [right_answers(run, one, shared) for run, one in pairs]
    rows, labels = [], run_names(runs)
    for number, (run, one) in enumerate(pairs):
        cells = [
            f"{one['members'][name]['scores'][main_name(one['members'][name])]['mean']:.4f}"
            for name in shared
        ]
        against = difference_cell(right[0], right[number], run) if number else ""
        mean = f"{average(right[number]):.4f}"
        cost = f"{one['trained_parameters']:,}", f"{one['seconds']:,.0f}", str(one["runs"])
        rows.append([labels[number], *cells, mean, against, *cost])
    head = [
        "run", *shared, "average", "difference to the first (95 %)", "trained", "seconds", "runs",
    ]  # fmt: skip

    def draw() -> list[tuple[str, str]]:
        bars = {"average accuracy": [float(row[1 + len(shared)]) for row in rows]}
        return [("", draw_bars("comparison", labels, bars, "accuracy"))]

    return Comparison(PageTable(str(results[0]["task"]), head, rows), draw)
