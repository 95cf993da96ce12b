"""Sequences side by side, on matrices written by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from memo.evaluation.compare import compare_runs, show_comparison
from memo.evaluation.compare_sequences import compare_corpora
from memo.evaluation.page import run_names
from memo.evaluation.records import read_results
from memo.evaluation.transfer import transfer
from tests.memo.evaluation.test_compare_tuned import write_run

pytestmark = pytest.mark.draws

TASKS = ("a", "b")
CLASSES = [["calm", "glad"], ["glad", "sad", "calm"]]
FIRST = np.array([[0.5, 0.3], [0.9, 0.4], [0.6, 0.8]])  # (stages + 1, tasks)


def write_sequence(
    run: Path, *matrices: NDArray[np.float64], tasks: tuple[str, ...] = TASKS, kept: int = 100
) -> Path:
    """A run of one seed with a fold for each R."""
    for fold, matrix in enumerate(matrices):
        folder = run / "folds" / f"fold-{fold}-seed-1"
        folder.mkdir(parents=True)
        record = {"fold": fold, "seed": 1, "R": {"uar": matrix.tolist()}}
        (folder / "result.json").write_text(json.dumps(record))
    mean = np.mean(matrices, axis=0)
    figures = {
        name: None if value is None else {"mean": value, "low": value, "high": value}
        for name, value in transfer(mean).to_json().items()
    }
    results = {
        "tasks": tasks,
        "classes": CLASSES,
        "R": {"uar": {"mean": mean.tolist(), "std": np.zeros_like(mean).tolist()}},
        "transfer": {"uar": figures},
        "confusion": [np.eye(len(classes)).tolist() for classes in CLASSES],
        "kept_numbers": [kept * (at + 1) for at in range(len(mean) - 1)],
        "runs": len(matrices),
    }
    (run / "results.json").write_text(json.dumps(results))
    return run


def test_the_figures_are_those_of_the_last_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = FIRST + np.array([[0, 0], [0, 0], [0.2, 0]])
    runs = [
        write_sequence(tmp_path / "full", FIRST, FIRST),
        write_sequence(tmp_path / "ewc", FIRST, better, kept=300),
        write_sequence(tmp_path / "joint", FIRST[:2], FIRST[:2]),
    ]
    compare_runs(runs, tmp_path / "out")
    full, ewc, joint = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (full["UAR a"], full["UAR b"], full["average"]) == (
        "0.6000 ± 0.0000",
        "0.8000 ± 0.0000",
        "0.7000",
    )
    assert (full["forgetting"], full["backward"], full["forward"]) == (
        "0.3000",
        "-0.3000",
        "0.1000",
    )
    assert full["average less the first's"] == ""
    # Fold by fold the averages differ by 0 and by 0.1.
    assert ewc["average less the first's"] == "+0.0500 (0.000 to 0.100)"
    assert (ewc["numbers kept"], ewc["bytes kept"]) == ("600", "2,400")
    assert (joint["average"], joint["forgetting"]) == ("0.6500", "–")
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<figure>") == 1 + 1 + 3 * 2
    assert "average less the first's" in capsys.readouterr().out


def test_orders_and_kinds_are_not_mixed(tmp_path: Path) -> None:
    first = write_sequence(tmp_path / "first", FIRST)
    back = write_sequence(tmp_path / "back", FIRST, tasks=("b", "a"))
    with pytest.raises(UserError, match=r"back learned b, a, .*first a, b; compare runs of the"):
        compare_runs([first, back], None)
    with pytest.raises(UserError, match=r"one learned one task, .*first a sequence of tasks"):
        compare_runs([first, write_run(tmp_path / "one", 0.5)], None)
    with pytest.raises(UserError, match="more has other folds or seeds than the first run"):
        compare_runs([first, write_sequence(tmp_path / "more", FIRST, FIRST)], None)


def test_folds_that_are_not_summed_up_yet_are_not_compared(tmp_path: Path) -> None:
    first = write_sequence(tmp_path / "first", FIRST, FIRST)
    again = write_sequence(tmp_path / "again", FIRST, FIRST)
    shutil.copytree(first / "folds" / "fold-1-seed-1", first / "folds" / "fold-2-seed-1")
    path = first / "folds" / "fold-2-seed-1" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fold": 2}))
    said = r"first has 3 folds and seeds that are done, its results\.json sums up 2; finish it: run"
    with pytest.raises(UserError, match=said):
        compare_runs([first, again], None)


def test_across_corpora_the_first_stage_counts(tmp_path: Path) -> None:
    back = np.array([[0.3, 0.5], [0.7, 0.2], [0.1, 0.1]])
    runs = [
        write_sequence(tmp_path / "b-a", back, tasks=("b", "a")),
        write_sequence(tmp_path / "a-b", FIRST),
    ]
    results = [read_results(run) for run in runs]
    found = compare_corpora(runs, results)
    assert found.table.rows == [
        ["a", "0.9000 ± 0.0000", "0.4000 ± 0.0000"],
        ["b", "0.2000 ± 0.0000", "0.7000 ± 0.0000"],
    ]
    show_comparison(found, tmp_path / "out")
    assert (tmp_path / "out" / "report.html").read_text().count("<figure>") == 1
    with pytest.raises(UserError, match="give a run that begins with each of a, b"):
        compare_corpora(runs[:1], results[:1])


def test_runs_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    runs = [write_sequence(tmp_path / at / "full", FIRST, FIRST) for at in ("x", "y")]
    runs.append(write_sequence(tmp_path / "x" / "ewc", FIRST, FIRST, kept=300))
    compare_runs(runs, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [one["run"] for one in found] == ["x/full", "y/full", "x/ewc"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('alt="Confusion on a in the end, y/full"') == 1
    assert run_names([runs[0], runs[2]]) == ["full", "ewc"]
    assert run_names([runs[0], runs[0]]) == ["full", "full"]
