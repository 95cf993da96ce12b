"""Pages and comparisons of systems that learn several tasks at once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from memo.evaluation.figures import draw_bars, draw_lines, draw_table
from memo.evaluation.page import Comparison, PageTable, run_names, write_page
from memo.evaluation.statistics import interval

Results = Mapping[str, Any]

MAIN = {False: "wa", True: "accuracy"}
"""Multi-label? -> the score that is called accuracy."""
COMMON = "on the samples that have every modality"
"""Title of the table in which patterns of visible modalities can be compared."""
BOOTSTRAPS = 2_000
SEED = 0


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
    return write_page(run, summary, [*tables, *_trait_tables(members)], figures)


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

    Args:
        runs: folders.
        results: the content of their `results.json`.

    Raises:
        UserError: they are not of the same texts.
    """
    names = list(results[0]["members"])
    shared = [name for name in names if all(name in one["members"] for one in results)]
    if not shared:
        raise UserError(f"{runs[0]} and the other runs have no task in common")
    right = [_right(run, shared) for run in runs]
    rows, labels = [], run_names(runs)
    for number, (run, one) in enumerate(zip(runs, results, strict=True)):
        cells = [
            f"{one['members'][name]['scores'][main_name(one['members'][name])]['mean']:.4f}"
            for name in shared
        ]
        mean, low, high = _difference(right[0], right[number], run) if number else (0.0, 0.0, 0.0)
        against = f"{mean:+.4f} ({low:+.4f} to {high:+.4f})" if number else ""
        average = float(np.mean([np.mean(list(of.values())) for of in right[number].values()]))
        cost = f"{one['trained_parameters']:,}", f"{one['seconds']:,.0f}", str(one["runs"])
        rows.append([labels[number], *cells, f"{average:.4f}", against, *cost])
    head = [
        "run", *shared, "average", "difference to the first (95 %)", "trained", "seconds", "runs",
    ]  # fmt: skip

    def draw() -> list[tuple[str, str]]:
        bars = {"average accuracy": [float(row[1 + len(shared)]) for row in rows]}
        return [("", draw_bars("comparison", labels, bars, "accuracy"))]

    return Comparison(PageTable(str(results[0]["task"]), head, rows), draw)


Right = Mapping[str, Mapping[str, float]]
"""Task -> key of a test text -> share of right answers over seeds (and traits)."""


def _right(run: Path, names: Sequence[str]) -> Right:
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for path in sorted(run.glob("folds/*/result.json")):
        record = json.loads(path.read_text("utf8"))
        for name in names:
            answers = record["tasks"][name]["answers"]
            for key, share in zip(answers["keys"], _shares(answers), strict=True):
                found[name].setdefault(key, []).append(share)
    return {
        name: {key: float(np.mean(shares)) for key, shares in sorted(of.items())}
        for name, of in found.items()
    }


def _shares(answers: Results) -> list[float]:
    """Share of right answers to each text."""
    targets = np.array(answers["targets"])  # (n, T)
    probabilities = np.array(answers["probabilities"])  # (n, C) or (n, K)
    if targets.shape[1] == probabilities.shape[1]:
        shares: NDArray[np.float64] = ((probabilities > 0.5) == targets).mean(axis=1)
    else:
        shares = (probabilities.argmax(axis=1) == targets[:, 0]).astype(float)
    return list(shares.tolist())


def _difference(first: Right, second: Right, run: Path) -> tuple[float, float, float]:
    """Of the mean accuracies, with a 95 % bootstrap interval: the texts of each task are drawn."""
    if any(list(first[name]) != list(second[name]) for name in first):
        raise UserError(f"{run} has other folds or test texts than the first run")
    rng = np.random.default_rng(SEED)
    drawn, means = np.zeros(BOOTSTRAPS), []
    for name in first:
        changes = np.array(list(second[name].values())) - np.array(list(first[name].values()))
        chosen = rng.integers(len(changes), size=(BOOTSTRAPS, len(changes)))
        drawn += changes[chosen].mean(axis=1) / len(first)
        means.append(changes.mean())
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.mean(means)), float(low), float(high)
