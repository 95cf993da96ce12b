"""Differences between systems against draws made one by one, and tables of left-out tasks."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.errors import UserError
from memo.evaluation.compare import compare_runs
from memo.evaluation.records import read_results
from memo.evaluation.right import Right, average, difference, right_answers

VIEWS = ("single channel", "bi-channel")
RUN = Path("run")


SEEDS = ((0, 1), (0, 2))
"""Fold and seed of each record of a run."""


def write_run(
    run: Path,
    task: str,
    right: Mapping[str, list[list[int]]],
    places: Sequence[tuple[int, int]] = SEEDS,
) -> Path:
    """A run that is done: view -> of each fold and seed, whether each text was answered rightly."""
    count = len(next(iter(right.values())))
    for number, (fold, seed) in enumerate(places[:count]):
        tasks = {
            view: {
                "answers": {
                    "keys": [f"{task}-{at + 10 * fold}" for at in range(len(of[number]))],
                    "targets": [[0]] * len(of[number]),
                    "probabilities": [[float(yes), 1.0 - yes] for yes in of[number]],
                }
            }
            for view, of in right.items()
        }
        folder = run / "folds" / f"fold-{fold}-seed-{seed}"
        folder.mkdir(parents=True)
        record = {"fold": fold, "seed": seed, "tasks": tasks}
        (folder / "result.json").write_text(json.dumps(record))
    members: dict[str, Any] = {
        view: {"task": task, "multi_label": False, "scores": {"wa": {"mean": float(np.mean(of))}}}
        for view, of in right.items()
    }
    kept = {"task": "asp", "system": "asp_mtl", "members": members, "runs": count}
    (run / "results.json").write_text(json.dumps({**kept, "trained_parameters": 9, "seconds": 1}))
    return run


def test_answers_are_read_by_text_and_seed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "books", {"books": [[1, 0, 1], [0, 0, 1]]})
    (found,) = right_answers(run, read_results(run), ["books"]).values()
    assert found.keys == ("books-0", "books-1", "books-2")
    assert found.shares.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert average({"books": found}) == 0.5


def test_seeds_stand_in_the_order_of_their_numbers_in_every_fold(tmp_path: Path) -> None:
    answers = {"books": [[1], [0], [0], [1]]}
    run = write_run(tmp_path / "a", "books", answers, [(0, 10), (0, 2), (1, 2), (1, 10)])
    (found,) = right_answers(run, read_results(run), ["books"]).values()
    assert found.keys == ("books-0", "books-10")
    assert found.shares.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("places", "missing"),
    [
        (
            [(0, 1), (1, 1), (0, 2)],
            "fold 1 without seed 2; finish it with folds=[0, 1] seeds=[1, 2],",
        ),
        (
            [(0, 1), (0, 2), (1, 1), (1, 3)],
            "fold 0 without seed 3; finish it with folds=[0, 1] seeds=[1, 2, 3],",
        ),
    ],
)
def test_a_run_of_which_folds_or_seeds_are_missing_is_refused(
    tmp_path: Path, places: list[tuple[int, int]], missing: str
) -> None:
    answers = {"books": [[1, 0]] * len(places)}
    grid = [(0, 1), (0, 2), (1, 1), (1, 2)]
    done = write_run(tmp_path / "done", "books", {"books": [[1, 0]] * 4}, grid)
    cut = write_run(tmp_path / "cut", "books", answers, places)
    said = re.escape(f"{cut} has {missing} or remove its other results of seed {places[-1][1]} and")
    for runs in ([done, cut], [cut, done]):
        with pytest.raises(UserError, match=said):
            compare_runs(runs, None)


def by_hand(first: list[Right], second: list[Right], draws: int) -> tuple[float, float]:
    """The interval, text by text and seed by seed."""
    rng, found = np.random.default_rng(5), []
    for _ in range(draws):
        counts = [one[0].shares.shape[1] for one in (first, second)]
        models = [rng.integers(count, size=count).tolist() for count in counts]
        changes = []
        for old, new in zip(first, second, strict=True):
            texts = rng.integers(len(old.shares), size=len(old.shares)).tolist()
            values = [
                np.mean([[one.shares[text, model] for model in of] for text in texts])
                for one, of in zip((old, new), models, strict=True)
            ]
            changes.append(values[1] - values[0])
        found.append(np.mean(changes))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def test_the_interval_is_over_texts_and_seeds() -> None:
    rng = np.random.default_rng(1)

    def answers(chances: list[float], texts: int) -> Right:
        keys = tuple(map(str, range(texts)))
        return Right(keys, (rng.random((texts, len(chances))) < chances).astype(float))

    first = [answers([0.6, 0.7], 40), answers([0.5, 0.8], 25)]
    second = [answers([0.7, 0.9, 0.5], 40), answers([0.6, 0.9, 0.7], 25)]
    old, new = (dict(zip("ab", one, strict=True)) for one in (first, second))
    mean, low, high = difference(old, new, RUN)
    expected = [np.mean([one.shares.mean() for one in of]) for of in (first, second)]
    assert mean == pytest.approx(expected[1] - expected[0])
    assert (low, high) == pytest.approx(by_hand(first, second, 2_000), abs=0.015)
    certain = {"a": Right(("x", "y"), np.array([[1.0, 0.0], [1.0, 0.0]]))}  # the seed decides all
    _, low, high = difference(certain, certain, RUN)
    assert (low, high) == (-1, 1)


def test_other_texts_are_refused() -> None:
    first, second = ({"a": Right((key,), np.ones((1, 1)))} for key in ("x", "y"))
    with pytest.raises(UserError, match="run has other folds or test texts than the first run"):
        difference(first, second, RUN)


def test_left_out_tasks_are_one_table(tmp_path: Path) -> None:
    answers = {"books": ([[1, 1, 0, 0]], [[1, 1, 1, 0]]), "films": ([[1, 1]], [[0, 1]])}
    runs = [
        write_run(tmp_path / f"leave_out={task}", task, dict(zip(VIEWS, of, strict=True)))
        for task, of in answers.items()
    ]
    compare_runs(runs, tmp_path / "out")
    books, films, mean = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (books["left out"], books["single channel"], books["bi-channel"]) == (
        *("books", "0.5000", "0.7500"),
    )
    assert (films["left out"], films["single channel"], films["bi-channel"]) == (
        *("films", "1.0000", "0.5000"),
    )
    assert (mean["run"], mean["single channel"], mean["bi-channel"]) == (
        *("average", "0.7500", "0.6250"),
    )
    assert mean["bi-channel less single channel (95 %)"].startswith("-0.1250 (")
