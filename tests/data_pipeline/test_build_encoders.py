"""Builds by encoders other than the usual ones, and what they leave in the dataset."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data_pipeline import cpu_torch
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.features.extract import Extractor, ExtractSettings
from data_pipeline.features.log_mel import LogMel
from data_pipeline.filters import Filters
from data_pipeline.registry import ModelChoice
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.dataset import read_info
from data_pipeline.shards.reader import open_dataset
from memo.cli import main
from tests.data_pipeline.features.media import make_sound, make_video

MODEL = "test_resnet"

LOUDNESS = """
import numpy as np
class Loudness:
    dim, rows_per_s, sha256 = 1, 25.0, "a" * 64
    def __init__(self, weights, device):
        assert (weights, str(device)) == (None, "cpu")
    def encode(self, sound):
        frames = sound[: len(sound) // 640 * 640].reshape(-1, 640)
        return np.log(np.square(frames).mean(axis=1, keepdims=True) + 1e-6)
"""


def noise(seconds: float, level: float = 0.1) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    samples = np.random.default_rng(0).normal(0, level, round(16_000 * seconds))
    return samples.astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A video of 1 s, 10 frames, in which no face is found in the first; and a sound."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(make_video(range(0, 1000, 40), list(range(25)), noise(1)))
    (folder / "b.wav").write_bytes(make_sound(noise(0.5)))
    (folder / "clips.csv").write_text("key,text,media\na,one two,a.mp4\nb,three,b.wav\n")
    return folder


@pytest.fixture
def timm_face(tmp_path: Path) -> ModelChoice:
    cpu_torch.install()
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model(MODEL).state_dict(), tmp_path / "timm.safetensors")
    return ModelChoice(f"timm:{MODEL}", tmp_path / "timm.safetensors")


@pytest.fixture
def settings(source: Path, tmp_path: Path, timm_face: ModelChoice) -> BuildSettings:
    extract = ExtractSettings(timm_face, ModelChoice("log-mel"))
    return BuildSettings("table", source, tmp_path / "out", extract)


def clips_of(folder: Path) -> dict[str, Clip]:
    train = open_dataset(folder).split("train")
    return {clip.key: clip for clip in map(train.read, range(len(train)))}


@pytest.mark.usefixtures("in_process")
def test_a_face_encoder_without_expressions_leaves_them_out(settings: BuildSettings) -> None:
    report = build_dataset(replace(settings, filters=Filters(min_face_share=0.9)))
    assert (report.samples, report.device) == ({"train": 2}, "cpu")
    assert report.missing == {"text": 0, "face": 1, "speech": 0}
    schema = read_info(settings.out).features.face
    assert schema is not None
    assert (schema.encoder, schema.classes, schema.dim) == ("timm:test_resnet", (), 96)
    assert len(schema.mean) == 96
    clips = clips_of(settings.out)
    clip = clips["a"]
    assert clip.face is not None
    assert clip.face.shape == (10, 96)
    assert clip.face.any(axis=1).tolist() == [False] + [True] * 9
    assert [one.expression for one in clips.values()] == [None, None]
    assert list(check_dataset(settings.out)) == []


@pytest.mark.usefixtures("in_process")
def test_frames_of_such_an_encoder_count_for_the_filter(settings: BuildSettings) -> None:
    report = build_dataset(replace(settings, filters=Filters(min_face_share=0.95)))
    assert (report.samples, report.filtered) == ({"train": 1}, {"min_face_share": 1})
    (line,) = (settings.out / "filtered.jsonl").read_text().splitlines()
    assert json.loads(line)["value"] == 0.9


@pytest.mark.usefixtures("in_process")
@pytest.mark.usefixtures("in_process")
def test_action_units_are_the_row_of_a_clip_s_face(tmp_path: Path) -> None:
    names = ("a.mp4", "b.ogg", "c.ogg")
    lines = "".join(f"03-{name}\thappy\tstrong\tKids\t1\n" for name in names)
    folder = tmp_path / "ravdess"
    folder.mkdir()
    (folder / "manifest.tsv").write_text(f"file\temotion\tintensity\ttext\tactor\n{lines}")
    (folder / "03-a.mp4").write_bytes(make_video(range(0, 1000, 40), list(range(25)), noise(1)))
    for name in names[1:]:
        (folder / f"03-{name}").write_bytes(make_sound(noise(0.5)))
    settings = BuildSettings(
        "ravdess",
        folder,
        tmp_path / "out",
        ExtractSettings(ModelChoice("action-units"), ModelChoice("log-mel")),
        workers=1,
    )
    with pytest.raises(UserError, match="ravdess brings none along; take another encoder"):
        build_dataset(settings)
    means = np.random.default_rng(0).uniform(0, 5, (2, 35)).astype(np.float32)
    np.savez(folder / "face_au_means.npz", clip=np.array(["01-c", "01-a"]), au_mean=means)
    assert build_dataset(settings).missing == {"text": 0, "face": 1, "speech": 0}
    clips = clips_of(settings.out)
    assert clips["03-b"].face is None
    for key, row in (("03-c", means[0]), ("03-a", means[1])):
        face = clips[key].face
        assert face is not None
        np.testing.assert_array_equal(face, row[None].astype(np.float16))
    info = read_info(settings.out)
    assert info.features.face is not None
    assert (info.features.face.dim, info.features.face.classes) == (35, ())
    assert list(check_dataset(settings.out)) == []


def test_rows_of_10_ms_are_averaged_to_60_ms(settings: BuildSettings) -> None:
    build_dataset(settings)
    schema = read_info(settings.out).features.speech
    assert schema is not None
    assert schema.rows_per_s == pytest.approx(1 / 0.06)
    assert (schema.encoder, schema.encoder_sha256) == ("log-mel", LogMel.sha256)
    rows = clips_of(settings.out)["b"].speech
    assert rows is not None
    assert len(rows) == 8  # 48 windows of 25 ms every 10 ms in half a second
    assert len(rows) / schema.rows_per_s == pytest.approx(0.5, abs=0.03)


def build(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit status of `memo data build`."""
    monkeypatch.setattr(sys, "argv", ["memo", "data", "build", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own that Python finds."""
    (tmp_path / "my_loudness.py").write_text(LOUDNESS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_loudness", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path / "my_loudness.py"


@pytest.mark.slow
@pytest.mark.usefixtures("code")
def test_a_class_of_ones_own_is_found_by_the_processes_of_a_build(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, speech = tmp_path / "out", "my_loudness:Loudness"
    options = ("--source", source, "--out", out, "--speech", speech, "--device", "cpu")
    assert build(monkeypatch, "table", *options) == 0
    schema = read_info(out).features.speech
    assert schema is not None
    assert (schema.encoder, schema.encoder_sha256) == (speech, "a" * 64)
    assert schema.rows_per_s == 12.5  # two rows of 40 ms
    rows = clips_of(out)["b"].speech
    assert rows is not None
    windows = noise(0.5)[:7680].reshape(6, 2, 640).astype(np.float64)
    expected = np.log((windows**2).mean(axis=2) + 1e-6).mean(axis=1)
    np.testing.assert_allclose(rows[:, 0], expected, atol=0.02)


@pytest.mark.usefixtures("in_process")
def test_rows_of_ones_own_that_are_none_end_a_build_in_one_line(
    source: Path,
    tmp_path: Path,
    code: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code.write_text(LOUDNESS.replace(", keepdims=True", ""))
    options = ("--source", source, "--out", tmp_path / "out", "--speech", "my_loudness:Loudness")
    assert build(monkeypatch, "table", *options) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("memo: --speech my_loudness:Loudness: encode gave float32 (")
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_a_stopped_build_does_not_go_on_with_another_encoder_or_device(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> Clip:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Extractor, "clip", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(settings)
    made_by = settings.out.with_name("out.partial") / "made_by.json"
    before = json.loads(made_by.read_text())
    assert (before["device"], before["schema"]["speech"]["encoder"]) == ("cpu", "log-mel")
    made_by.write_text(json.dumps({**before, "device": "cuda"}))
    with pytest.raises(UserError, match="left by a build with other settings"):
        build_dataset(settings)
    made_by.write_text(json.dumps(before))
    build_dataset(settings)


@pytest.mark.usefixtures("in_process")
def test_a_gpu_that_is_too_small_ends_a_build_in_one_line(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Clip:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB.")

    with monkeypatch.context() as patched:
        patched.setattr(Extractor, "clip", full)
        with pytest.raises(UserError, match=r"the GPU has not enough memory; .* fewer --work"):
            build_dataset(settings)
    assert build_dataset(settings).samples == {"train": 2}


def test_an_unknown_encoder_is_refused_before_anything_is_made(settings: BuildSettings) -> None:
    for choice, message in (
        (ModelChoice("densface"), "--face: no encoder 'densface'; known are action-units, dense"),
        (ModelChoice("timm:resnet18"), "--face timm:resnet18 needs --face-weights"),
    ):
        extract = replace(settings.extract, face=choice)
        with pytest.raises(UserError, match=message):
            build_dataset(replace(settings, extract=extract))
    (settings.source / "clips.csv").write_text("text\none\n")  # nothing to see or to hear
    for kind in ("face", "speech"):
        extract = replace(settings.extract, **{kind: ModelChoice("none")})  # type: ignore[arg-type]
        with pytest.raises(UserError, match=f"--{kind}: no encoder 'none'; known are"):
            build_dataset(replace(settings, extract=extract))
    (settings.source / "clips.csv").write_text("key,media\na,a.mp4\n")
    with pytest.raises(UserError, match="--device: there is no 'tpu'"):
        build_dataset(replace(settings, extract=replace(settings.extract, device="tpu")))
    assert not settings.out.exists()
    assert not settings.out.with_name("out.partial").exists()
