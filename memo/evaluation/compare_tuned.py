"""Tuning runs of one task side by side, with a paired test against the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from memo.evaluation.figures import draw_bars
from memo.evaluation.page import Comparison, PageTable, run_names
from memo.evaluation.records import finished_records
from memo.evaluation.scores import SCORES
from memo.evaluation.statistics import interval, paired_permutation


@dataclass(frozen=True)
class Answers:
    """All test answers of a run, with every modality of its task in sight.

    Attributes:
        places: fold, seed and key of each.
        labels: int64 (n,).
        predicted: int64 (n,).
        units: the speaker of each, or its key where the speaker is unknown.
    """

    places: list[tuple[int, int, str]]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    units: list[str]


def compare_tuned(runs: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> Comparison:
    """Scores, and what they cost.

    Args:
        runs: folders.
        results: the content of their `results.json`.

    Raises:
        UserError: they are not of one task and its test clips, or one is not done.
    """
    for run, one in zip(runs, results, strict=True):
        if (one["task"], one["classes"]) != (results[0]["task"], results[0]["classes"]):
            raise UserError(f"{run} is of task {one['task']}, {runs[0]} of {results[0]['task']}")

    def draw() -> list[tuple[str, str]]:
        bars = {
            SCORES[name]: [_complete(one)[name]["mean"] for one in results]
            for name in ("uar", "weighted_f1")
        }
        return [("", draw_bars("comparison", run_names(runs), bars, "score"))]

    return Comparison(PageTable(str(results[0]["task"]), HEAD, _rows(runs, results)), draw)


HEAD = (
    "run", "UAR", "95 % interval", "WA", "weighted F1", "macro F1", "p against the first",
    "trained", "bytes", "seconds", "runs",
)  # fmt: skip


def _rows(runs: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    answers = [read_answers(run, one) for run, one in zip(runs, results, strict=True)]
    rows = []
    named = zip(run_names(runs), runs, results, strict=True)
    for number, (name, run, one) in enumerate(named):
        scores = _complete(one)
        same = number == 0
        chance = "" if same else f"{_p_value(answers[0], answers[number], run):.4f}"
        rows.append(
            [
                name,
                f"{scores['uar']['mean']:.4f} ± {scores['uar']['std']:.4f}",
                interval(scores["uar"]),
                *(f"{scores[name]['mean']:.4f}" for name in ("wa", "weighted_f1", "macro_f1")),
                chance,
                f"{one['trained_parameters']:,}",
                f"{one['trained_bytes']:,}",
                f"{one['seconds']:,.0f}",
                str(one["runs"]),
            ]
        )
    return rows


def _complete(results: Mapping[str, Any]) -> dict[str, Any]:
    """The scores with all modalities in sight, which stand first."""
    scores: dict[str, Any] = next(iter(results["scores"].values()))
    return scores


def read_answers(run: Path, results: Mapping[str, Any]) -> Answers:
    """All test answers of a run, by fold, seed and key.

    Args:
        run: its folder.
        results: the content of its `results.json`.

    Raises:
        UserError: see `finished_records`.
    """
    number = {name: at for at, name in enumerate(results["classes"])}
    found = []
    for record in finished_records(run, results):
        for one in next(iter(record["test"].values()))["predictions"]:
            place = (record["fold"], record["seed"], one["key"])
            answer = number[one["label"]], number[one["predicted"]]
            found.append((place, answer, one["speaker"] or one["key"]))
    found.sort()
    table = np.array([answer for _, answer, _ in found], dtype=np.int64).reshape(-1, 2)
    places, units = [place for place, _, _ in found], [unit for _, _, unit in found]
    return Answers(places, table[:, 0], table[:, 1], units)


def _p_value(first: Answers, second: Answers, run: Path) -> float:
    """Of the difference in mean UAR over folds and seeds, speakers exchanged as a whole."""
    if first.places != second.places or not np.array_equal(first.labels, second.labels):
        raise UserError(f"{run} has other folds, seeds or test clips than the first run")
    runs = [place[:2] for place in first.places]
    number = {one: at for at, one in enumerate(dict.fromkeys(runs))}
    of_run = np.array([number[one] for one in runs])  # (n,)
    classes = int(max(first.labels.max(), first.predicted.max(), second.predicted.max())) + 1
    cell = of_run * classes + first.labels  # (n,), a run and a true class
    totals = np.bincount(cell, minlength=len(number) * classes).reshape(-1, classes)

    def mean_uar(predicted: NDArray[np.int64]) -> float:
        right = np.bincount(cell[predicted == first.labels], minlength=totals.size)
        recall = right.reshape(totals.shape) / np.maximum(totals, 1)  # (runs, C)
        return float((recall.sum(axis=1) / (totals > 0).sum(axis=1)).mean())

    return paired_permutation(mean_uar, first.predicted, second.predicted, first.units)
