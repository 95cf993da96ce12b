"""A run that is told to go back to one of its earlier checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from memo.training.engine import Batch, Engine, StepResult
from memo.training.pretrain import pretrain
from tests.memo.training.small_run import (
    STEPS,
    checkpoint,
    logged,
    small_config,
    write_small_dataset,
)


@pytest.mark.slow
def test_a_run_that_went_back_and_died_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(write_small_dataset(tmp_path / "dataset"), tmp_path / "run")
    assert pretrain(config, "auto") == 0
    log = logged(tmp_path / "run")

    def dies(self: Engine, batches: Sequence[Batch], number: int, lr: float) -> StepResult:
        raise RuntimeError(f"dies in {self} of {len(batches)} at {number} with {lr}")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", dies)
        with pytest.raises(RuntimeError, match="dies"):
            pretrain(config, str(checkpoint(tmp_path / "run", 2)))
    assert [row["step"] for row in logged(tmp_path / "run")] == [1, 2]
    assert checkpoint(tmp_path / "run", STEPS).exists()
    assert pretrain(config, "auto") == 0
    assert logged(tmp_path / "run") == log
