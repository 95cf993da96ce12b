"""Spikes of the loss: when they are told, and that going back leaves out what was seen since."""

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import AgreedError
from data_pipeline.order import StreamState
from memo.config import PretrainConfig, RollBack
from memo.training.engine import Batch, Engine, StepResult
from memo.training.pretrain import pretrain
from memo.training.saving import folders_by_step
from memo.training.spikes import LossRecord, step_before
from tests.distributed import run_ranks
from tests.memo.training.small_run import (
    GLOBAL_BATCH,
    SAMPLES,
    checkpoint,
    logged,
    small_config,
    write_small_dataset,
)

LOSSES = st.floats(0.1, 10)
ROLL_BACK = "roll_back={window: 2, steps: 2, deviations: 1000, most: 1}"
STEPS = 6
STAGES = (0, 2, 3)
"""1 keeps its parameters and moments as 2 does."""

TOLD = 1e6
"""What the steps say their loss was that are to be a spike."""


@given(st.lists(LOSSES, min_size=5, max_size=5), LOSSES)
def test_the_limit_is_by_the_middle_and_the_usual_deviation(recent: list[float], k: float) -> None:
    settings = RollBack(deviations=k, window=5)
    middle = np.median(recent)
    spread = np.median(np.abs(np.array(recent) - middle))
    limit = LossRecord(tuple(recent)).limit(settings)
    assert limit == pytest.approx(middle + k * 1.4826 * spread)


@given(st.lists(LOSSES, max_size=30), st.integers(2, 6))
def test_the_last_losses_on_course_are_kept(losses: list[float], window: int) -> None:
    settings, record = RollBack(deviations=1e9, window=window), LossRecord()
    kept: list[float] = []
    for loss in losses:
        record = record.after(loss, settings)
        level = len(kept) < window or loss <= LossRecord(tuple(kept[-window:])).limit(settings)
        kept += [loss] if level else []
        assert record.recent == tuple(kept[-window:])


def test_high_and_broken_losses_in_a_row_are_a_spike() -> None:
    settings, record = RollBack(deviations=3, window=4, steps=3), LossRecord()
    for loss in (9.0, 1.0, 1.1, 0.9, 1.0, 50.0, math.nan):
        record = record.after(loss, settings)
    assert record == LossRecord((1.0, 1.1, 0.9, 1.0), 2)
    assert not record.is_spike(settings)
    assert record.after(1.0, settings).high == 0
    assert record.after(math.inf, settings).is_spike(settings)


@pytest.mark.parametrize(
    ("saved", "step", "high", "expected"),
    [
        ((10, 20, 30), 32, 2, 30),
        ((10, 20, 30), 31, 2, 20),
        ((10, 20), 11, 2, None),
        ((), 5, 1, None),
    ],
)
def test_the_run_goes_back_to_before_the_rise(
    saved: Sequence[int], step: int, high: int, expected: int | None
) -> None:
    assert step_before(saved, step, high) == expected


def tell_a_spike(
    monkeypatch: pytest.MonkeyPatch, *calls: int, dies_at: int | None = None
) -> list[int]:
    """Let some calls of the engine say that the loss was high; returns the steps they took."""
    step, taken = Engine.step, list[int]()

    def told(self: Engine, batches: Sequence[Batch], number: int, lr: float) -> StepResult:
        result = step(self, batches, number, lr)
        taken.append(number + 1)
        if len(taken) == dies_at:
            raise RuntimeError("dies")
        values = {**vars(result), "loss": TOLD} if len(taken) in calls else vars(result)
        return StepResult(**values)

    monkeypatch.setattr(Engine, "step", told)
    return taken


def with_a_spike(argument: str) -> None:
    """On every rank: a run at each ZeRO stage whose steps 4 and 5 are a spike."""
    folder = Path(argument)
    for stage in STAGES:
        with pytest.MonkeyPatch.context() as monkeypatch:
            taken = tell_a_spike(monkeypatch, 4, 5)
            pretrain(config_of(folder, f"spike-{stage}", at_stage(stage)), "auto")
            assert taken == [1, 2, 3, 4, 5, 4, 5, 6]


def without_its_data(argument: str) -> None:
    """On every rank: the same from step 3 on as if the data of steps 4 and 5 were not there."""
    folder = Path(argument)
    for stage in STAGES:
        pretrain(config_of(folder, f"left-out-{stage}", at_stage(stage)), "auto")


def at_stage(stage: int) -> str:
    return f"distribution.zero_stage={stage}"


