"""Exported models answer as the tuned ones did; videos are predicted utterance by utterance."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.demo import EMOTIONS
from data_pipeline.errors import UserError
from data_pipeline.features.video import decode_frames, decode_sound
from memo.inference import EmotionModel, load
from memo.inference import predict as prediction
from memo.inference.encoders import GivenEncoders
from memo.inference.export import export_model
from memo.inference.predict import run_prediction
from memo.inference.utterances import Said
from memo.objectives import Modality
from memo.tuning.results import fold_folder
from memo.tuning.setup import open_backbone, open_corpus
from memo.tuning.task import load_task
from tests.data_pipeline.features.media import damage, make_sound, make_video
from tests.data_pipeline.features.subtitled import Track, with_subtitles
from tests.memo.inference.small_model import MODES, tuned
from tests.memo.inference.stand_in import Encoders
from tests.memo.tuning.small_tuning import tuning_config, write_backbone


@pytest.mark.parametrize("name", MODES)
def test_an_exported_model_answers_as_the_tuned_one(place: Path, name: str) -> None:
    run = tuned(place, name)
    export_model(run, None, place / f"exported-{name}")
    model = load(str(place / f"exported-{name}"))
    merged = not any(".adapter." in one for one in model.model.state_dict())
    assert merged == (name != "houlsby")
    config = tuning_config(place / "small.yaml", place / "backbone", run, "full")
    corpus = open_corpus(load_task(str(place / "small.yaml")), config, open_backbone(config))
    record = json.loads((fold_folder(run, 0, 1) / "result.json").read_text())
    for pattern, test in record["test"].items():
        keys = [one["key"] for one in test["predictions"]][:8]
        clips = [corpus.samples.read(at) for at in range(len(corpus.samples))]
        chosen = [next(one for one in clips if one.key == key) for key in keys]
        found = model.predict(chosen, pattern.split("+"))
        expected = [one["probabilities"] for one in test["predictions"][:8]]
        np.testing.assert_allclose(found, expected, atol=3e-5)
    card = (place / f"exported-{name}" / "README.md").read_text()
    assert (
        f"| text+face+speech | {record['test']['text+face+speech']['scores']['uar']:.4f} |" in card
    )


def test_what_cannot_be_exported_or_loaded_is_refused(
    place: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="exists already"):
        export_model(place / "run-full", None, exported)
    with pytest.raises(UserError, match=r"there is no tuned model in .*; give a run of one"):
        export_model(place / "demo", None, tmp_path / "x")
    saved = tmp_path / "several" / "folds" / "fold-0-seed-1" / "system" / "system.json"
    saved.parent.mkdir(parents=True)
    saved.write_text("{}")
    with pytest.raises(UserError, match=r"several tasks at once; .*open_texts"):
        export_model(tmp_path / "several", None, tmp_path / "x")
    other = write_backbone(place / "demo", tmp_path / "other", "seed=7")
    with pytest.raises(UserError, match="was trained on the backbone with sha256"):
        export_model(place / "run-full", other, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match=r"holds no exported model .*; 'memo export' makes one"):
        load(place / "demo")
    with pytest.raises(UserError, match="the model uses text, face, speech"):
        load(exported).predict([Clip("a", text="b")], ["speach"])  # type: ignore[list-item]
    with pytest.raises(UserError, match="has rows of 3, not of"):
        load(exported).predict([Clip("a", speech=np.zeros((2, 3), np.float16))])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_sha256", None, "model_sha256 is not set"),
        ("model_sha256", "0" * 64, "was altered: its sha256"),
        ("spec", {"hidden": "x"}, "spec.hidden='x': Input should be a valid integer"),
        ("features", 3, "features=3: name which of its settings: face, speech"),
        ("task", {}, "task.name is not set"),
        ("outputs", ["angry"], r"config\.json: outputs: there is none of the class 'disgust'$"),
        ("outputs", [*EMOTIONS, "calm"], r"model.safetensors does not fit [^\n]*$"),
        ("seed", 1, "unknown key 'seed'"),
    ],
)
def test_a_record_that_somebody_has_altered_is_refused_in_a_line(
    exported: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    folder = shutil.copytree(exported, tmp_path / "model")
    record = json.loads((folder / "config.json").read_text())
    changed = {**record, key: value}
    if value is None:
        changed.pop(key)
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=message):
        load(folder)
    fewer = {**record, "task": {**record["task"], "classes": ["angry", "sad"]}}
    (folder / "config.json").write_text(json.dumps(fewer))
    with pytest.raises(UserError, match=r"^[^\n]*model.safetensors does not fit [^\n]*$"):
        load(folder)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "load_extractor", lambda *_: Encoders())


def loud(*spans: tuple[float, float], length_s: float) -> np.ndarray:
    signal = np.zeros(round(length_s * 16_000), np.float32)
    for begin_s, end_s in spans:
        part = slice(round(begin_s * 16_000), round(end_s * 16_000))
        signal[part] = np.random.default_rng(0).normal(0, 0.1, part.stop - part.start)
    return signal


@pytest.mark.usefixtures("stand_ins")
def test_utterances_are_found_predicted_and_written(exported: Path, tmp_path: Path) -> None:
    sound = loud((0.5, 6), (8, 13), (14, 20.5), length_s=21)
    video = tmp_path / "a.mp4"
    video.write_bytes(make_video(range(0, 21_000, 40), [90] * 525, sound))
    only_sound = tmp_path / "b.wav"
    only_sound.write_bytes(make_sound(sound))
    model = load(exported)
    json_out, html_out = tmp_path / "out.jsonl", tmp_path / "out.html"
    run_prediction(model, [video, only_sound], GivenEncoders(), Said(), json_out, html_out)
    rows = [json.loads(line) for line in json_out.read_text().splitlines()]
    assert [Path(one["file"]).name for one in rows] == ["a.mp4"] * 3 + ["b.wav"] * 3
    assert [tuple(one["missing"]) for one in rows] == [("text",)] * 3 + [("text", "face")] * 3
    assert rows[0]["begin_s"] == pytest.approx(0.5, abs=0.1)
    for one in rows:
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        assert one["emotion"] == max(one["probabilities"], key=one["probabilities"].__getitem__)
    page = html_out.read_text()
    assert page.count("without text, face") == 3
    assert "https://" not in page


def test_where_nothing_can_be_written_nothing_is_predicted(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(prediction, "predict_videos")
    for json_out, html_out, message in (
        (
            tmp_path / "absent" / "out.jsonl",
            None,
            r"^--json: .*out\.jsonl; give a file in a folder",
        ),
        (None, tmp_path, r"^--html: .*; give a file in a folder that there is$"),
    ):
        with pytest.raises(UserError, match=message):
            run_prediction(
                load(exported),
                [tmp_path / "a.mp4"],
                GivenEncoders(),
                Said(),
                json_out,
                html_out,
            )


@pytest.mark.usefixtures("stand_ins")
def test_subtitles_beside_the_video_say_what_and_when(exported: Path, tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(make_video(range(0, 4000, 40), [90] * 100, loud((0, 4), length_s=4)))
    (tmp_path / "a.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\n[music] wow\n"
        "2\n00:00:02,000 --> 00:00:03,000\ngross\n3\n00:00:03,000 --> 00:00:04,000\n♪ la ♪\n"
    )
    model = load(exported)
    found = list(prediction.predict_videos(model, [video], GivenEncoders(), Said()))
    assert [(one.begin_s, one.end_s, one.text, one.missing) for one in found] == [
        (1.0, 2.0, "wow", ()),
        (2.0, 3.0, "gross", ()),
    ]
    said = Said("[/i]tears")
    (whole,) = prediction.predict_videos(model, [video], GivenEncoders(), said)
    assert (whole.begin_s, whole.text) == (0.0, "[/i]tears")
    run_prediction(model, [video], GivenEncoders(), said, None, None)
    with pytest.raises(UserError, match="belong to one video"):
        list(prediction.predict_videos(model, [video, video], GivenEncoders(), said))
    for path, message in ((tmp_path / "x.mp4", r"x\.mp4 is not there; give"), (tmp_path, "folder")):
        with pytest.raises(UserError, match=message):
            list(prediction.predict_videos(model, [path], GivenEncoders(), Said()))
    video.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a\.mp4: the sound cannot be decoded"):
        list(prediction.predict_videos(model, [video], GivenEncoders(), Said()))


@pytest.mark.usefixtures("stand_ins")
def test_subtitles_inside_that_are_not_taken_are_told(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media = make_video(range(0, 4000, 40), [90] * 100, loud((1, 3), length_s=4))
    german = Track([(1000, 2000, b"so froh")], language="ger")
    video = tmp_path / "a.mkv"
    video.write_bytes(with_subtitles(media, [german], sound="eng"))
    (heard,) = prediction.predict_videos(load(exported), [video], GivenEncoders(), Said())
    assert heard.text is None
    assert capsys.readouterr().err == (
        f"{video}: subtitles inside are not taken: in other languages alone; lay others beside it\n"
    )


@pytest.mark.usefixtures("stand_ins")
def test_damage_takes_only_the_utterances_that_it_lies_in(exported: Path, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 160_000).astype(np.float32)
    media = make_video(range(0, 10_000, 40), [90] * 250, sound)
    lines = "00:01,0 --> 00:02,0\nwow\n00:04,9 --> 00:05,2\ngross\n00:07,0 --> 00:08,0\ntears\n"
    (tmp_path / "a.srt").write_text(lines)
    video, html_out = tmp_path / "a.mp4", tmp_path / "a.html"
    model, said = load(exported), Said()
    for stream, message in (("audio", "the sound cannot be"), ("video", "the video cannot be")):
        video.write_bytes(damage(media, stream, 5.0, 5.4))
        found = list(prediction.predict_videos(model, [video], GivenEncoders(), said))
        assert [bool(one.emotion) for one in found] == [True, False, True]
        assert [one.flaw.startswith(message) for one in found] == [False, True, False]
        assert (found[1].used, found[1].missing, found[1].end_s) == ((), (), 5.2)
        run_prediction(model, [video], GivenEncoders(), said, None, html_out)
        assert html_out.read_text().count(message) == 1
    with pytest.raises(UserError, match=r"a\.mp4: the video cannot be decoded from"):
        list(prediction.predict_videos(model, [video], GivenEncoders(), Said("tears")))


@pytest.mark.usefixtures("stand_ins")
def test_a_file_that_cannot_be_used_takes_no_other_with_it(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its name: that of an old disk is none that could be written as it is."""
    good = make_sound(loud((0.2, 1), length_s=1.5))
    names = [b"a.wav", b"caf\xe9.wav", b"c.wav"]
    files = [tmp_path / os.fsdecode(name) for name in names]
    for file, content in zip(files, (good, good, b"no sound"), strict=True):
        file.write_bytes(content)
    json_out = tmp_path / "out.jsonl"
    run_prediction(load(exported), files, GivenEncoders(), Said(), json_out, tmp_path / "out.html")
    rows = [json.loads(line) for line in json_out.read_text().splitlines()]
    assert [Path(one["file"]).name for one in rows] == ["a.wav", "caf\\udce9.wav", "c.wav"]
    assert [bool(one["emotion"]) for one in rows] == [True, True, False]
    assert rows[2]["flaw"].startswith("the file cannot be decoded")
    assert "longer than" not in capsys.readouterr().err


