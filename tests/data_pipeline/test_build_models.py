"""Weights of what a corpus does not have are a user's mistake; of what it may have not."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.build_models import find_encoders, find_transcribers
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.features.denseface import SHIPPED
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.transcriber import TranscribeSettings
from memo.cli import main

W = Path("w")
NAMED = ExtractSettings(ModelChoice("timm:resnet18", W), ModelChoice("hubert", W), 10.0, W)
PLAIN = ExtractSettings(ModelChoice("denseface"), ModelChoice("hubert"))
BOTH = TranscribeSettings(ModelChoice("whisper", W), ModelChoice("ctc", W))


def corpus(*media: str | None, aligned: bool = False) -> list[Recording]:
    return [Recording(f"k{at}", "train", one, aligned_face=aligned) for at, one in enumerate(media)]


SOUNDS = corpus("a.wav", "b.MP3", None)
PICTURES = corpus("a.jpg", "b.jpg", aligned=True)
TEXTS = corpus(None, None)


@pytest.mark.parametrize("media", ["a.mp4", "a.MKV", "a", "a.wav.avi"])
def test_where_one_file_may_be_a_video_all_weights_may_be_named(media: str) -> None:
    recordings = corpus("b.wav", media, None)
    assert find_encoders(NAMED, recordings, Path("c")) == NAMED
    assert find_transcribers(BOTH, recordings, Path("c")) == BOTH


def test_pictures_of_faces_take_a_detectors_file_for_their_dataset_names_it() -> None:
    found = find_encoders(replace(NAMED, speech=None), PICTURES, Path("c"))
    assert (found.detector_weights, found.face) == (W, NAMED.face)


def test_what_cannot_be_encoded_needs_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMO_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="no weights of hubert at"):
        find_encoders(PLAIN, SOUNDS, Path("c"))
    shipped = ModelChoice("denseface", SHIPPED)
    found = find_encoders(PLAIN, PICTURES, Path("c"))
    assert (found.face, found.speech) == (shipped, None)
    found = find_encoders(PLAIN, TEXTS, Path("c"))
    assert (found.face, found.speech) == (None, None)


@pytest.mark.parametrize(
    ("recordings", "options", "lacks", "what"),
    [
        ("a.wav", ["--detector-weights", "w"], "video", "it"),
        ("a.wav", ["--face-weights", "w"], "video", "--face and its weights"),
        ("a.wav", ["--face", "timm:resnet18", "--face-weights", "w"], "video", "--face and its"),
        ("", ["--detector-weights", "w"], "video", "it"),
        ("", ["--face-weights", "w"], "video", "--face and its weights"),
        ("", ["--speech-weights", "w"], "sound", "--speech and its weights"),
        ("", ["--align", "ctc", "--align-weights", "w"], "sound", "--align and its weights"),
        (
            "",
            ["--recognise", "whisper", "--recognise-weights", "w"],
            "sound",
            "--recognise and its weights",
        ),
    ],
)
def test_weights_of_what_there_is_not_end_the_command_in_one_line(
    recordings: str,
    options: list[str],
    lacks: str,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / "mine", tmp_path / "out"
    source.mkdir()
    (source / "a.wav").write_bytes(b"not looked at")
    (source / "clips.csv").write_text(f"key,text,media\na,one,{recordings}\nb,two,\n")
    command = ["memo", "data", "build", "table", "--source", str(source), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"memo: {options[-2]}: {source} has no {lacks}; leave {what}")
    assert line.endswith(" out")
    assert "\n" not in line
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_pictures_are_silent() -> None:
    with pytest.raises(UserError, match=r"^--speech-weights: c has no sound; leave --speech and"):
        find_encoders(NAMED, PICTURES, Path("c"))
    with pytest.raises(UserError, match=r"^--recognise-weights: c has no sound"):
        find_transcribers(BOTH, PICTURES, Path("c"))
    assert find_transcribers(replace(BOTH, recognise=None, align=None), PICTURES, Path("c")) == (
        TranscribeSettings()
    )
