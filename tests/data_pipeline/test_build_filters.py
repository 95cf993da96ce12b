"""Builds that leave clips out, and what they say of it."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline import build, build_pool
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.build_report import read_report
from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.features.extract import Extractor, ExtractSettings, Part
from data_pipeline.filters import Filters
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.mixed_corpus import FILTERS, ROWS, write_corpus, write_table
from tests.data_pipeline.test_build import content


@pytest.fixture
def settings(tmp_path: Path, extract_settings: ExtractSettings) -> BuildSettings:
    root = write_corpus(tmp_path / "mine")
    return BuildSettings("table", root, tmp_path / "out", extract_settings, filters=FILTERS)


@pytest.mark.usefixtures("in_process")
def test_dropped_clips_are_named_with_value_and_threshold_and_are_not_broken(
    settings: BuildSettings,
) -> None:
    report = build_dataset(replace(settings, max_broken=1))
    train = open_dataset(settings.out).split("train")
    assert [train.read(at).key for at in range(len(train))] == ["whole", "spoken"]
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
        "min_speaker_score": None,
        "require": [],
    }
    assert set(written["filtered"]) == set(FILTERS.thresholds)
    assert set(written["filtered"].values()) == {1}
    assert (written["recordings"], report.samples) == (len(ROWS), {"train": 2, "valid": 1})
    assert "filtered: min_speech_dbfs -60" in "\n".join(report.table())


@pytest.mark.usefixtures("in_process")
def test_clips_without_what_is_required_are_dropped_for_that_reason(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    filters = Filters(1, require=("text", "face", "speech"))
    settings = replace(settings, filters=filters, max_broken=1)
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_finished", lambda *_: (_ for _ in [1 / 0]))
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    report = build_dataset(settings)
    assert report.samples == {"train": 1}
    lines = [json.loads(line) for line in (settings.out / "filtered.jsonl").open()]
    assert {line["key"]: line["filter"] for line in lines} == {
        **dict.fromkeys(("whole", "short", "long", "quiet", "terse", "text"), "require_face"),
        "spoken": "require_text",
    }
    assert report.filtered == {
        "require_text": 1,
        "min_words": 0,
        "require_face": 6,
        "require_speech": 0,
    }
    assert read_report(open_dataset(settings.out)) == report
    heard = replace(settings, filters=Filters(require=("speech",)))
    heard = replace(heard, out=settings.out.with_name("heard"))
    assert build_dataset(heard).filtered == {"require_speech": 2}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("least", "dropped"), [(1.5, []), (1.6, ["faceless"])])
def test_videos_in_which_nobody_is_identified_as_speaking_are_dropped(
    settings: BuildSettings, least: float, dropped: list[str]
) -> None:
    """The score of all faces is 1.5 here."""
    filters = Filters(min_speaker_score=least)
    report = build_dataset(replace(settings, filters=filters))
    assert report.filtered == {"min_speaker_score": len(dropped)}
    assert report.samples == {"train": len(ROWS) - 2 - len(dropped), "valid": 1}
    if dropped:
        line = json.loads((settings.out / "filtered.jsonl").read_text())
        assert line == {
            "key": "faceless", "filter": "min_speaker_score", "value": 1.5, "threshold": least,
        }  # fmt: skip


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
        build_pool,
        "ProcessPoolExecutor",
        lambda _, __, start, arguments: ThreadPoolExecutor(1, "", start, arguments),
    )
    build_dataset(settings)
    assert content(two.out) == content(settings.out)
