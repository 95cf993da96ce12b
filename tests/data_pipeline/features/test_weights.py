from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from data_pipeline.features.speech import speech_encoders
from data_pipeline.features.weights import find_speech_weights


def test_an_own_place_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMO_WEIGHTS", str(tmp_path))
    for encoder, folder in speech_encoders().items():
        expected = f"no weights of {encoder} at {tmp_path / folder}; give them"
        with pytest.raises(UserError, match=expected):
            find_speech_weights(encoder, tmp_path / "c.tar")
        (tmp_path / folder).mkdir()
        assert find_speech_weights(encoder, tmp_path / "c.tar") == tmp_path / folder


def test_places_are_looked_at_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = tmp_path / "shared" / "weights" / "wav2vec2-base"
    at_home = tmp_path / "home" / ".cache" / "memo" / "weights" / "wav2vec2-base"
    monkeypatch.delenv("MEMO_WEIGHTS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    corpus = tmp_path / "shared" / "data" / "corpus.tar"
    with pytest.raises(UserError, match=r"shared/weights/wav2vec2-base or .*home"):
        find_speech_weights("wav2vec2", corpus)
    at_home.mkdir(parents=True)
    assert find_speech_weights("wav2vec2", corpus) == at_home
    beside.mkdir(parents=True)
    assert find_speech_weights("wav2vec2", corpus).resolve() == beside


def test_unknown_encoder_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="known are wav2vec2, whisper"):
        find_speech_weights("wav2vec", Path("c.tar"))
