"""The command itself: what is wrong is one line on stderr and status 2, and leaves nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from memo.config import PretrainConfig
from memo.training.checkpoint import Progress, write_checkpoint
from memo.training.setup import build_model, first_state, model_spec, open_data
from memo.training.state import TrainingState
from tests.memo.training.small_run import small_config, small_settings, write_small_dataset

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, str(ROOT / "launch" / "pretrain.py"))
TORCHRUN = (
    sys.executable,
    *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
    COMMAND[1],
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("launch") / "dataset")


def launch(
    place: Path, *arguments: str, command: tuple[str, ...] = COMMAND
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder of its own, where anything that it leaves is seen."""
    unplaced = {key: one for key, one in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(
        [*command, *arguments],
        cwd=place,
        env=unplaced | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


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
        data.info.features,
        data.tokenizer,
    )


def test_an_unknown_setting_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    ended = launch(tmp_path, "optimizer.learning_rate=1")
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
    ended = launch(tmp_path, *small_settings(dataset, run))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"pretrain: {weights} has ")
    assert sorted(run.rglob("*")) == before


def test_more_ranks_than_samples_in_a_batch_is_said_once(tmp_path: Path, dataset: Path) -> None:
    run = tmp_path / "run"
    settings = small_settings(dataset, run, "batch.global_batch=1")
    ended = launch(tmp_path, *settings, command=TORCHRUN)
    assert ended.returncode != 0
    ours = [line for line in ended.stderr.splitlines() if "pretrain: " in line]
    assert len(ours) == 1
    assert "batch.global_batch=1 is less than the number of ranks, 2" in ours[0]
    assert 'launch/pretrain.py", line' not in ended.stderr, "a traceback that is not torchrun's"
    assert not run.exists()
