import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from data_pipeline.shards.remote import Traffic
from data_pipeline.stream import BatchMaker
from data_pipeline.watch import Activity
from memo.training import monitor as monitor_module
from memo.training.engine import ObjectiveResult
from memo.training.monitor import Monitor, Supply, cut_back, lacks_validation, objective_columns


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_rows_after_the_resumed_step_and_a_torn_line_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "valid/loss": 1}\n{"step": 3}\n{"st')
    cut_back(path, 2, 0)
    assert steps_in(path) == [1, 2, 2]


def test_a_roll_back_that_will_be_made_again_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 1, "roll_backs": 1}\n{"step": 1, "roll_backs": 2}\n')
    cut_back(path, 1, 1)
    assert steps_in(path) == [1, 1]


def test_going_back_cuts_the_rows_since_and_says_why(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0, 0) as monitor:
        for step in (1, 2, 3):
            monitor.write({"step": step, "loss": step})
        monitor.go_back(1, {"step": 1, "roll_backs": 1, "from_step": 3})
        monitor.write({"step": 2, "loss": 2})
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 1},
        {"step": 1, "roll_backs": 1, "from_step": 3},
        {"step": 2, "loss": 2},
    ]


def test_skipped_steps_are_told_until_they_are_taken_again(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0, 0) as monitor:
        monitor.skip(2, 1, ["a", "b"])
        monitor.write({"step": 3, "loss": 1})
        monitor.skip(4, 1, ["c"])
        monitor.skip(5, 2, ["d"])
        monitor.go_back(4, {"step": 4, "roll_backs": 1, "from_step": 5})
    log, skipped = tmp_path / "metrics.jsonl", tmp_path / "skipped.jsonl"
    assert [json.loads(line) for line in skipped.read_text().splitlines()] == [
        {"step": 2, "keys": ["a", "b"]},
        {"step": 4, "keys": ["c"]},
    ]
    first, *_ = log.read_text().splitlines()
    assert json.loads(first) == {"step": 2, "skipped": 1, "skipped_in_a_row": 1}
    with Monitor(tmp_path, 3, 0):
        pass
    assert steps_in(log) == [2, 3]
    assert steps_in(skipped) == [2]


def test_what_is_synced_is_all_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: dict[int, int] = {}

    def sync(descriptor: int) -> None:
        stat = os.fstat(descriptor)
        on_disk[stat.st_ino] = stat.st_size

    monkeypatch.setattr(os, "fsync", sync)
    with Monitor(tmp_path, 0, 0) as monitor:
        monitor.sync()
        assert on_disk == {}
        monitor.write({"step": 1, "loss": 1})
        monitor.skip(2, 1, ["a"])
        monitor.sync()
    files = [tmp_path / name for name in ("metrics.jsonl", "skipped.jsonl")]
    assert on_disk == {file.stat().st_ino: file.stat().st_size for file in files}


@pytest.mark.parametrize(
    ("log", "lacks"),
    [
        (None, True),
        ("", True),
        ('{"step": 2, "loss": 1}\n', True),
        ('{"step": 1, "valid/loss": 1}\n{"step": 2, "loss": 1}\n{"step": 2, "valid/lo', True),
        ('{"step": 2, "loss": 1}\n{"step": 2, "valid/loss": 1}\n{"step": 3}\n', False),
    ],
)
def test_a_log_without_the_validation_of_a_step(
    tmp_path: Path, log: str | None, lacks: bool
) -> None:
    if log is not None:
        (tmp_path / "metrics.jsonl").write_text(log)
    assert lacks_validation(tmp_path, 2) == lacks


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0, 0) as monitor:
        for step in (1, 2, 3):
            monitor.write({"step": step, "loss": 0.5})
    with Monitor(tmp_path, 1, 0) as monitor:
        for step in (2, 3):
            monitor.write({"step": step, "loss": 0.5})
    assert steps_in(tmp_path / "metrics.jsonl") == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0, 0) as monitor:
        monitor.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf")})
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row == {"step": 1, "loss": None, "grad_norm": None}


def test_objectives_without_a_target_have_no_column() -> None:
    results = {"a": ObjectiveResult(0.5, 0.25, 4), "b": ObjectiveResult(0, 0, 0)}
    assert objective_columns(results) == {"loss/a": 0.5, "metric/a": 0.25}


def test_the_supply_is_what_came_since_the_row_before(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 6.0])
    monkeypatch.setattr(monitor_module, "perf_counter", lambda: next(times))
    activity, traffic = Activity(), Traffic()
    maker = SimpleNamespace(activity=activity, traffic=traffic)
    supply = Supply(cast("BatchMaker", maker))
    activity.bytes_read = 10_000_000
    assert supply.columns() == {"read_mb_per_s": 5}
    activity.bytes_read += 8_000_000
    traffic.count(bytes_read=4_000_000, hits=3, misses=1)
    assert supply.columns() == {"read_mb_per_s": 2, "network_mb_per_s": 1, "cache_hits": 0.75}
