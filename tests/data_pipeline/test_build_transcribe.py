import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline import build
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.build_part import BuildPart
from data_pipeline.clip import Clip, Word
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.filters import Filters
from data_pipeline.merge_parts import find_parts
from data_pipeline.registry import ModelChoice, Weights
from data_pipeline.shards.reader import open_dataset
from data_pipeline.transcribe.base import ALIGNERS, RECOGNISERS, Miss, Recognised, Span
from data_pipeline.transcribe.transcriber import TranscribeSettings
from tests.data_pipeline.features.media import make_sound

RATE = 16_000


class Loudness:
    """Says how loud a sound is, in tenths; and finds words one after the other in it."""

    name = "loudness"
    language = ""

    def __init__(self, weights: Path | None) -> None:
        self.sha256 = ("1" if weights is None else weights.read_text()) * 64

    def recognise(self, sound: NDArray[np.float32], language: str) -> Recognised | Miss:
        return Recognised(f"Level {round(10 * float(np.abs(sound).max()))}.", language or "en")

    def align(self, sound: NDArray[np.float32], words: Sequence[str]) -> list[Span] | Miss:
        if "lost" in words:
            return Miss.MISFIT
        return [(at / 10, (at + 1) / 10) for at in range(len(words))]


@pytest.fixture
def settings(
    tmp_path: Path, extract_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> BuildSettings:
    """Two seconds of noise that gets louder, of which two parts have a text and one has words."""
    for models in (ALIGNERS, RECOGNISERS):
        models.names()
        monkeypatch.setattr(models, "_entries", dict(vars(models)["_entries"]))
        models.register("loudness", Weights.OPTIONAL)(Loudness)
    root = tmp_path / "mine"
    root.mkdir()
    noise = np.random.default_rng(0).uniform(-1, 1, 2 * RATE) * np.repeat([0.2, 0.6], RATE)
    noise[RATE : RATE + RATE // 5] /= 100  # nobody speaks in noise without a pause
    (root / "long.wav").write_bytes(make_sound(noise.astype(np.float32)))
    rows = ("media\tbegin_s\tend_s\ttext\tkey", "long.wav\t0\t1\tSo, what?\ta")
    more = ("long.wav\t1\t2\t\tb", "long.wav\t0.5\t1.5\tlost\tc")
    (root / "clips.tsv").write_text("\n".join([*rows, *more]) + "\n")
    speech = replace(extract_settings, face=None)
    return BuildSettings("table", root, tmp_path / "out", speech)


BOTH = TranscribeSettings(ModelChoice("loudness"), ModelChoice("loudness"))


def clips_of(folder: Path) -> dict[str, Clip]:
    train = open_dataset(folder).split("train")
    return {clip.key: clip for clip in (train.read(at) for at in range(len(train)))}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("in_process")
def test_texts_and_words_are_of_each_part_of_a_recording(settings: BuildSettings) -> None:
    report = build_dataset(replace(settings, transcribe=BOTH))
    clips = clips_of(settings.out)
    assert clips["a"].words == (Word("So,", 0, 0.1), Word("what?", 0.1, 0.2))
    assert (clips["b"].text, clips["b"].language) == ("Level 6.", "en")
    assert clips["b"].words == (Word("Level", 0, 0.1), Word("6.", 0.1, 0.2))
    assert (clips["c"].text, clips["c"].words) == ("lost", ())
    assert report.transcribed == {
        "text: given": 2,
        "text: recognised": 1,
        "words: aligned": 2,
        "words: the text does not fit the sound": 1,
    }
    assert report.missing["text"] == 0
    assert any("words: aligned" in line for line in report.table())
    info = json.loads((settings.out / "dataset.json").read_text())
    assert info["transcribers"] == [
        {"task": task, "name": "loudness", "sha256": "1" * 64} for task in ("recognise", "align")
    ]


@pytest.mark.usefixtures("in_process")
def test_nothing_is_said_of_it_unless_it_is_asked_for(settings: BuildSettings) -> None:
    report = build_dataset(settings)
    assert {key: clip.words for key, clip in clips_of(settings.out).items()} == dict.fromkeys(
        "abc", ()
    )
    assert "transcribers" not in json.loads((settings.out / "dataset.json").read_text())
    assert "transcribed" not in json.loads(report.content)


@pytest.mark.usefixtures("in_process")
def test_a_stopped_build_goes_on_with_the_same_models_alone(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = replace(settings, transcribe=BOTH)
    table = settings.source / "clips.tsv"
    corrected = table.read_text().replace("lost", "found it")
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_finished", lambda *_: (_ for _ in [1 / 0]))
        with pytest.raises(ZeroDivisionError):
            build_dataset(both)
    weights = tmp_path / "weights"
    weights.write_text("2")
    for other in (
        TranscribeSettings(),
        replace(BOTH, recognise=None),
        replace(BOTH, align=ModelChoice("loudness", weights)),
    ):
        with pytest.raises(UserError, match="left by a build with other settings"):
            build_dataset(replace(settings, transcribe=other))
    table.write_text(corrected)
    build_dataset(both)
    assert [word.text for word in clips_of(settings.out)["c"].words] == ["found", "it"]
    build_dataset(replace(both, out=settings.out.with_name("whole")))
    assert content(settings.out) == content(settings.out.with_name("whole"))


@pytest.mark.usefixtures("in_process")
def test_a_recognised_text_is_filtered_by_its_words(settings: BuildSettings) -> None:
    report = build_dataset(replace(settings, transcribe=BOTH, filters=Filters(min_words=2)))
    assert (sorted(clips_of(settings.out)), report.filtered) == (["a", "b"], {"min_words": 1})


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("transcribe", "dropped"), [(BOTH, 0), (replace(BOTH, recognise=None), 1)])
def test_a_text_that_is_required_may_be_a_recognised_one(
    settings: BuildSettings, transcribe: TranscribeSettings, dropped: int
) -> None:
    filters = Filters(require=("text",))
    report = build_dataset(replace(settings, transcribe=transcribe, filters=filters))
    assert report.filtered == {"require_text": dropped}


@pytest.mark.usefixtures("in_process")
def test_parts_with_other_models_are_not_of_one_build(settings: BuildSettings) -> None:
    outs = [settings.out.with_name(f"part{number}") for number in (1, 2)]
    for number, transcribe in ((1, BOTH), (2, TranscribeSettings())):
        part, out = BuildPart(number, 2), outs[number - 1]
        build_dataset(replace(settings, out=out, part=part, transcribe=transcribe))
    with pytest.raises(UserError, match=r"--recognise and --align is recognise loudness 1+, align"):
        find_parts(outs)
