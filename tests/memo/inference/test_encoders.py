"""The encoders of a model are those that made its rows, and no other code is run."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from data_pipeline.features.denseface import SHIPPED, DenseFace
from data_pipeline.features.log_mel import LogMel
from data_pipeline.shards.index import file_sha256
from memo.inference import EmotionModel, load
from memo.inference.encoders import Given, GivenEncoders, load_extractor


def using(model: EmotionModel, modality: str, encoder: str, sha256: str = "0" * 64) -> EmotionModel:
    """The model, as if it used one modality alone, whose rows this encoder has made."""
    schema = getattr(model.features, modality)
    made_by = schema.model_copy(update={"encoder": encoder, "encoder_sha256": sha256})
    return replace(
        model,
        features=model.features.model_copy(update={modality: made_by}),
        task=model.task.model_copy(update={"modalities": (modality,)}),
    )


def test_encoders_are_those_that_the_model_names(exported: Path, tmp_path: Path) -> None:
    model = load(exported)
    assert not model.model.training
    with pytest.raises(UserError, match="--face: no encoder 'demo'"):
        load_extractor(model, GivenEncoders(), tmp_path)
    found = load_extractor(
        using(model, "speech", "log-mel", LogMel.sha256), GivenEncoders(), tmp_path
    )
    assert (found.face, type(found.speech)) == (None, LogMel)
    shipped = using(model, "face", "denseface", file_sha256(SHIPPED))
    assert isinstance(load_extractor(shipped, GivenEncoders(), tmp_path).face, DenseFace)
    given = GivenEncoders(face=Given(weights=tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match=r"no weights of denseface at .*none\.safetensors"):
        load_extractor(shipped, given, tmp_path)


@pytest.mark.parametrize(
    ("modality", "encoder", "given", "message"),
    [
        ("face", "denseface", GivenEncoders(), "the face encoder's weights have the sha256"),
        ("speech", "log-mel", GivenEncoders(), "the speech encoder's weights have the sha256"),
        ("face", "timm:resnet18", GivenEncoders(), "timm:resnet18 needs --face-weights"),
        (
            "speech",
            "whisper",
            GivenEncoders(speech=Given("log-mel")),
            "--speech log-mel: the model's speech rows were made by 'whisper'; no other",
        ),
    ],
)
def test_encoders_other_than_the_models_are_refused(
    exported: Path, tmp_path: Path, modality: str, encoder: str, given: GivenEncoders, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_extractor(using(load(exported), modality, encoder), given, tmp_path)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("face", GivenEncoders(face=Given(weights=Path("w")))),
        ("speech", GivenEncoders(speech=Given(weights=Path("w")))),
        ("detector", GivenEncoders(detector_weights=Path("w"))),
        ("face", GivenEncoders(face=Given("denseface"))),
    ],
)
def test_encoders_of_a_modality_that_the_task_does_not_use_are_refused(
    exported: Path, tmp_path: Path, option: str, given: GivenEncoders
) -> None:
    model = load(exported)
    model = replace(model, task=model.task.model_copy(update={"modalities": ("text",)}))
    with pytest.raises(
        UserError, match=f"^--{option}(-weights)?: the model uses text; leave it out"
    ):
        load_extractor(model, given, tmp_path)


def test_code_that_a_models_file_names_is_run_only_if_the_user_names_it_too(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = (
        "class Mine:\n    def __init__(self, weights, device): pass\nopen('run', 'w').close()\n"
    )
    (tmp_path / "of_somebody.py").write_text(written)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    model = using(load(exported), "speech", "of_somebody:Mine")
    allowed = r"'of_somebody:Mine', a class that is no .*; --speech of_somebody:Mine allows its"
    with pytest.raises(UserError, match=allowed):
        load_extractor(model, GivenEncoders(), tmp_path)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="it lacks the attribute dim"):
        load_extractor(model, GivenEncoders(speech=Given("of_somebody:Mine")), tmp_path)
    assert (tmp_path / "run").exists()


def test_the_detector_that_found_the_faces_is_asked_for(exported: Path, tmp_path: Path) -> None:
    model = load(exported)
    assert isinstance(model, EmotionModel)
    assert model.features.face is not None
    found = {"detector": "yunet", "detector_sha256": "0" * 64}
    face = model.features.face.model_copy(update=found)
    looked = replace(model, features=model.features.model_copy(update={"face": face}))
    with pytest.raises(UserError, match=r"found by yunet, .* give it with --detector-weights"):
        load_extractor(looked, GivenEncoders(), tmp_path)
