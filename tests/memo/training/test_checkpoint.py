import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_pipeline.errors import UserError
from data_pipeline.order import StreamState
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema
from memo.config import ModelSpec, PretrainConfig
from memo.objectives.pretraining_model import PretrainingModel
from memo.tokenizer import Tokenizer
from memo.training import saving
from memo.training.checkpoint import (
    Progress,
    check_encoders,
    find_checkpoint,
    load_model,
    open_checkpoint,
)
from memo.training.state import TrainingState
from tests.memo.training.small_checkpoint import CONFIG, FEATURES, write


def test_what_is_written_is_read(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    folder = write(tmp_path, 7, state, spec, tokenizer)
    found = open_checkpoint(folder)
    assert found.progress == Progress(7, 700, StreamState(1234, 2, 7, "f" * 64))
    assert (found.config, found.spec, found.updates) == (CONFIG, spec, 5)
    assert found.features == FEATURES
    assert found.tokenizer().fingerprint == tokenizer.fingerprint
    again = found.state()
    for ours, theirs in ((again.model, state.model), (again.moments, state.moments)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_model_of_a_run_is_rebuilt(
    tmp_path: Path,
    model: PretrainingModel,
    state: TrainingState,
    spec: ModelSpec,
    tokenizer: Tokenizer,
) -> None:
    write(tmp_path / "checkpoints", 7, state, spec, tokenizer)
    rebuilt, _ = load_model(open_checkpoint(tmp_path))
    weights = rebuilt.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_run_its_checkpoints_and_one_of_them_mean_the_latest(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    root = tmp_path / "checkpoints"
    for step in (1, 2):
        folder = write(root, step, state, spec, tokenizer)
    assert find_checkpoint(tmp_path) == find_checkpoint(root) == find_checkpoint(folder) == folder
    with pytest.raises(UserError, match="there is no checkpoint in"):
        find_checkpoint(tmp_path / "elsewhere")


@pytest.mark.parametrize("content", [b"", b"\n", b"step-00000009\n", b"\xff\xfe", b"\0" * 14])
def test_a_latest_that_names_nothing_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_bytes(content)
    with pytest.raises(UserError, match=r"latest names '.*', which is no checkpoint there") as said:
        find_checkpoint(tmp_path)
    assert str(said.value).isprintable()


def test_the_newest_are_kept_and_leftovers_go(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    (tmp_path / "step-00000001.tmp").mkdir()
    for step in (2, 4, 6):
        write(tmp_path, step, state, spec, tokenizer)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["latest", "step-00000004", "step-00000006"]


def test_some_of_the_older_ones_are_kept_where_asked_for(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    config = PretrainConfig(keep_checkpoints=1, keep_every=4)
    for step in (2, 4, 6, 8, 10, 11):
        write(tmp_path, step, state, spec, tokenizer, config)
    names = sorted(int(path.name[-2:]) for path in tmp_path.glob("step-*"))
    assert names == [4, 8, 11]


def test_what_a_resumed_run_writes_outlives_the_later_ones_of_the_run_before(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    for step in (5, 6, 1, 2, 3):
        write(tmp_path, step, state, spec, tokenizer)
        assert find_checkpoint(tmp_path) == tmp_path / f"step-{step:08d}"
        assert open_checkpoint(tmp_path).progress.step == step
    steps = [int(path.name[-1]) for path in sorted(tmp_path.glob("step-*"))]
    assert steps == [2, 3, 5, 6]


def test_what_a_run_that_went_back_has_passed_is_none_of_its_own(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    """A loss spike could send it to the weights that it has left."""
    every = PretrainConfig(keep_checkpoints=None)
    for step in (2, 4, 6):
        write(tmp_path, step, state, spec, tokenizer, every)
    saving.point_latest(tmp_path, "step-00000002")
    write(tmp_path, 5, state, spec, tokenizer, every)
    assert list(saving.folders_by_step(tmp_path)) == [2, 5, 6]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_file_is_named(
    tmp_path: Path,
    state: TrainingState,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    name: str,
    damage: str,
) -> None:
    path = write(tmp_path, 1, state, spec, tokenizer) / name
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(UserError, match=name) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "memo-checkpoint/2"}, "has the format 'memo-checkpoint/2', not"),
        (
            {"spec": {"width": 3}},
            r"state\.json cannot be used \(ValidationError: .*another version",
        ),
        ({"features": None}, r"state\.json cannot be used \(ValidationError: "),
        ({"progress": {}}, r"state\.json cannot be used \(KeyError: 'step'\)"),
        ({"progress": 1}, r"state\.json cannot be used \((Attribute|Type)Error: "),
        ({"config": {"pace": 1}}, "unknown key 'pace'"),
    ],
)
def test_a_record_of_another_version_is_said(
    tmp_path: Path,
    state: TrainingState,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    changes: dict[str, object],
    message: str,
) -> None:
    folder = write(tmp_path, 1, state, spec, tokenizer)
    record = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(record | changes))
    (folder / "manifest.json").unlink()
    saving._write_manifest(folder)
    with pytest.raises(UserError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_crash_while_writing_leaves_the_one_before(
    tmp_path: Path,
    state: TrainingState,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path, 1, state, spec, tokenizer)

    def full_disk(folder: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(saving, "_write_manifest", full_disk)
    with pytest.raises(UserError, match="cannot be written: no space left"):
        write(tmp_path, 2, state, spec, tokenizer)
    assert open_checkpoint(tmp_path).progress.step == 1
    assert not (tmp_path / "step-00000002").exists()


def test_weights_that_are_not_finite_are_not_written(
    tmp_path: Path, state: TrainingState, spec: ModelSpec, tokenizer: Tokenizer
) -> None:
    write(tmp_path, 1, state, spec, tokenizer)
    name = next(iter(state.model))
    broken = {**state.model, name: torch.full_like(state.model[name], torch.nan)}
    with pytest.raises(UserError, match=name):
        write(tmp_path, 2, TrainingState(broken, state.moments, 6), spec, tokenizer)
    assert open_checkpoint(tmp_path).progress.step == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder_sha256": "1"}, "face rows have encoder_sha256=1, .* trained on 0"),
        ({"fps": 25.0}, "face rows have fps=25.0, .* trained on 10.0"),
        ({"detector": None, "detector_sha256": None}, "have detector=None, .* trained on yunet"),
        ({"detector_sha256": "3"}, "have detector_sha256=3, .* trained on 2; .* same .*detector"),
    ],
)
def test_rows_of_another_kind_than_the_models_are_refused(
    tmp_path: Path,
    state: TrainingState,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    changed: dict[str, object],
    message: str,
) -> None:
    found = {"detector": "yunet", "detector_sha256": "2", "mean": (0.0,) * 4, "std": (1.0,) * 4}
    face = FaceSchema(dim=4, encoder="e", encoder_sha256="0", fps=10, classes=("a",), **found)
    trained = FeatureSchema(face=face)
    checkpoint = replace(
        open_checkpoint(write(tmp_path, 7, state, spec, tokenizer)), features=trained
    )
    others = face.model_copy(update={"mean": (2.0,) * 4, "std": (3.0,) * 4})
    check_encoders(checkpoint, FeatureSchema(face=others), tmp_path, ("face", "speech"))
    other = FeatureSchema(face=others.model_copy(update=changed))
    check_encoders(checkpoint, other, tmp_path, ("speech",))
    with pytest.raises(UserError, match=message):
        check_encoders(checkpoint, other, tmp_path, ("face", "speech"))
