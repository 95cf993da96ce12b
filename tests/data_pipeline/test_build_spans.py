"""Builds of recordings that are parts of longer files."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_pipeline import build, build_pool, cutting
from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.clip import Clip
from data_pipeline.corpora.base import DOUBLE, Corpus, Recording
from data_pipeline.corpora.source import Source
from data_pipeline.errors import UserError
from data_pipeline.features import extract, video
from data_pipeline.features.extract import Extractor, ExtractSettings, Part
from data_pipeline.filters import Filters
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.features.media import make_sound, make_video

LENGTH_S = 10
SPANS = [(3.0, 5.0), (0.5, 1.5), (4.0, 4.55), (1.5, 3.0), (9.5, 12.0), (0.0, 9.0)]
ORDER = [f"k{number}" for number in range(len(SPANS))]

Give = Callable[[Sequence[Recording]], BuildSettings]

pytestmark = pytest.mark.usefixtures("in_process")


def long_video() -> bytes:
    """In second s, counted from 1, the pictures have the grey 10 s and the tone is of 100 s Hz."""
    at = np.arange(LENGTH_S * 16_000) / 16_000
    sound = 0.3 * np.sin(2 * np.pi * 100 * np.floor(at + 1) * at)
    levels = [10 * (time // 1000 + 1) for time in range(0, 1000 * LENGTH_S, 100)]
    return make_video(
        range(0, 1000 * LENGTH_S, 100),
        levels,
        sound.astype(np.float32),
        format="matroska",
        audio_codec="pcm_s16le",
    )


class Given(Corpus):
    """A corpus of whatever recordings a test gives."""

    licence = "none"

    def __init__(self, told: Sequence[Recording]) -> None:
        super().__init__()
        self.told = told

    def recordings(self, source: Source) -> Sequence[Recording]:
        return self.told


@pytest.fixture
def give(
    tmp_path: Path, extract_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> Give:
    """The settings of a build of some recordings of the files in `raw`."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "long.mkv").write_bytes(long_video())

    def settings(recordings: Sequence[Recording]) -> BuildSettings:
        monkeypatch.setattr(build, "load_corpus", lambda *_: Given(recordings))
        sound = all(Path(one.media or "").suffix == ".wav" for one in recordings)
        extract = replace(extract_settings, face=None) if sound else extract_settings
        return BuildSettings("given", tmp_path / "raw", tmp_path / "out", extract)

    return settings


def parts_of_long(spans: Sequence[tuple[float, float]] = SPANS) -> list[Recording]:
    return [
        Recording(f"k{number}", "train", "long.mkv", text="so", span=span)
        for number, span in enumerate(spans)
    ]


def build_parts(settings: BuildSettings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Part]:
    """The sound and pictures of which each clip was made."""
    parts: dict[str, Part] = {}
    encode = Extractor.clip

    def keeps(self: Extractor, recording: Recording, part: Part | None) -> Clip:
        assert part is not None
        parts[recording.key] = part
        return encode(self, recording, part)

    with monkeypatch.context() as patched:
        patched.setattr(Extractor, "clip", keeps)
        build_dataset(settings)
    return parts


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:  # noqa: ANN401
    """Arguments of every call of a function, from now on."""
    function, calls = getattr(module, name), []

    def counted(*given: object) -> Any:  # noqa: ANN401
        calls.append(given)
        return function(*given)

    monkeypatch.setattr(module, name, counted)
    return calls


