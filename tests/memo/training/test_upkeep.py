from pathlib import Path

import pytest
import torch

from data_pipeline.errors import UserError
from memo.config import ModelSpec
from memo.tokenizer import Tokenizer
from memo.training.admission import sole_run
from memo.training.checkpoint import MODEL, OPTIMIZER, find_checkpoint, open_checkpoint
from memo.training.saving import point_latest
from memo.training.state import TrainingState
from memo.training.upkeep import average, prune, verify
from tests.memo.training.small_checkpoint import CONFIG, write

KEEP_ALL = CONFIG.model_copy(update={"keep_checkpoints": None})


@pytest.fixture
def run(tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer) -> Path:
    """A run with checkpoints of the steps 2, 4, 6 and 8."""
    for step in (2, 4, 6, 8):
        write(tmp_path / "run" / "checkpoints", step, state, spec, tokenizer, KEEP_ALL)
    return tmp_path / "run"


def of_step(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def steps(run: Path) -> list[int]:
    return sorted(int(folder.name[-8:]) for folder in run.glob("checkpoints/step-*"))


def test_every_checkpoint_of_a_run_is_looked_at(run: Path) -> None:
    flip(of_step(run, 4) / OPTIMIZER)
    (of_step(run, 6) / "manifest.json").unlink()
    (run / "checkpoints" / "step-00000010.tmp").mkdir()
    found = {finding.folder: str(finding) for finding in verify(run)}
    assert list(found) == [of_step(run, step) for step in (2, 4, 6, 8)]
    assert "whole" in found[of_step(run, 2)]
    assert "optimizer.safetensors was altered" in found[of_step(run, 4)]
    assert "manifest.json is missing" in found[of_step(run, 6)]
    assert [str(one) for one in verify(of_step(run, 6))] == [found[of_step(run, 6)]]
    with pytest.raises(UserError, match="there is no checkpoint in"):
        verify(run.parent)


@pytest.mark.parametrize(
    ("keep", "every", "left"), [(1, None, [8]), (3, None, [4, 6, 8]), (1, 4, [4, 8])]
)
def test_the_newest_stay(run: Path, keep: int, every: int | None, left: list[int]) -> None:
    removed = prune(run, keep, every)
    assert steps(run) == left
    assert len(removed) == 4 - len(left)
    assert find_checkpoint(run) == of_step(run, 8)


def test_the_last_whole_one_stays_whatever_is_broken(run: Path) -> None:
    for step in (6, 8):
        flip(of_step(run, step) / MODEL)
    prune(run, 1, None)
    assert steps(run) == [4]
    assert open_checkpoint(run).progress.step == 4
    flip(of_step(run, 4) / MODEL)
    with pytest.raises(UserError, match="no whole checkpoint; nothing was removed"):
        prune(run, 1, None)
    assert steps(run) == [4]


def test_those_that_the_run_has_gone_back_from_do_not_count(run: Path) -> None:
    """It goes on from `latest`, which would be removed as one of the older ones."""
    point_latest(run / "checkpoints", of_step(run, 4).name)
    prune(run, 1, None)
    assert steps(run) == [4, 6, 8]
    assert find_checkpoint(run) == of_step(run, 4)
    flip(of_step(run, 6) / MODEL)
    prune(run, 1, None)
    assert steps(run) == [4, 8]
    flip(of_step(run, 4) / MODEL)
    prune(run, 1, None)
    assert find_checkpoint(run) == of_step(run, 8)


def test_an_average_is_the_mean_of_the_weights(
    tmp_path: Path, run: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    tripled = {name: 3 * value for name, value in state.model.items()}
    other = TrainingState(tripled, state.moments, 5)
    third = write(tmp_path / "other", 9, other, spec, tokenizer)
    made = open_checkpoint(average([of_step(run, 8), third], tmp_path / "mean"))
    assert made.progress.step == 9
    for name, value in made.weights().items():
        torch.testing.assert_close(value, 2 * state.model[name], rtol=1e-6, atol=1e-7)
    with pytest.raises(UserError, match="has weights and no optimizer state"):
        made.state()
    with pytest.raises(UserError, match="exists already"):
        average([third, third], tmp_path / "mean")


def test_checkpoints_of_other_models_have_no_average(
    tmp_path: Path, run: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    wider = write(tmp_path / "wider", 1, state, spec.model_copy(update={"ffn": 32}), tokenizer)
    with pytest.raises(UserError, match="models of different sizes"):
        average([run, wider], tmp_path / "mean")
    for once in ([run], [run, of_step(run, 8)]):
        with pytest.raises(UserError, match="two checkpoints or more, each once"):
            average(once, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_run_that_is_being_trained_is_not_pruned(run: Path) -> None:
    with sole_run(run), pytest.raises(UserError, match="is being trained into"):
        prune(run, 1, None)
    assert steps(run) == [2, 4, 6, 8]


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"model.safetensors": {}}', "not JSON"])
def test_a_damaged_manifest_is_a_finding(run: Path, manifest: str) -> None:
    (of_step(run, 8) / "manifest.json").write_text(manifest)
    assert "manifest.json cannot be read" in str(verify(run)[-1])