@pytest.mark.usefixtures("stand_ins")
def test_too_little_memory_for_one_takes_no_other_with_it(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has not got it; a defect is none of the file's."""
    said = {"long.wav": "DefaultCPUAllocator: can't allocate memory", "odd.wav": "a defect"}
    encode = Encoders.encode

    def short_of_memory(self: Encoders, clip: Clip, *more: Any) -> Clip:  # noqa: ANN401
        if (why := said.get(Path(clip.source or "").name)) is not None:
            raise RuntimeError(why)
        return encode(self, clip, *more)

    monkeypatch.setattr(Encoders, "encode", short_of_memory)
    files = [tmp_path / name for name in ("a.wav", "long.wav", "odd.wav")]
    for file in files:
        file.write_bytes(make_sound(loud((0.2, 1), length_s=1.5)))
    model = load(exported)
    found = list(prediction.predict_videos(model, files[:2], GivenEncoders(), Said()))
    assert [one.flaw for one in found] == ["", "there is not enough memory to encode it"]
    with pytest.raises(RuntimeError, match="a defect"):
        list(prediction.predict_videos(model, files, GivenEncoders(), Said()))


@pytest.mark.usefixtures("stand_ins")
def test_a_cue_that_cannot_be_used_does_not_shrink_the_others_on_the_page(
    exported: Path, tmp_path: Path
) -> None:
    video, page = tmp_path / "a.wav", tmp_path / "a.html"
    video.write_bytes(make_sound(loud((0.2, 1), length_s=2)))
    (tmp_path / "a.srt").write_text("0:00,0 --> 90:00,0\nA CHANNEL\n\n0:00,0 --> 0:02,0\nwow\n")
    run_prediction(load(exported), [video], GivenEncoders(), Said(), None, page)
    assert "left: 0.000%; width: 100.000%" in page.read_text()


@pytest.mark.usefixtures("stand_ins")
def test_a_minute_is_one_utterance_at_most(exported: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    long.write_bytes(make_sound(loud((0, 4), length_s=61)))
    with pytest.raises(UserError, match=r"it is 61\.00 s long; an utterance has 60 at most"):
        list(prediction.predict_videos(load(exported), [long], GivenEncoders(), Said("tears")))


@pytest.mark.usefixtures("stand_ins")
def test_what_is_longer_than_the_model_reads_is_told(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(exported)
    assert model.features.speech is not None
    read_s = model.limits.speech / model.features.speech.rows_per_s
    files = []
    for name, length_s in (("a.wav", read_s - 0.1), ("b.wav", read_s + 1)):
        files.append(tmp_path / name)
        files[-1].write_bytes(make_sound(loud((0.2, 1), length_s=length_s)))
    run_prediction(model, files, GivenEncoders(), Said(), None, None)
    assert capsys.readouterr().err == (
        "1 of 2 utterances are longer than what this model reads of one: the first "
        f"{model.limits.face / 10:.1f} s of the face, the first {read_s:.1f} s of the speech (its "
        "training's limits)\n"
    )


@pytest.mark.usefixtures("stand_ins")
def test_a_clip_is_asked_in_the_language_that_is_spoken(exported: Path, tmp_path: Path) -> None:
    """The wording of a prompt goes by it."""
    model, asked = load(exported), list[str]()

    class Listens(EmotionModel):
        def predict(
            self, clips: Sequence[Clip], visible: Sequence[Modality] | None = None
        ) -> NDArray[np.float32]:
            asked.extend(clip.language for clip in clips)
            return super().predict(clips, visible)

    listens = Listens(**{one.name: getattr(model, one.name) for one in fields(model)})
    video = tmp_path / "a.wav"
    video.write_bytes(make_sound(loud((0.2, 1), length_s=1.5)))
    (tmp_path / "a.ko.srt").write_text("00:00,1 --> 00:01,0\n\uadf8\ub798\n")
    run_prediction(listens, [video], GivenEncoders(), Said(), None, None)
    run_prediction(listens, [video], GivenEncoders(), Said("so", languages=("en",)), None, None)
    assert asked == ["ko", "en"]


def test_parts_of_a_video_are_those_of_the_whole() -> None:
    from data_pipeline.features.video import decode_spans

    media = make_video(range(0, 4000, 40), list(range(20, 220, 2)), None)
    whole = decode_frames(media, 10.0)
    spans = [(0.3, 1.2), (1.2, 1.25), (2.0, 3.0), (3.5, 9.0), (10.0, 11.0)]
    parts = [np.asarray(part) for part in decode_spans(media, 10.0, spans)]
    assert [len(part) for part in parts] == [9, 1, 10, 5, 0]
    np.testing.assert_array_equal(parts[0], whole[3:12])
    np.testing.assert_array_equal(parts[2], whole[20:30])
    np.testing.assert_array_equal(parts[3], whole[35:])
    assert decode_sound(media) is None
    unseen = decode_spans(make_sound(loud(length_s=1)), 10, spans)
    assert [np.asarray(part).size for part in unseen] == [0] * 5


def test_only_the_encoders_of_the_tasks_modalities_are_needed(
    exported: Path, tmp_path: Path
) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(make_video(range(0, 4000, 40), [90] * 100, loud((0, 4), length_s=4)))
    model = load(exported)
    model = replace(model, task=model.task.model_copy(update={"modalities": ("text",)}))
    (found,) = prediction.predict_videos(model, [video], GivenEncoders(), Said("tears"))
    assert (found.used, found.missing) == (("text",), ())
    assert found.end_s == pytest.approx(4, abs=0.1)
    long = tmp_path / "long.wav"
    long.write_bytes(make_sound(loud((0, 4), length_s=61)))
    (read,) = prediction.predict_videos(model, [long], GivenEncoders(), Said("tears"))
    assert (read.used, read.end_s) == (("text",), 61.0)
    (blank,) = prediction.predict_videos(model, [video], GivenEncoders(), Said(" \n"))
    assert (blank.used, blank.missing, blank.emotion) == ((), ("text",), None)


def test_of_a_silent_video_read_by_its_text_no_length_is_known(
    exported: Path, tmp_path: Path
) -> None:
    video, html_out = tmp_path / "a.mp4", tmp_path / "a.html"
    video.write_bytes(make_video(range(0, 4000, 40), [90] * 100, None))
    model = load(exported)
    model = replace(model, task=model.task.model_copy(update={"modalities": ("text",)}))
    run_prediction(model, [video], GivenEncoders(), Said("tears"), None, html_out)
    assert "left: 0.000%; width: 0.000%" in html_out.read_text()
    (tmp_path / "a.srt").write_text("00:01,0 --> 00:02,5\nwow\n")
    (found,) = prediction.predict_videos(model, [video], GivenEncoders(), Said())
    assert (found.begin_s, found.end_s, found.used) == (1.0, 2.5, ("text",))


def test_what_cannot_be_asked_is_refused_before_anything_is_decoded(
    exported: Path, tmp_path: Path
) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"no video")
    both = Said("tears", tmp_path / "a.srt")
    model = load(exported)
    deaf = replace(model, task=model.task.model_copy(update={"modalities": ("face", "speech")}))
    page = tmp_path / "a.html"
    for asked, said, json_out, message in (
        (model, both, None, "--subtitles: with --text the file is one utterance"),
        (deaf, Said("tears"), None, "--text: the model uses face, speech; leave it out"),
        (model, Said("tears"), page, "--json is the same file; give two"),
    ):
        with pytest.raises(UserError, match=message):
            run_prediction(asked, [video], GivenEncoders(), said, json_out, page)
