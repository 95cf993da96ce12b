"""When the benchmarks find their moments."""

from pathlib import Path

import pytest

from benchmarks.jobs import Job


@pytest.mark.parametrize(
    ("log", "step"),
    [
        ("", None),
        ('{"step": 1', None),
        ('{"step": 1}\n', 1),
        ('{"step": 1}\n{"step": 20}\n', 20),
        ('{"step": 1}\n{"step": 2', None),
        (f'{{"step": 1, "a": "{"a" * 5000}"}}\n{{"step": 2}}\n', 2),
    ],
)
def test_the_last_row_of_a_log_that_is_being_written(
    tmp_path: Path, log: str, step: int | None
) -> None:
    (tmp_path / "metrics.jsonl").write_text(log)
    job = Job(tmp_path, [])
    row = job.last_row()
    assert (row and row["step"]) == step
    written = (tmp_path / "metrics.jsonl").stat().st_mtime
    job.begun = written + 1
    assert job.last_row() is None
    assert Job(tmp_path / "none", []).last_row() is None


def test_what_an_earlier_start_left_of_a_checkpoint_is_not_being_written(tmp_path: Path) -> None:
    job = Job(tmp_path, [])
    assert not job.is_writing()
    left = tmp_path / "checkpoints" / "step-00000010.tmp"
    left.mkdir(parents=True)
    assert job.is_writing()
    job.begun = left.stat().st_mtime + 1
    assert not job.is_writing()
