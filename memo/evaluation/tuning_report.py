"""`report.html` of a tuning run: folds, patterns, confusions, mistakes; or of a sequence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memo.evaluation.figures import draw_bars, draw_table
from memo.evaluation.page import PageTable, write_page
from memo.evaluation.records import read_records, read_results
from memo.evaluation.scores import SCORES
from memo.evaluation.statistics import by_fold_and_seed, interval
from memo.evaluation.systems import system_page

WORST = 20
"""Mistakes that are shown: those of which the model was most sure."""

Results = Mapping[str, Any]


BLIND = "nothing in sight"
"""Title of what `blind_of` says."""


def blind_of(results: Results, pattern: str) -> str:
    """How many of the test clips have nothing of a pattern, and were answered all the same."""
    if "nothing_in_sight" not in results:  # an older run
        return ""
    return f"{results['nothing_in_sight'][pattern]:,} of {results['test_clips']:,}"


def write_tuning_report(run: Path) -> Path:
    """Write the page of a run that has a `results.json`.

    Raises:
        UserError: it has none, or one that cannot be read.
    """
    results = read_results(run)
    if "tasks" in results:
        return _sequence_page(run, results)
    page = system_page if "system" in results else _task_page
    return page(run, results, read_records(run))


def _task_page(run: Path, results: Results, records: Sequence[Results]) -> Path:
    complete, best = next(iter(results["scores"].items()))
    summary = [
        *((title, f"{best[name]['mean']:.3f}") for name, title in SCORES.items()),
        ("95 % interval of UAR", interval(best["uar"])),
        ("trained parameters", f"{results['trained_parameters']:,}"),
        ("bytes", f"{results['trained_bytes']:,}"),
        ("runs", str(results["runs"])),
    ]
    confusion = np.array(best["confusion"], dtype=float)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    uar = {name: one["uar"]["mean"] for name, one in results["scores"].items()}
    patterns = draw_bars("patterns", [*uar], {"UAR": [*uar.values()]}, "UAR")
    figures = [
        (f"Confusion, {complete}", _of_classes(results, "confusion", shares)),
        ("UAR by visible modalities", patterns),
        ("UAR by fold and seed", _folds_figure(records, complete)),
    ]
    tables = [_patterns(results), _folds(records, complete), _mistakes(records, complete)]
    return write_page(run, summary, tables, figures)


def _of_classes(results: Results, title: str, shares: "np.ndarray[Any, Any]") -> str:
    return draw_table(title, shares, results["classes"], results["classes"])


def _patterns(results: Results) -> PageTable:
    """Every score of every pattern, and of the baselines."""
    rows = [
        [
            name,
            *(f"{one[key]['mean']:.4f} ± {one[key]['std']:.4f}" for key in SCORES),
            blind_of(results, name),
        ]
        for name, one in results["scores"].items()
    ]
    rows += [
        [f"baseline: {name}", *(f"{one[key]:.4f}" for key in SCORES), ""]
        for name, one in results["baselines"].items()
    ]
    return PageTable("Visible modalities", ["visible", *SCORES.values(), BLIND], rows)


def _folds(records: Sequence[Results], pattern: str) -> PageTable:
    rows = [
        [
            str(one["fold"]),
            str(one["seed"]),
            str(one["epoch"]),
            f"{one['valid']['uar']:.4f}",
            f"{one['test'][pattern]['scores']['uar']:.4f}",
            f"{one['test'][pattern]['scores']['wa']:.4f}",
        ]
        for one in records
    ]
    head = ["fold", "seed", "epoch", "validation UAR", "test UAR", "test WA"]
    return PageTable("Folds", head, rows)


def _folds_figure(records: Sequence[Results], pattern: str) -> str:
    """Bars of all folds with all seeds that are done."""
    folds, seeds = (sorted({one[name] for one in records}) for name in ("fold", "seed"))
    uar = by_fold_and_seed(
        [(one["fold"], one["seed"], one["test"][pattern]["scores"]["uar"]) for one in records]
    )
    bars = {f"seed {seed}": uar[:, at].tolist() for at, seed in enumerate(seeds)}
    return draw_bars("folds", [f"fold {fold}" for fold in folds], bars, "UAR")


def _mistakes(records: Sequence[Results], pattern: str) -> PageTable:
    """The wrong answers that were given with the highest probability."""
    wrong = [
        (max(one["probabilities"]), record, one)
        for record in records
        for one in record["test"][pattern]["predictions"]
        if one["predicted"] != one["label"]
    ]
    wrong.sort(key=lambda entry: (-entry[0], entry[2]["key"]))
    rows = [
        [one["key"], str(record["fold"]), one["label"], one["predicted"], f"{sure:.3f}"]
        for sure, record, one in wrong[:WORST]
    ]
    head = ["clip", "fold", "class", "answer", "probability"]
    return PageTable("The worst mistakes", head, rows)


def _sequence_page(run: Path, results: Results) -> Path:
    matrix = np.array(results["R"]["uar"]["mean"])  # (stages + 1, tasks)
    tasks = results["tasks"]
    stages = ["all at once"] if len(matrix) == 2 else [f"after {name}" for name in tasks]
    summary = [
        (name, "–" if one is None else f"{one['mean']:.3f}")
        for name, one in results["transfer"]["uar"].items()
    ]
    rows = [
        [stage, *(f"{value:.4f}" for value in row)]
        for stage, row in zip(["before", *stages], matrix, strict=True)
    ]
    learned = {
        "right after learning": [
            float(matrix[min(at + 1, len(matrix) - 1), at]) for at in range(len(tasks))
        ],
        "after the last task": [float(one) for one in matrix[-1]],
    }
    kept = [float(one) for one in results["kept_numbers"]]
    figures = [
        ("UAR before and after", draw_bars("before", tasks, learned, "UAR")),
        ("Numbers kept", draw_bars("kept", stages, {"numbers": kept}, "numbers")),
    ]
    for number, confusion in enumerate(results["confusion"]):
        table = np.array(confusion, dtype=float)
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        classes = results["classes"][number]
        title = f"Confusion on {tasks[number]} after the last task"
        figures.append((title, draw_table(title, shares, classes, classes)))
    return write_page(run, summary, [PageTable("R, UAR", ["", *tasks], rows)], figures)
