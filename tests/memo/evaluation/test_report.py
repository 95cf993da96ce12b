import json
import re
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.evaluation.report import write_report

pytestmark = pytest.mark.draws

ROWS = [
    {"step": 10, "epoch": 0, "samples": 640, "tokens": 9000, "loss": 3.5, "loss/wwmlm": 2.25},
    {"step": 20, "epoch": 1, "samples": 1280, "tokens": 18000, "loss": 1.5, "loss/wwmlm": 0.75},
    {"step": 20, "valid/loss": 1.75, "valid/loss/wwmlm": 0.875, "valid/metric/wwmlm": 0.625},
]


def write_metrics(run: Path, rows: list[dict[str, float]]) -> None:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_page_shows_first_last_and_validation_figures(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run", ROWS)
    page = write_report(tmp_path / "run").read_text("utf8")
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells == ["wwmlm", "2.2500", "0.7500", "–", "0.8750", "0.6250"]
    assert "<dt>samples</dt><dd>1,280</dd>" in page


def test_page_is_self_contained_and_has_a_figure_for_each_logged_quantity(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run", ROWS)
    page = write_report(tmp_path / "run").read_text("utf8")
    assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == ["loss", "wwmlm: loss"]
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_same_metrics_give_the_same_page(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run", ROWS)
    first = write_report(tmp_path / "run").read_bytes()
    assert write_report(tmp_path / "run").read_bytes() == first


def test_a_run_whose_last_step_was_skipped_has_a_page(tmp_path: Path) -> None:
    write_metrics(tmp_path, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}])  # type: ignore[dict-item]
    assert "loss" in write_report(tmp_path).read_text()


def test_names_are_escaped(tmp_path: Path) -> None:
    run = tmp_path / "<b>run"
    write_metrics(run, ROWS)
    assert "&lt;b&gt;run" in write_report(run).read_text("utf8")


def test_no_run_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "metrics.jsonl"))):
        write_report(tmp_path)


def test_torn_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": ')
    with pytest.raises(UserError, match="line 2"):
        write_report(tmp_path)
