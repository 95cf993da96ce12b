"""Runs side by side, on records written by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.errors import UserError
from memo.evaluation import tuning_report
from memo.evaluation.compare import compare_runs
from memo.evaluation.compare_tuned import read_answers
from memo.evaluation.records import read_records, read_results
from memo.evaluation.scores import SCORES, score
from memo.evaluation.tuning_report import write_tuning_report

pytestmark = pytest.mark.draws

CLASSES = ["calm", "glad", "sad"]


def write_run(run: Path, right: float, task: str = "t", clips: int = 60) -> Path:
    """One fold; each speaker has 6 clips; this share of the answers is right."""
    rng = np.random.default_rng(round(right * 100))
    labels = np.arange(clips) % 3
    predicted = np.where(rng.random(clips) < right, labels, (labels + 1) % 3)
    rows = [
        {
            "key": f"c{at}",
            "speaker": f"s{at // 6}",
            "label": CLASSES[labels[at]],
            "predicted": CLASSES[predicted[at]],
            "probabilities": [0.2, 0.3, 0.5],
        }
        for at in range(clips)
    ]
    scores = score(labels, predicted, 3)
    folder = run / "folds" / "fold-0-seed-1"
    folder.mkdir(parents=True)
    test = {"speech": {"scores": scores.to_json(), "predictions": rows}}
    (folder / "result.json").write_text(json.dumps({"fold": 0, "seed": 1, "test": test}))
    one = {"mean": scores.uar, "std": 0.0, "low": scores.uar, "high": scores.uar}
    results: dict[str, Any] = {
        "task": task,
        "classes": CLASSES,
        "trained_parameters": 10,
        "trained_bytes": 40,
        "seconds": 1.5,
        "runs": 1,
        "scores": {"speech": dict.fromkeys(SCORES, one)},
    }
    (run / "results.json").write_text(json.dumps(results))
    return run


def test_a_better_run_differs_and_an_equal_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path / "first", 0.4)
    same = write_run(tmp_path / "same", 0.4)
    better = write_run(tmp_path / "better", 0.95)
    compare_runs([first, same, better], tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [one["run"] for one in rows] == ["first", "same", "better"]
    assert rows[0]["p against the first"] == ""
    assert float(rows[1]["p against the first"]) == 1
    assert float(rows[2]["p against the first"]) < 0.05
    assert "better" in (tmp_path / "out" / "report.html").read_text()
    assert "better" in capsys.readouterr().out


def test_answers_are_paired_by_fold_seed_and_key(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.5)
    found = read_answers(run, read_results(run))
    assert found.places == sorted(found.places)
    assert len(found.labels) == 60
    assert len(set(found.units)) == 10


def add_record(run: Path, fold: int, seed: int) -> None:
    """The record of a fold and seed that `results.json` does not know of yet."""
    record = json.loads((run / "folds" / "fold-0-seed-1" / "result.json").read_text())
    folder = run / "folds" / f"fold-{fold}-seed-{seed}"
    folder.mkdir()
    about = {"fold": fold, "seed": seed, "epoch": 1, "valid": {"uar": 0.5}}
    (folder / "result.json").write_text(json.dumps(record | about))


def test_old_scores_and_new_folds_are_not_mixed(tmp_path: Path) -> None:
    """Two runs to which a seed was being added: the p-value was of it as well, the scores not."""
    runs = [write_run(tmp_path / name, 0.5) for name in ("first", "second")]
    for run in runs:
        add_record(run, 0, 2)
    said = r"first has 2 folds and seeds that are done, its results\.json sums up 1; finish it: run"
    with pytest.raises(UserError, match=said):
        compare_runs(runs, None)


def test_a_fold_that_is_missing_has_no_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar of height 0 would be a score."""
    run = write_run(tmp_path / "run", 0.5)
    for fold, seed in ((1, 1), (0, 2)):
        add_record(run, fold, seed)
    drawn: list[tuple[object, ...]] = []
    monkeypatch.setattr(tuning_report, "draw_bars", lambda *given: drawn.append(given))
    records = read_records(run)
    tuning_report._folds_figure(records, "speech")
    uar = records[0]["test"]["speech"]["scores"]["uar"]
    bars = {"seed 1": [uar, uar], "seed 2": [uar, pytest.approx(np.nan, nan_ok=True)]}
    assert drawn == [("folds", ["fold 0", "fold 1"], bars, "UAR")]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", 0.4)
    with pytest.raises(UserError, match="give two runs or more"):
        compare_runs([first], None)
    with pytest.raises(UserError, match=r"there is no .*results\.json"):
        compare_runs([first, tmp_path], None)
    with pytest.raises(UserError, match="is of task other"):
        compare_runs([first, write_run(tmp_path / "o", 0.4, task="other")], None)
    for content in ('{"task":', "[1]", '{"steps": 3}'):
        (tmp_path / "results.json").write_text(content)
        with pytest.raises(UserError, match=r"results\.json (cannot be read|is none of a tuning)"):
            compare_runs([first, tmp_path], None)
        with pytest.raises(UserError, match=r"results\.json (cannot be read|is none of a tuning)"):
            write_tuning_report(tmp_path)
    with pytest.raises(UserError, match="has other folds, seeds or test clips"):
        compare_runs([first, write_run(tmp_path / "less", 0.4, clips=54)], None)
