"""Models by name: where their weights are looked for, and what is refused."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from data_pipeline.features.denseface import SHIPPED
from data_pipeline.features.device import CPU
from data_pipeline.features.face_encoder import FACE
from data_pipeline.features.speech import SPEECH
from data_pipeline.registry import ModelChoice

FOLDERS = {
    "hubert": "hubert-base",
    "wav2vec2": "wav2vec2-base",
    "whisper": "whisper-tiny.en-encoder",
}


def find_speech(name: str, source: Path, weights: Path | None = None) -> Path | None:
    return SPEECH.find(ModelChoice(name, weights), source).weights


def test_every_encoder_is_known() -> None:
    assert SPEECH.names() == ["hubert", "log-mel", "wav2vec2", "whisper"]
    assert FACE.names() == ["action-units", "denseface", "timm:MODEL"]


def test_an_own_place_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMO_WEIGHTS", str(tmp_path))
    for encoder, folder in FOLDERS.items():
        expected = f"no weights of {encoder} at {tmp_path / folder}; give them with --speech-w"
        with pytest.raises(UserError, match=expected):
            find_speech(encoder, tmp_path / "c.tar")
        (tmp_path / folder).mkdir()
        assert find_speech(encoder, tmp_path / "c.tar") == tmp_path / folder


def test_places_are_looked_at_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = tmp_path / "shared" / "weights" / "wav2vec2-base"
    at_home = tmp_path / "home" / ".cache" / "memo" / "weights" / "wav2vec2-base"
    monkeypatch.delenv("MEMO_WEIGHTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    corpus = tmp_path / "shared" / "data" / "corpus.tar"
    with pytest.raises(UserError, match=r"shared/weights/wav2vec2-base or .*home"):
        find_speech("wav2vec2", corpus)
    at_home.mkdir(parents=True)
    assert find_speech("wav2vec2", corpus) == at_home
    beside.mkdir(parents=True)
    found = find_speech("wav2vec2", corpus)
    assert found is not None
    assert found.resolve() == beside
    assert find_speech("wav2vec2", corpus, tmp_path) == tmp_path


def test_what_has_no_folder_is_not_looked_for(tmp_path: Path) -> None:
    assert find_speech("log-mel", tmp_path) is None
    with pytest.raises(UserError, match="--speech-weights: log-mel has no weights"):
        find_speech("log-mel", tmp_path, tmp_path)
    assert FACE.find(ModelChoice("denseface"), tmp_path).weights == SHIPPED
    with pytest.raises(UserError, match="--face timm:resnet18 needs --face-weights"):
        FACE.find(ModelChoice("timm:resnet18"), tmp_path)
    assert find_speech("one.of:MyOwn", tmp_path) is None
    assert find_speech("one.of:MyOwn", tmp_path, tmp_path / "w") == tmp_path / "w"


@pytest.mark.parametrize("name", ["wav2vec", "", "timm:", "my own:Class", "a:b:c", "os", "a.b:"])
def test_unknown_encoders_are_named_with_the_known_ones(name: str) -> None:
    for registry, known in (
        (SPEECH, "hubert, log-mel, wav2vec2, whisper"),
        (FACE, "action-units, denseface"),
    ):
        with pytest.raises(UserError, match=f"no encoder '{name}'; known are {known}"):
            registry.find(ModelChoice(name), Path("c.tar"))
        with pytest.raises(UserError, match=f"no encoder '{name}'; known are {known}"):
            registry.load(ModelChoice(name), CPU)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no weights of whisper at .*absent; .* --speech-weights"):
        SPEECH.load(ModelChoice("whisper", tmp_path / "absent"), CPU)
    with pytest.raises(UserError, match=r"no weights of timm:x at .*absent; .* --face-weights"):
        FACE.load(ModelChoice("timm:x", tmp_path / "absent"), CPU)


def test_two_encoders_of_one_name_are_refused() -> None:
    SPEECH.names()
    with pytest.raises(ValueError, match="two speech encoders are called 'whisper'"):
        SPEECH.register("whisper", "another")(lambda *_: pytest.fail("is never loaded"))
    with pytest.raises(ValueError, match="two face encoders are called 'timm'"):
        FACE.register_family("timm", "another")(lambda *_: pytest.fail("is never loaded"))


def test_the_members_of_a_family_are_nobodys_own() -> None:
    assert SPEECH.is_own("timm:resnet18")
    assert not FACE.is_own("timm:resnet18")
    assert FACE.is_own("timm.models:Net")
    assert not FACE.is_own("denseface")
