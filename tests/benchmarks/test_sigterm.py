"""When the benchmark finds its moments."""

from pathlib import Path

import pytest

from benchmarks.jobs import Job
from benchmarks.sigterm import last_row


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
    row = last_row(job, since=0.0)
    assert (row and row["step"]) == step
    written = (tmp_path / "metrics.jsonl").stat().st_mtime
    assert last_row(job, since=written + 1) is None
    assert last_row(Job(tmp_path / "none", []), since=0.0) is None