def quarantined(folder: Path) -> list[tuple[str, str]]:
    """Key and reason, in the order of the file."""
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return [(one["key"], one["reason"]) for one in map(json.loads, lines)]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_part_has_the_sound_and_the_pictures_of_its_span(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = give(parts_of_long())
    parts = build_parts(settings, monkeypatch)
    for key, (begin_s, end_s) in zip(ORDER, SPANS, strict=True):
        length_s = min(end_s, LENGTH_S) - begin_s
        sound, frames = parts[key].sound, parts[key].frames
        assert sound is not None
        assert len(sound) == round(length_s * 16_000)
        loudest_hz = np.abs(np.fft.rfft(sound[:8000])).argmax() * 2
        assert loudest_hz == 100 * math.floor(begin_s + 1)
        shown_s = begin_s + np.arange(math.ceil(round(length_s * 10, 6))) / 10
        np.testing.assert_allclose(
            frames.mean(axis=(1, 2)), 10 * np.floor(shown_s + 1 + 1e-9), atol=3
        )
    train = open_dataset(settings.out).split("train")
    assert [train.read(at).key for at in range(len(SPANS))] == ORDER
    assert [train.read(at).duration_s for at in range(2)] == [2.0, 1.0]


def test_a_clip_says_where_it_lies(give: Give) -> None:
    region = (0.25, 0.5, 1.0, 1.0)
    part, whole = parts_of_long([(-0.5, 1.5)])[0], Recording("w", "train", "long.mkv", text="so")
    settings = give([replace(part, region=region), whole])
    build_dataset(settings)
    train = open_dataset(settings.out).split("train")
    places = [(one.span, one.region) for one in map(train.read, range(2))]
    assert places == [((0.0, 1.5), region), (None, None)]
    assert not list(check_dataset(settings.out))


def test_a_file_is_heard_once_and_seen_as_often_as_its_spans_overlap(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = count(monkeypatch, extract, "decode_track")
    seen = count(monkeypatch, extract, "decode_spans")
    build_dataset(give(parts_of_long()))
    assert len(heard) == 1
    passes = [spans for _, _, spans in seen]
    assert passes == [
        [(0.0, 9.0), (9.5, 12.0)],
        [(0.5, 1.5), (1.5, 3.0), (3.0, 5.0)],
        [(4.0, 4.55)],
    ]


def test_a_region_is_cut_out_before_a_face_is_looked_for(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = {"upper": (0.0, 0.0, 1.0, 0.5), "lower": (0.25, 0.5, 1.0, 1.0), "both": None}
    settings = give(
        [Recording(key, "train", "two.mp4", text="so", region=one) for key, one in halves.items()]
    )
    (settings.source / "two.mp4").write_bytes(
        make_video(range(0, 500, 100), [40] * 5, None, top_level=200)
    )
    parts = build_parts(settings, monkeypatch)
    assert {key: part.frames.shape for key, part in parts.items()} == {
        "upper": (5, 32, 64),
        "lower": (5, 32, 48),
        "both": (5, 64, 64),
    }
    assert parts["upper"].frames[:, :28].min() > 190
    assert parts["lower"].frames[:, 4:].max() < 50


def test_what_is_wrong_with_one_part_leaves_the_others(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MOST_BYTES", 30 * 64 * 64)
    spans = [(0.0, 1.0), (0.0, 3.0), (0.0, 3.5), (5.0, 5.0), (9.0, 9.5), (12.0, 13.0)]
    settings = give(parts_of_long(spans))
    assert build_dataset(settings).samples == {"train": 3}
    assert quarantined(settings.out) == [
        ("k2", "the video is too long; cut it into utterances"),
        ("k3", "there is neither sound nor picture from 5.00 to 5.00 s"),
        ("k5", "there is neither sound nor picture from 12.00 to 13.00 s"),
    ]


def test_a_defect_of_the_face_search_is_that_of_one_part(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of = Extractor._face_rows

    def fails_at_five(self: Extractor, frames: NDArray[np.uint8], *others: Any) -> Any:  # noqa: ANN401
        if len(frames) == 5:
            raise MemoryError
        return rows_of(self, frames, *others)

    monkeypatch.setattr(Extractor, "_face_rows", fails_at_five)
    settings = give(parts_of_long([(0, 1), (1, 1.5), (2, 3)]))
    assert build_dataset(settings).samples == {"train": 2}
    assert quarantined(settings.out) == [("k1", "MemoryError")]


def test_too_little_memory_for_a_tensor_is_a_fault_of_one_part(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other errors of torch are defects, and a GPU's memory is everybody's."""
    spans = [(0.0, 1.0), (1.0, 1.5), (2.0, 3.0)]
    rows_of = Extractor._speech_rows
    failing: list[Callable[[], object]] = [lambda: torch.empty(1 << 50)]

    def fails_at_half_a_second(self: Extractor, sound: NDArray[np.float32]) -> Any:  # noqa: ANN401
        return rows_of(self, sound) if len(sound) != 8000 else failing[0]()

    def out_of_a_gpus_memory() -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Extractor, "_speech_rows", fails_at_half_a_second)
    settings = give(parts_of_long(spans))
    assert build_dataset(settings).samples == {"train": 2}
    assert quarantined(settings.out) == [("k1", "there is not enough memory to encode it")]
    again = replace(settings, out=settings.out.with_name("again"))
    failing[0] = lambda: torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError, match="size"):
        build_dataset(again)
    failing[0] = out_of_a_gpus_memory
    with pytest.raises(UserError, match="the GPU has not enough memory"):
        build_dataset(again)


def test_what_is_longer_than_an_utterance_is_named_before_it_is_encoded(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Recording("w", "train", "long.mkv", text="so", longest_s=9.5)
    parts = [replace(one, longest_s=1.5) for one in parts_of_long([(0.0, 1.5), (2.0, 3.6)])]
    published = Recording("p", "train", "long.mkv", text="so")
    settings = give([whole, *parts, published])
    assert build_parts(settings, monkeypatch).keys() == {"k0", "p"}
    length_s = open_dataset(settings.out).split("train").read(1).duration_s
    assert quarantined(settings.out) == [
        ("w", f"it is {length_s:.2f} s long; an utterance has 9.5 at most"),
        ("k1", "it is 1.60 s long; an utterance has 1.5 at most"),
    ]
    short = replace(settings, out=settings.out.with_name("short"), filters=Filters(None, None, 1.0))
    with pytest.raises(UserError, match="4 are filtered out, 0 are broken"):
        build_dataset(short)


def test_a_broken_file_is_named_for_each_of_its_parts(give: Give) -> None:
    settings = give(
        [
            *parts_of_long([(0, 1)]),
            Recording("b", "train", "broken.avi", text="so", span=(0, 1)),
            Recording("c", "train", "broken.avi", text="so", span=(1, 2)),
            Recording("d", "train", "gone.avi", text="so"),
            Recording("e", "train", None, text="so", flaw="nobody agrees what this is"),
        ]
    )
    (settings.source / "broken.avi").write_bytes(b"no video")
    assert build_dataset(settings).samples == {"train": 1}
    (b, b_reason), (c, c_reason), (d, d_reason), e = quarantined(settings.out)
    assert [b, c, d] == ["b", "c", "d"]
    assert b_reason == c_reason
    assert "the sound cannot be decoded" in b_reason
    assert "cannot be read" in d_reason
    assert e == ("e", "nobody agrees what this is")


def test_a_file_is_broken_once_however_many_of_its_parts_are(give: Give) -> None:
    """And one that is said to be part of another not at all."""
    spans = [(0, 1), (12, 13), (14, 15), (16, 17)]
    doubles = [Recording(f"d{n}", "train", f"{n}.wav", flaw=DOUBLE) for n in range(3)]
    told = [*parts_of_long(spans), *doubles]
    settings = replace(give(told), max_broken=1)
    report = build_dataset(settings)
    assert (report.samples, report.quarantined) == ({"train": 1}, 6)
    second = Recording("e", "train", "gone.avi", text="so", span=(0, 1))
    two = replace(give([*told, second]), max_broken=1, out=settings.out.with_name("two"))
    with pytest.raises(
        UserError, match=r"^more than 1 files cannot be used, .* the last is gone\.avi: the f"
    ):
        build_dataset(two)
    assert build_dataset(replace(two, max_broken=2)).quarantined == 7


def test_what_is_said_of_a_file_does_not_depend_on_where_it_lies(
    give: Give, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = Path.open

    def refuses(path: Path, *given: Any, **named: Any) -> Any:  # noqa: ANN401
        if path.name == "locked.avi":
            raise PermissionError(13, "Permission denied", str(path))
        return opens(path, *given, **named)

    names = ("broken.avi", "locked.avi")
    others = [Recording(name[0], "train", name, text="so") for name in names]
    settings = give([*parts_of_long([(0, 1)]), *others])
    for name in names:
        (settings.source / name).write_bytes(b"no video")
    monkeypatch.setattr(Path, "open", refuses)
    build_dataset(settings)
    elsewhere = settings.source.rename(tmp_path / "elsewhere")
    again = replace(settings, source=elsewhere, out=tmp_path / "again")
    build_dataset(again)
    assert content(again.out) == content(settings.out)
    assert quarantined(again.out) == [
        ("b", "the sound cannot be decoded (Invalid data found when processing input)"),
        ("l", "the file cannot be read (Permission denied)"),
    ]


def test_a_killed_build_goes_on_with_the_parts_that_are_missing(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = give(parts_of_long())
    build_dataset(settings)
    killed = replace(settings, out=settings.out.with_name("killed"))
    encode, encoded = Extractor.clip, []

    def dies_at_the_fourth(self: Extractor, recording: Recording, part: Part | None) -> Clip:
        encoded.append(recording.key)
        if len(encoded) == 4:
            raise KeyboardInterrupt
        return encode(self, recording, part)

    monkeypatch.setattr(Extractor, "clip", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(killed)
    first = set(encoded[:3])
    build_dataset(killed)
    assert sorted(encoded[4:]) == sorted(set(ORDER) - first)
    assert content(killed.out) == content(settings.out)


def test_a_part_whose_span_is_corrected_is_made_anew(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = give(parts_of_long([(0, 1), (2, 3)]))
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_finished", lambda *_: (_ for _ in [1 / 0]))
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    parts = build_parts(give(parts_of_long([(0, 1), (2, 3.5)])), monkeypatch)
    assert list(parts) == ["k1"]
    assert len(parts["k1"].frames) == 15


def test_the_order_in_which_files_are_done_is_not_seen(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = give(
        [
            Recording(f"k{number}", "train", f"{number}.wav", cut=number % 2 == 0)
            for number in range(6)
        ]
    )
    for number in range(6):
        broken = number in (1, 2, 5)
        (settings.source / f"{number}.wav").write_bytes(
            b"" if broken else make_sound(np.full(8000, 0.1, np.float32))
        )
    build_dataset(settings)
    assert [key for key, _ in quarantined(settings.out)] == ["k1", "k2-0001", "k5"]
    monkeypatch.setattr(build_pool, "as_completed", lambda futures: reversed(list(futures)))
    backwards = replace(settings, out=settings.out.with_name("backwards"))
    build_dataset(backwards)
    assert content(backwards.out) == content(settings.out)


def speech(*spans: tuple[float, float], length_s: float) -> bytes:
    sound = np.random.default_rng(0).normal(0, 1e-3, round(length_s * 16_000)).astype(np.float32)
    for begin_s, end_s in spans:
        at = np.arange(round(begin_s * 16_000), round(end_s * 16_000))
        sound[at] += (0.2 * np.sin(2 * np.pi * 300 * at / 16_000)).astype(np.float32)
    return make_sound(sound)


def test_long_files_are_cut_by_their_speech_once(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("long.wav", "short.wav", "silent.wav", "broken.wav")
    settings = give([Recording(name[:-4], "train", name, speaker="s", cut=True) for name in names])
    contents = (speech((2, 4), (9, 11), length_s=25), speech(length_s=15), speech(length_s=25), b"")
    for name, sound in zip(names, contents, strict=True):
        (settings.source / name).write_bytes(sound)
    cut = count(monkeypatch, cutting, "find_utterances")
    with monkeypatch.context() as stopped:
        stopped.setattr(build, "_extract_missing", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_dataset(settings)
    assert len(cut) == 3
    parts = build_parts(settings, monkeypatch)
    assert len(cut) == 3
    assert list(parts) == ["long-0001", "long-0002", "short-0001"]
    lengths = [len(part.sound) / 16_000 for part in parts.values() if part.sound is not None]
    assert lengths == pytest.approx([2, 2, 15], abs=0.2)
    assert {key: reason[:25] for key, reason in quarantined(settings.out)} == {
        "silent-0001": "no speech was found in it",
        "broken-0001": "the sound cannot be decod",
    }
    train = open_dataset(settings.out).split("train")
    assert {train.read(at).speaker for at in range(3)} == {"s"}


def test_what_could_not_be_cut_is_cut_once_it_is_mended(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped build goes on as if the file had never been broken."""
    settings = give([Recording("long", "train", "long.wav", cut=True)])
    path, sound = settings.source / "long.wav", speech((2, 4), (9, 11), length_s=25)
    path.write_bytes(sound[:40])
    with pytest.raises(UserError, match="more than 0 files cannot be used"):
        build_dataset(replace(settings, max_broken=0))
    path.write_bytes(sound)
    parts = build_parts(replace(settings, max_broken=0), monkeypatch)
    assert list(parts) == ["long-0001", "long-0002"]
    assert not (settings.out / "quarantine.jsonl").exists()


def test_keys_and_splits_that_cannot_be_are_refused(give: Give) -> None:
    with pytest.raises(UserError, match=r"a: 'my split' cannot be a split"):
        build_dataset(give([Recording("a", "my split", "long.mkv")]))
    twice = [
        Recording("long", "train", "long.mkv", cut=True),
        Recording("long-0001", "train", None),
    ]
    with pytest.raises(UserError, match=r"^long\.mkv and a text would both be clip 'long-0001'"):
        build_dataset(give(twice))
    with pytest.raises(UserError, match=r"^a text: 'a\.b' cannot be a clip's key: .*; rename it$"):
        build_dataset(give([Recording("a.b", "train", None)]))
