import json
import math
import os
import re
import shutil
import socket
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline import build, build_pool
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.build_pool import KILLED, BuildPool
from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.features.extract import Extractor, ExtractSettings, Part
from data_pipeline.filters import Filters
from data_pipeline.kept import MADE_BY
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.features.extracted import clip_of
from tests.data_pipeline.features.media import make_sound, make_video
from tests.data_pipeline.features.onnx_file import write_yunet
from tests.room import room_for

CLIPS = 9


def write_clip(path: Path, seed: int) -> None:
    """0.4 s of grey pictures and noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.1, 6400).astype(np.float32)
    path.write_bytes(make_video(range(0, 400, 40), list(rng.integers(0, 256, 10)), noise))


@pytest.fixture
def settings(tmp_path: Path, extract_settings: ExtractSettings) -> BuildSettings:
    """Of a corpus in GRID's layout."""
    root = tmp_path / "grid_s3"
    (root / "clips").mkdir(parents=True)
    lines = ["clip\ttext\tword_times_s"]
    for number in range(CLIPS):
        write_clip(root / "clips" / f"c{number}.mp4", number)
        lines.append(f"c{number}\tbin blue\tsil:0.00-0.10 bin:0.10-0.20 blue:0.20-0.36")
    (root / "transcripts.tsv").write_text("\n".join(lines) + "\n")
    return BuildSettings("grid", root, tmp_path / "out", extract_settings, samples_per_shard=5)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("in_process")
