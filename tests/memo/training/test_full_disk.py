"""What cannot be written: the disk is full, or a file or a read-only folder is in the way."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.errors import AgreedError, UserError
from memo.config import ModelSpec
from memo.tokenizer import Tokenizer
from memo.training import loop as loop_module
from memo.training.checkpoint import Progress, open_checkpoint
from memo.training.pretrain import pretrain
from memo.training.saving import write_checkpoint
from memo.training.state import TrainingState
from tests.launch.command import launch
from tests.memo.training.small_checkpoint import write
from tests.memo.training.small_run import (
    STEPS,
    checkpoint,
    small_config,
    small_settings,
    write_small_dataset,
)
from tests.room import room_for

READ_ONLY = Path("/sys/kernel")
"""Not even root can put anything there."""


def half_of_the_moments(folder: Path) -> int:
    """Bytes that a checkpoint's weights fit into, and its moments do not."""
    weights, moments = (
        (folder / f"{name}.safetensors").stat().st_size for name in ("model", "optimizer")
    )
    assert weights < moments
    return (weights + moments) // 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("full") / "dataset")


def test_a_write_that_fails_half_way_leaves_nothing_and_the_one_before(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    size = half_of_the_moments(write(tmp_path, 1, state, spec, tokenizer))
    for _ in range(2):
        with (
            pytest.raises(UserError, match=r"step-00000002\.tmp cannot be written") as caught,
            room_for(size),
        ):
            write(tmp_path, 2, state, spec, tokenizer)
        assert "\n" not in str(caught.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert open_checkpoint(tmp_path).progress.step == 1
    write(tmp_path, 2, state, spec, tokenizer)
    assert open_checkpoint(tmp_path).progress.step == 2


def without_room_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Let the disk be full when checkpoints of some steps are written, which are not the first."""

    def limited(root: Path, state: TrainingState, progress: Progress, *about: Any) -> Path:  # noqa: ANN401
        if progress.step not in steps:
            return write_checkpoint(root, state, progress, *about)
        with room_for(half_of_the_moments(checkpoint(root.parent, 1))):
            return write_checkpoint(root, state, progress, *about)

    monkeypatch.setattr(loop_module, "write_checkpoint", limited)


@pytest.mark.slow
def test_a_run_goes_on_without_a_checkpoint_and_ends_with_2_without_its_last(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    without_room_at(monkeypatch, 3, STEPS)
    with pytest.raises(UserError, match=rf"step-{STEPS:08d}\.tmp cannot be written") as caught:
        pretrain(small_config(dataset, run), "auto")
    assert "\n" not in str(caught.value)
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "step-00000003.tmp" in one]
    assert line.startswith("no checkpoint: ")
    assert line.endswith("; the run goes on")
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["latest", "step-00000001", "step-00000002", "step-00000004"]
    assert open_checkpoint(run).progress.step == 4
    monkeypatch.undo()
    assert pretrain(small_config(dataset, run), "auto") == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "lr" in row] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_a_file_where_checkpoints_belong_is_one_line_and_status_2(
    dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("mine")
    ended = launch("pretrain.py", tmp_path, *small_settings(dataset, run))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"pretrain: {run}/checkpoints: no checkpoint can be written there")
    assert [path.name for path in run.iterdir()] == ["checkpoints"]
    assert (run / "checkpoints").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_a_log_that_cannot_be_begun_is_one_line(dataset: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if name == "tensorboard":
        (run / name).write_text("mine")
    else:
        (run / name).mkdir()
    with pytest.raises(AgreedError, match=f": {run}/{name}") as caught:
        pretrain(small_config(dataset, run), "auto")
    assert "\n" not in str(caught.value)
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_read_only_does_not_begin(
    dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(READ_ONLY)
    with pytest.raises(UserError, match=f"{run}/checkpoints: no checkpoint can be") as caught:
        pretrain(small_config(dataset, run), "auto")
    assert "\n" not in str(caught.value)
    assert [path.name for path in run.iterdir()] == ["checkpoints"]


@pytest.mark.slow
@pytest.mark.parametrize("run", [READ_ONLY, READ_ONLY / "run"])
def test_a_run_in_a_read_only_folder_does_not_begin(dataset: Path, run: Path) -> None:
    with pytest.raises(UserError, match=f": {run}") as caught:
        pretrain(small_config(dataset, run), "auto")
    assert "\n" not in str(caught.value)
    assert not (READ_ONLY / "run").exists()
