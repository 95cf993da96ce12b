"""The plan of a run, and that planning leaves nothing behind."""

import re
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.training.dry_run import dry_run
from memo.training.setup import build_model, model_spec, open_data
from tests.memo.training.small_run import small_config, write_small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("dry") / "dataset")


def test_the_plan_is_shown_and_nothing_written(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small_config(dataset, tmp_path / "run", "batch.token_budget=400")
    assert dry_run(config) == 0
    shown = capsys.readouterr().out
    data = open_data(config)
    model = build_model(config, model_spec(config, data), data)
    figures = {
        "parameters": f"{sum(one.numel() for one in model.parameters()):,}",
        "samples": "12 to train, 4 to validate",
        "steps per epoch": "1.5",  # 12 samples in batches of 8
        "epochs": "3.3",  # 5 steps of 8
    }
    for label, figure in figures.items():
        assert re.search(rf"^{label} +{re.escape(figure)}$", shown, re.MULTILINE), label
    for ranks in (1, 2, 8):
        assert f"micro-batches on {ranks} ranks" in shown
    assert "token_budget: 400" in shown
    for stage in ("0, fp32", "1, bf16", "2, bf16", "3, bf16"):
        row = re.search(rf"{stage} .*", shown)
        assert row is not None
        figures_of_row = re.findall(r"(\d+\.\d+) \((\d+\.\d+)\)", row[0])
        assert len(figures_of_row) == 4
        assert all(float(kept) >= float(recomputed) for kept, recomputed in figures_of_row)
    (budgets,) = re.findall(r"kept +│ +(\S+) │ +(\S+) │ +(\S+) │ +(\S+)", shown)
    sizes = [int(one.replace(",", "")) for one in budgets]
    assert sizes == sorted(sizes)
    assert not list(tmp_path.iterdir())


def test_what_would_stop_the_run_is_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batch\.token_budget=20"):
        dry_run(small_config(dataset, tmp_path / "run", "batch.token_budget=20"))