def config_of(folder: Path, name: str, *changes: str) -> PretrainConfig:
    return small_config(folder / "data", folder / name, ROLL_BACK, f"steps={STEPS}", *changes)


def place_after(source: Path, run: Path, step: int, stream_of: int) -> None:
    """A run with one checkpoint of another, whose data go on where those of a later step end."""
    folder = checkpoint(run, step)
    shutil.copytree(checkpoint(source, step), folder)
    (folder.parent / "latest").write_text(folder.name)
    record = json.loads((folder / "state.json").read_text())
    stream = StreamState.from_json(record["progress"]["stream"])
    skipped = (stream_of - step) * GLOBAL_BATCH
    record["progress"]["stream"] = stream.advance(skipped, SAMPLES).to_json()
    content = json.dumps(record).encode()
    (folder / "state.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["state.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def weights(run: Path) -> list[bytes]:
    names = ("model.safetensors", "optimizer.safetensors")
    return [(checkpoint(run, STEPS) / name).read_bytes() for name in names]


def steps_taken(run: Path) -> list[dict[str, Any]]:
    return [row for row in logged(run) if "lr" in row]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("spikes")
    write_small_dataset(place / "data")
    return place


@pytest.mark.slow
def test_going_back_leaves_out_the_data_since_at_any_zero_stage(folder: Path) -> None:
    run_ranks(with_a_spike, str(folder), 2)
    for stage in STAGES:
        spike, left_out = folder / f"spike-{stage}", folder / f"left-out-{stage}"
        place_after(spike, left_out, step=3, stream_of=5)
    run_ranks(without_its_data, str(folder), 2)
    for stage in STAGES:
        spike, left_out = folder / f"spike-{stage}", folder / f"left-out-{stage}"
        assert weights(spike) == weights(left_out)
        assert steps_taken(spike)[3:] == steps_taken(left_out)
        (said,) = (row for row in logged(spike) if "from_step" in row)
        assert said == {"step": 3, "roll_backs": 1, "from_step": 5}


@pytest.mark.slow
def test_a_run_that_dies_after_going_back_goes_back_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as first:
        tell_a_spike(first, 4, 5)
        pretrain(config_of(folder, "never-died"), "auto")
    with monkeypatch.context() as second:
        tell_a_spike(second, 4, 5, dies_at=6)
        with pytest.raises(RuntimeError, match="dies"):
            pretrain(config_of(folder, "died"), "auto")
    with monkeypatch.context() as third:
        assert tell_a_spike(third, 1, 2) == []
        pretrain(config_of(folder, "died"), "auto")
    assert weights(folder / "died") == weights(folder / "never-died")
    assert logged(folder / "died") == logged(folder / "never-died")


@pytest.mark.slow
def test_what_the_run_goes_back_to_stays_however_few_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the checkpoint of step 4, whose loss was high already, instead of that of step 3."""
    taken = tell_a_spike(monkeypatch, 4, 5)
    pretrain(config_of(folder, "kept-one", "keep_checkpoints=1"), "auto")
    assert taken == [1, 2, 3, 4, 5, 4, 5, 6]
    assert list(folders_by_step(folder / "kept-one" / "checkpoints")) == [STEPS]


@pytest.mark.slow
def test_the_run_does_not_go_back_to_a_course_that_it_has_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user has gone back to step 2: the checkpoint of step 3 is of what came of it before."""
    run = folder / "left"
    pretrain(config_of(folder, "left"), "auto")
    taken = tell_a_spike(monkeypatch, 2, 3)  # steps 4 and 5
    pretrain(config_of(folder, "left", "checkpoint_every=100"), str(checkpoint(run, 2)))
    assert taken == [3, 4, 5, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_loss_that_rises_again_ends_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_a_spike(monkeypatch, 4, 5, 6, 7)
    with pytest.raises(AgreedError, match=r"risen again at step 5, after 1 roll-backs"):
        pretrain(config_of(folder, "again"), "auto")


@pytest.mark.slow
def test_without_a_checkpoint_from_before_the_run_goes_on_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(config_of(folder, "plain"), "auto")
    tell_a_spike(monkeypatch, 3, 4, 5, 6)  # a new level, and a checkpoint on it
    pretrain(config_of(folder, "nothing-saved", "checkpoint_every=4"), "auto")
    assert "step 4: the loss has risen, and there is no checkpoint" in capsys.readouterr().out
    assert weights(folder / "nothing-saved") == weights(folder / "plain")
