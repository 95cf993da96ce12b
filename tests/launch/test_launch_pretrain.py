"""The command itself: what is wrong is one line on stderr and status 2, and leaves nothing."""

import os
from pathlib import Path

import pytest
import torch

from memo.config import PretrainConfig
from memo.training.checkpoint import Progress
from memo.training.saving import write_checkpoint
from memo.training.setup import build_model, first_state, model_spec, open_data
from memo.training.state import TrainingState
from tests.launch.command import TORCHRUN, launch
from tests.memo.training.small_run import small_config, small_settings, write_small_dataset

SCRIPT = "pretrain.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("launch") / "dataset")


def first_checkpoint(config: PretrainConfig, run: Path) -> Path:
    """A checkpoint of the initial weights."""
    data = open_data(config)
    spec = model_spec(config, data)
    model = build_model(config, spec, data)
    moments = {
        f"{key}.{name}": torch.zeros_like(one)
        for name, one in model.named_parameters()
        for key in ("exp_avg", "exp_avg_sq")
    }
    return write_checkpoint(
        run / "checkpoints",
        TrainingState(model.state_dict(), moments, 0),
        Progress(0, 0, first_state(config, data)),
        config,
        spec,
        data.features,
        data.tokenizer,
    )


def test_an_unknown_setting_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    ended = launch(SCRIPT, tmp_path, "optimizer.learning_rate=1")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "unknown key 'optimizer.learning_rate'" in line
    assert line.startswith("pretrain: ")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_cut_short_is_named_and_left_as_it_is(tmp_path: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    weights = first_checkpoint(small_config(dataset, run), run) / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    before = sorted(run.rglob("*"))
    ended = launch(SCRIPT, tmp_path, *small_settings(dataset, run))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"pretrain: {weights} has ")
    assert sorted(run.rglob("*")) == before


def test_more_ranks_than_samples_in_a_batch_is_said_once(tmp_path: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    settings = small_settings(dataset, run, "batch.global_batch=1")
    ended = launch(SCRIPT, tmp_path, *settings, by=TORCHRUN)
    assert ended.returncode != 0
    ours = [line for line in ended.stderr.splitlines() if "pretrain: " in line]
    assert len(ours) == 1
    assert "batch.global_batch=1 is less than the number of ranks, 2" in ours[0]
    assert 'launch/pretrain.py", line' not in ended.stderr, "a traceback that is not torchrun's"
    assert not run.exists()
