"""Builds that leave clips out, and what they say of it."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import build
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.features.extract import Extractor, ExtractSettings, Part
from data_pipeline.filters import Filters
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.features.media import make_sound, make_video
from tests.data_pipeline.test_build import content

FILTERS = Filters(2, 0.2, 1.0, -60.0, 0.8)
ROWS = (
    ("whole", "one two three", "whole.wav"),
    ("short", "one two", "short.wav"),
    ("long", "one two", "long.wav"),
    ("quiet", "one two", "quiet.wav"),
    ("faceless", "one two", "faceless.mp4"),
    ("terse", "one", ""),
    ("broken", "one two", "broken.wav"),
    ("text", "one two", ""),
    ("spoken", "", "spoken.wav"),
)


def noise(length_s: float, level: float = 0.1) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    samples = np.random.default_rng(0).normal(0, level, round(16_000 * length_s))
    return samples.astype(np.float32)


def write_table(root: Path, rows: tuple[tuple[str, str, str], ...]) -> None:
    lines = ["key,text,media", *(",".join(row) for row in rows)]
    (root / "clips.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def settings(tmp_path: Path, extract_settings: ExtractSettings) -> BuildSettings:
    root = tmp_path / "mine"
    root.mkdir()
    write_table(root, ROWS)
    lengths = {"whole": 0.4, "short": 0.1, "long": 1.2, "spoken": 0.4}
    for name, length_s in lengths.items():
        (root / f"{name}.wav").write_bytes(make_sound(noise(length_s)))
    (root / "quiet.wav").write_bytes(make_sound(noise(0.4, 1e-4)))
    (root / "broken.wav").write_bytes(b"no sound")
    # No face is found in the first of four frames.
    (root / "faceless.mp4").write_bytes(make_video(range(0, 400, 40), [9] * 10, noise(0.4)))
    return BuildSettings("table", root, tmp_path / "out", extract_settings, filters=FILTERS)


@pytest.mark.usefixtures("in_process")
def test_dropped_clips_are_named_with_value_and_threshold_and_are_not_broken(
    settings: BuildSettings,
) -> None:
    report = build_dataset(replace(settings, max_broken=1))
    train = open_dataset(settings.out).split("train")
    assert [train.read(at).key for at in range(len(train))] == ["whole", "text", "spoken"]
    lines = [json.loads(line) for line in (settings.out / "filtered.jsonl").open()]
    assert [(line["key"], line["filter"], line["threshold"]) for line in lines] == [
        ("short", "min_duration_s", 0.2),
        ("long", "max_duration_s", 1.0),
        ("quiet", "min_speech_dbfs", -60.0),
        ("faceless", "min_face_share", 0.8),
        ("terse", "min_words", 2),
    ]
    assert [line["value"] for line in lines] == pytest.approx([0.1, 1.2, -80, 0.75, 1], abs=0.2)
    (quarantined,) = (settings.out / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(quarantined)["key"] == "broken"
    written = json.loads((settings.out / "build_report.json").read_text())
    assert written["filters"] == {
        "min_words": 2,
        "min_duration_s": 0.2,
        "max_duration_s": 1.0,
        "min_speech_dbfs": -60.0,
        "min_face_share": 0.8,
    }
    assert set(written["filtered"]) == set(written["filters"])
    assert set(written["filtered"].values()) == {1}
    assert (written["recordings"], report.samples) == (len(ROWS), {"train": 3})
    assert "filtered: min_speech_dbfs -60" in "\n".join(report.table())


@pytest.mark.usefixtures("in_process")
def test_what_a_filter_drops_by_its_sound_is_not_encoded_nor_decoded_again(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, encoded = Extractor.clip, []

    def counted(self: Extractor, recording: Recording, part: Part | None) -> Clip:
        encoded.append(recording.key)
        return encode(self, recording, part)

    monkeypatch.setattr(Extractor, "clip", counted)
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_finished", lambda *_: (_ for _ in [1 / 0]))
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    assert sorted(encoded) == ["faceless", "spoken", "whole"]
    build_dataset(settings)
    assert len(encoded) == 3
    whole = replace(settings, out=settings.out.with_name("whole"))
    build_dataset(whole)
    assert content(whole.out) == content(settings.out)


@pytest.mark.usefixtures("in_process")
def test_a_corrected_text_is_judged_anew_and_other_thresholds_are_refused(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_finished", lambda *_: (_ for _ in [1 / 0]))
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    with pytest.raises(UserError, match="left by a build with other settings"):
        build_dataset(replace(settings, filters=Filters(3)))
    write_table(settings.source, (("whole", "one", "whole.wav"), *ROWS[1:]))
    assert build_dataset(settings).filtered["min_words"] == 2


@pytest.mark.usefixtures("in_process")
def test_thresholds_that_no_clip_passes_are_said(settings: BuildSettings) -> None:
    with pytest.raises(UserError, match="can be used: 9 are filtered out, 0 are broken"):
        build_dataset(replace(settings, filters=Filters(4, max_duration_s=0.01)))
    assert not settings.out.exists()


@pytest.mark.slow
def test_two_processes_drop_what_one_thread_drops(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(settings, workers=2, out=settings.out.with_name("two"))
    build_dataset(two)
    monkeypatch.setattr(
        build,
        "ProcessPoolExecutor",
        lambda _, __, start, arguments: ThreadPoolExecutor(1, "", start, arguments),
    )
    build_dataset(settings)
    assert content(two.out) == content(settings.out)