def test_dataset_holds_every_clip_with_its_features(settings: BuildSettings) -> None:
    result = build_dataset(settings)
    assert (result.samples, result.quarantined) == ({"train": 8, "valid": 1}, 0)
    dataset = open_dataset(settings.out)
    train = dataset.split("train")
    assert list(train.shard_sizes) == [5, 3]
    clips = [train.read(at) for at in range(8)] + [dataset.split("valid").read(0)]
    assert sorted(clip.key for clip in clips) == [f"c{number}" for number in range(CLIPS)]
    extractor = Extractor.load(settings.extract)
    for clip in clips:
        assert (clip.text, clip.speaker, clip.words[1].text) == ("bin blue", "s3", "blue")
        assert clip.face is not None
        assert clip.expression is not None
        assert clip.speech is not None
        assert (clip.face.shape, clip.expression.shape) == ((4, 342), (4, 2))
        assert not clip.face[0].any()  # no face was found in the first frame
        assert not clip.expression[0].any()
        np.testing.assert_allclose(clip.expression[1:].sum(axis=1), 1, atol=2e-3)
        media = (settings.source / "clips" / f"{clip.key}.mp4").read_bytes()
        again = clip_of(extractor, Recording(clip.key, "train", "x.mp4"), media)
        assert again.speech is not None
        np.testing.assert_allclose(clip.speech, again.speech, atol=2e-3)
        assert len(clip.speech) == math.ceil((clip.duration_s * 16_000 - 80) // 320 / 3)
    assert not settings.out.with_name("out.partial").exists()


@pytest.mark.usefixtures("in_process")
def test_a_build_that_is_stopped_while_it_tidies_up_has_ended(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, remove = settings.out.with_name("out.partial"), shutil.rmtree

    def stopped(path: Path, ignore_errors: bool = False) -> None:
        if path == work:
            raise KeyboardInterrupt
        remove(path, ignore_errors)

    def made_again(*_: object) -> Clip:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(settings)
    written = content(settings.out)
    assert {one.name for one in work.iterdir()} == {MADE_BY}
    with monkeypatch.context() as patched:
        patched.setattr(Extractor, "clip", made_again)
        assert build_dataset(settings).samples == {"train": 8, "valid": 1}
    assert content(settings.out) == written
    assert not work.exists()
    with pytest.raises(UserError, match="exists already"):
        build_dataset(settings)


@pytest.mark.usefixtures("in_process")
def test_a_folder_that_another_build_has_written_is_left_alone(settings: BuildSettings) -> None:
    build_dataset(settings)
    written = content(settings.out)
    other = replace(settings, out=settings.out.with_name("other"), filters=Filters(1))
    work = build._open_work_folder(  # left by a killed build
        other, build.feature_schema(Extractor.load(settings.extract)), ()
    )
    settings.out.rename(other.out)
    with pytest.raises(UserError, match="other exists already"):
        build_dataset(other)
    assert content(other.out) == written
    assert work.exists()


@pytest.mark.usefixtures("in_process")
def test_a_killed_build_goes_on_and_gives_the_same_bytes(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_dataset(settings)
    killed = replace(settings, out=settings.out.with_name("killed"))
    clips = killed.out.with_name("killed.partial") / "clips"
    encoded: list[str] = []
    encode = Extractor.clip

    def dies_at_the_fourth(self: Extractor, recording: Recording, part: Part | None) -> Clip:
        encoded.append(recording.key)
        if len(encoded) == 4:
            raise KeyboardInterrupt
        return encode(self, recording, part)

    monkeypatch.setattr(Extractor, "clip", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(killed)
    assert not killed.out.exists()
    (clips / "0123.tar.77.tmp").write_bytes(b"half a clip")
    done = len(list(clips.glob("*.tar")))
    assert 3 <= done < CLIPS
    del encoded[:]
    encoded.extend(["already"] * 4)
    build_dataset(killed)
    assert len(encoded) - 4 == CLIPS - done
    assert content(killed.out) == content(settings.out)


@pytest.mark.usefixtures("in_process")
def test_a_folder_is_of_one_build_at_a_time(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second start, of whatever settings, leaves the marks and clips of the first alone."""
    work = settings.out.with_name("out.partial")
    extract_missing = build._extract_missing
    tried: list[str] = []

    def started_again(*given: Any) -> None:  # noqa: ANN401
        if not tried:
            marks = work / "at_work" / "mark"
            marks.touch()
            for again in (settings, replace(settings, filters=Filters(1))):
                with pytest.raises(UserError) as caught:
                    build_dataset(again)
                tried.append(str(caught.value))
            assert marks.exists()
        extract_missing(*given)

    monkeypatch.setattr(build, "_extract_missing", started_again)
    assert build_dataset(settings).samples == {"train": 8, "valid": 1}
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    message = f"{settings.out} is being built by {holder}; wait for it, or give another --out"
    assert tried == [message] * 2
    assert not work.exists()


@pytest.mark.usefixtures("in_process")
def test_a_full_disk_ends_the_build_with_a_line_and_what_is_done_is_kept(
    settings: BuildSettings,
) -> None:
    work = settings.out.with_name("out.partial")
    with room_for(9000), pytest.raises(UserError) as caught:  # less than any tar has
        build_dataset(settings)
    said = re.fullmatch(
        rf"{work}/clips/\w+\.tar: File too large; what is done is kept in {work}: once that is "
        "mended, run the same command again",
        str(caught.value),
    )
    assert said
    assert list((work / "clips").iterdir()) == []
    assert build_dataset(settings).samples == {"train": 8, "valid": 1}


@pytest.mark.usefixtures("in_process")
def test_broken_recording_is_named_and_left_out(settings: BuildSettings) -> None:
    (settings.source / "clips" / "c3.mp4").write_bytes(b"this is no video")
    result = build_dataset(settings)
    assert result.quarantined == 1
    assert sum(result.samples.values()) == CLIPS - 1
    named = [json.loads(line) for line in (settings.out / "quarantine.jsonl").open()]
    assert [(line["key"], line["member"]) for line in named] == [("c3", "clips/c3.mp4")]
    assert "cannot be decoded" in named[0]["reason"]
    report = json.loads((settings.out / "build_report.json").read_text())
    assert report == result.model_dump(mode="json")
    assert (report["recordings"], report["samples"]) == (CLIPS, result.samples)
    assert report["broken"] == {"the sound cannot be decoded": 1}
    assert report["missing"] == {"text": 0, "face": 0, "speech": 0}
    assert report["seconds"] == {"train": 3.584}


@pytest.mark.usefixtures("in_process")
def test_a_file_that_kills_its_process_is_broken(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = BuildPool.results

    def none_of_c3(self: BuildPool, do: Any, files: Any) -> Iterator[Any]:  # noqa: ANN401
        for file, found in results(self, do, files):
            yield file, None if file[0].key == "c3" else found

    monkeypatch.setattr(BuildPool, "results", none_of_c3)
    (settings.source / "clips" / "c3.mp4").write_bytes(b"")
    report = build_dataset(settings)
    assert sum(report.samples.values()) == CLIPS - 1
    assert report.broken == {KILLED: 1}


@pytest.mark.usefixtures("in_process")
def test_a_corpus_of_broken_recordings_is_refused(settings: BuildSettings) -> None:
    for path in (settings.source / "clips").iterdir():
        path.write_bytes(b"this is no video")
    with pytest.raises(UserError, match=r"no recording of .* can be used"):
        build_dataset(settings)
    with pytest.raises(UserError, match="more than 3 files cannot be used"):
        build_dataset(replace(settings, max_broken=3))
    assert not settings.out.exists()


@pytest.mark.usefixtures("in_process")
def test_existing_output_and_a_partial_build_of_other_settings_are_refused(
    settings: BuildSettings,
) -> None:
    partial = settings.out.with_name("out.partial")
    partial.mkdir()
    (partial / "made_by.json").write_text("{}")
    with pytest.raises(UserError, match="left by a build with other settings"):
        build_dataset(settings)
    settings.out.mkdir()
    with pytest.raises(UserError, match="out exists already"):
        build_dataset(settings)


@pytest.mark.parametrize("place", ["out", "clips/out.parts/1-of-2", "../link/out"])
def test_a_dataset_inside_what_it_is_made_of_is_refused(
    settings: BuildSettings, tmp_path: Path, place: str
) -> None:
    (tmp_path / "link").symlink_to(settings.source)
    before = sorted(tmp_path.rglob("*"))
    out = settings.source / place
    with pytest.raises(
        UserError, match=rf"^--out: {out} is in {settings.source}, .* part of --source; give"
    ):
        build_dataset(replace(settings, out=out))
    elsewhere = replace(settings, source=tmp_path / "grid_s3.tar", corpus="videos")
    texts = replace(elsewhere, options={"transcripts": settings.source}, out=out)
    with pytest.raises(UserError, match="taken for a part of --transcripts"):
        build_dataset(texts)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("in_process")
def test_a_file_that_has_come_since_a_build_ended_does_not_make_it_another(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = replace(settings.extract, face=None)
    settings = replace(settings, corpus="videos", extract=sound)
    with monkeypatch.context() as patched:
        patched.setattr(build, "remove_work", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    (settings.source / "job.log").touch()
    assert build_dataset(settings).samples == {"train": CLIPS}
    assert not settings.out.with_name("out.partial").exists()


def korean_corpus(root: Path, files: list[str], labels: list[str]) -> Path:
    """Files of noise with these labels."""
    lines = ["wav\tpart\tspeaker\temotion\tdur_s\tsr\ttext"]
    for seed, (name, label) in enumerate(zip(files, labels, strict=True)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).normal(0, 0.1, 6400).astype(np.float32)
        path.write_bytes(make_sound(noise))
        lines.append(f"{name}\tEmotional\ts\t{label}\t1\t16000\ttext of {name}")
    (root / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.usefixtures("in_process")
def test_keys_that_cannot_be_are_refused_before_anything_is_encoded(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(build, "extract")
    settings = replace(settings, corpus="korean_speech")
    twice = korean_corpus(tmp_path / "twice", ["a/1.wav", "b/1.wav"], ["joy"] * 2)
    with pytest.raises(UserError, match=r"a/1\.wav and b/1\.wav would both be clip '1'"):
        build_dataset(replace(settings, source=twice))
    dotted = korean_corpus(tmp_path / "dotted", ["a.b.wav"], ["joy"])
    with pytest.raises(UserError, match=r"a\.b\.wav: 'a\.b' cannot be a clip's key"):
        build_dataset(replace(settings, source=dotted))
    with pytest.raises(UserError, match=r"--name: '\.\./x'; a name has letters"):
        build_dataset(replace(settings, source=dotted, name="../x"))


def stopped_build(
    settings: BuildSettings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> BuildSettings:
    """Of Korean speech, stopped when every clip was made; its settings."""
    sound = replace(settings.extract, face=None)
    settings = replace(settings, corpus="korean_speech", source=root, extract=sound)
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_finished", lambda *_: (_ for _ in [1 / 0]))
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    return settings


@pytest.mark.usefixtures("in_process")
def test_what_the_corpus_says_may_be_corrected_between_stop_and_resume(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["c1.wav", "c2.wav"]
    root = korean_corpus(tmp_path / "k", names, ["joy", "joy"])
    settings = stopped_build(settings, root, monkeypatch)
    korean_corpus(root, names, ["anger", "joy"])
    build_dataset(settings)
    train = open_dataset(settings.out).split("train")
    assert [train.read(at).labels["emotion"] for at in range(2)] == ["anger", "joy"]


@pytest.mark.usefixtures("in_process")
def test_a_file_that_is_replaced_between_stop_and_resume_is_made_anew(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = korean_corpus(tmp_path / "k", ["c1.wav", "c2.wav"], ["joy", "joy"])
    settings = stopped_build(settings, root, monkeypatch)
    noise = np.random.default_rng(2).normal(0, 0.1, 12800).astype(np.float32)
    (root / "c1.wav").write_bytes(make_sound(noise))
    extracted: list[str] = []
    made = Extractor.clip

    def noted(self: Extractor, recording: Recording, *parts: Any) -> Clip:  # noqa: ANN401
        extracted.append(recording.key)
        return made(self, recording, *parts)

    monkeypatch.setattr(Extractor, "clip", noted)
    build_dataset(settings)
    train = open_dataset(settings.out).split("train")
    assert [train.read(at).duration_s for at in range(2)] == [0.8, 0.4]
    assert extracted == ["c1"]
    anew = replace(settings, out=settings.out.with_name("anew"))
    build_dataset(anew)
    assert content(anew.out) == content(settings.out)


@pytest.mark.usefixtures("in_process")
def test_rows_that_are_not_finite_are_quarantined(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of = Extractor._speech_rows
    clips: list[int] = []

    def sometimes_infinite(self: Extractor, sound: NDArray[np.float32]) -> Any:  # noqa: ANN401
        rows = rows_of(self, sound)
        clips.append(len(clips))
        return rows if len(clips) != 2 or rows is None else rows * np.float16(np.inf)

    monkeypatch.setattr(Extractor, "_speech_rows", sometimes_infinite)
    result = build_dataset(settings)
    assert (sum(result.samples.values()), result.quarantined) == (CLIPS - 1, 1)
    (line,) = (settings.out / "quarantine.jsonl").read_text().splitlines()
    assert "speech rows are not finite in float16" in line


@pytest.mark.usefixtures("in_process")
def test_a_compressed_archive_gives_the_bytes_of_the_folder(
    settings: BuildSettings, tmp_path: Path
) -> None:
    build_dataset(settings)
    archive = tmp_path / "grid_s3.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(settings.source, "./grid_s3")
    packed = replace(settings, source=archive, out=settings.out.with_name("packed"))
    build_dataset(packed)
    assert content(packed.out) == content(settings.out)


@pytest.mark.slow
def test_processes_give_the_bytes_of_one_thread(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel = replace(settings, out=settings.out.with_name("parallel"), workers=3)
    build_dataset(parallel)
    train = open_dataset(parallel.out).split("train")
    assert train.read(0).face is None  # nothing in grey pictures looks like a face
    assert train.read(0).speech is not None
    monkeypatch.setattr(
        build_pool,
        "ProcessPoolExecutor",
        lambda _, __, start, arguments: ThreadPoolExecutor(1, "", start, arguments),
    )
    build_dataset(settings)
    assert content(parallel.out) == content(settings.out)


def test_a_detectors_file_finds_the_faces_and_is_recorded(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "yunet.onnx").write_bytes(write_yunet([1, 1, 0, 0], [1] * 10))
    extractor = replace(settings.extract, detector_weights=tmp_path / "yunet.onnx")
    looked = replace(settings, extract=extractor)
    monkeypatch.setattr(build, "_extract_missing", lambda *_: 1 / 0)
    for one in (settings, replace(looked, out=tmp_path / "other")):
        with pytest.raises(ZeroDivisionError):  # so far it is left as if it were killed
            build_dataset(one)
    with pytest.raises(UserError, match="left by a build with other settings"):
        build_dataset(looked)
    monkeypatch.undo()
    assert "detector_sha256" not in (tmp_path / "out.partial" / "made_by.json").read_text()
    net = Extractor.load(extractor)
    face = build.feature_schema(net).face
    assert face is not None
    assert (face.detector, face.detector_sha256) == ("yunet", net.detector.sha256)
    white = np.full((5, 96, 96), 255, np.uint8)
    assert net.encode(Clip("k"), None, white).face is not None
    assert Extractor.load(settings.extract).encode(Clip("k"), None, white).face is None


@pytest.mark.usefixtures("one_thread")
def test_pictures_that_are_faces_count_as_found_by_the_detector_that_is_named(
    settings: BuildSettings, tmp_path: Path
) -> None:
    root, yunet = tmp_path / "fer2013", tmp_path / "yunet.onnx"
    (root / "train" / "sad").mkdir(parents=True)
    cv2.imwrite(str(root / "train" / "sad" / "1.jpg"), np.full((48, 48), 99, np.uint8))
    yunet.write_bytes(write_yunet([1, 1, 0, 0], [1] * 10))
    pictures = replace(settings.extract, speech=None)
    plain = replace(settings, corpus="fer2013", source=root, extract=pictures)
    named = replace(plain, extract=replace(plain.extract, detector_weights=yunet))
    rows = []
    for one, sha256 in ((plain, None), (replace(named, out=tmp_path / "n"), file_sha256(yunet))):
        build_dataset(one)
        dataset = open_dataset(one.out)
        assert dataset.info.features.face is not None
        assert dataset.info.features.face.detector_sha256 == sha256
        rows.append(dataset.split("train").read(0).face)
    assert rows[0] is not None
    np.testing.assert_array_equal(rows[0], rows[1])


def test_a_detectors_file_that_is_none_is_refused_before_anything_is_built(
    settings: BuildSettings, tmp_path: Path
) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"<html>")
    extractor = replace(settings.extract, detector_weights=tmp_path / "yunet.onnx")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"yunet\.onnx is no YuNet"):
        build_dataset(replace(settings, extract=extractor))
    assert sorted(tmp_path.iterdir()) == before
