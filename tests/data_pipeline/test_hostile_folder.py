"""A folder of everything that a folder of videos may hold, built at once."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.build_report import BuildReport
from data_pipeline.clip import Clip
from data_pipeline.corpora.source import open_source
from data_pipeline.features.extract import Extractor, ExtractSettings
from data_pipeline.features.video import decode_frames, decode_sound
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.reader import open_dataset
from tests.data_pipeline.features.drawing import Person, draw, talk
from tests.data_pipeline.features.media import make_film, make_sound, rotate, voice

FPS, COUNT = 10, 30
LENGTH_S = COUNT / FPS
AWAY = slice(10, 22)
"""Frames in which who leaves and comes back is away: longer than what is interpolated."""
IN_TURN = """1
00:00:00,000 --> 00:00:03,000
I am on the left.

2
00:00:03,000 --> 00:00:06,000
And I on the right.
"""

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Talker:
    """Somebody who talks for three seconds.

    Attributes:
        talks: uint8 (T, H, W), grey, ten a second.
        listens: as many.
        sound: (3 x 16,000,).
    """

    talks: Frames
    listens: Frames
    sound: NDArray[np.float32]


def drawn(number: int) -> Talker:
    """A drawn person; which one shows in the skin."""
    speaks = (np.arange(COUNT) >= 3) & (np.arange(COUNT) < 27)
    skin = (170, 210)[number]

    def pictures(mouths: NDArray[np.float64]) -> Frames:
        return np.stack([draw([Person(90, mouth=one, skin=skin)], 180) for one in mouths])

    sound = voice([(0.3, 2.7)], LENGTH_S)
    return Talker(pictures(talk(speaks, number)), pictures(np.zeros(COUNT)), sound)


def real(number: int, shared: Path) -> Talker:
    """A man in a clip of GRID; he listens as he does after its last word."""
    name = ("bbaf2n", "lgbs9a")[number]
    media = open_source(shared / "data" / "grid_s1.tar").read(f"clips/{name}.mp4")
    talks, sound = decode_frames(media)[:COUNT], decode_sound(media)
    assert sound is not None
    still = talks[25:]
    swing = np.concatenate([still, still[::-1]])[np.arange(COUNT) % (2 * len(still))]
    return Talker(talks, swing, np.resize(sound, round(LENGTH_S * 16_000)))


@pytest.fixture(params=["drawn", pytest.param("real", marks=pytest.mark.corpora)])
def talkers(request: pytest.FixtureRequest) -> list[Talker]:
    make: Callable[[int], Talker] = drawn
    if request.param == "real":
        shared = request.getfixturevalue("shared")
        return [real(number, shared) for number in (0, 1)]
    return [make(number) for number in (0, 1)]


def film(pictures: Frames, sound: NDArray[np.float32] | None, fps: int = FPS) -> bytes:
    """An MP4 of pictures (T, H, W), ten a second, shown at another rate."""
    shown = pictures[np.arange(len(pictures) * fps // FPS) * FPS // fps]
    times_ms = [round(1000 * number / fps) for number in range(len(shown))]
    return make_film(times_ms, shown, sound, video_codec="libx264")


def write_folder(folder: Path, left: Talker, right: Talker) -> None:
    """The files."""
    whole, nobody = film(left.talks, left.sound), np.full_like(left.talks, 120)
    leaves = left.talks.copy()
    leaves[AWAY] = 120
    turns = [
        np.concatenate([left.talks, right.listens], axis=2),
        np.concatenate([left.listens, right.talks], axis=2),
    ]
    lying = np.ascontiguousarray(np.rot90(left.talks, axes=(1, 2)))
    longer = np.concatenate([left.listens, left.listens[:FPS]])
    files = {
        "audio only.wav": make_sound(left.sound),
        "empty.mp4": b"",
        "fast.mp4": film(left.talks, left.sound, 60),
        "in turn.mp4": film(np.concatenate(turns), np.concatenate([left.sound, right.sound])),
        "in turn.srt": IN_TURN.encode(),
        "leaves.mp4": film(leaves, left.sound),
        "no face.mp4": film(nobody, left.sound),
        "no length.srt": b"00:00:01,000 --> 00:00:01,000\nHello.\n",
        "no length.wav": make_sound(left.sound),
        "rotated.mp4": rotate(film(lying, left.sound)),
        "silence.mp4": film(longer, np.zeros(64_000, np.float32)),
        "slow.mp4": film(left.talks, left.sound, 1),
        "text.mp4": b"Dear diary, this is no video.\n" * 200,
        "truncated.mp4": whole[: len(whole) // 2],
        "video only.mp4": film(left.talks, None),
        "🎉 인터뷰.mp4": whole,
    }
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "loop").symlink_to(folder)
    (folder / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(folder / "pipe.mp4")


@dataclass(frozen=True)
class Built:
    """What became of it.

    Attributes:
        clips: by key.
        reasons: of those in `quarantine.jsonl`, by key.
    """

    report: BuildReport
    clips: dict[str, Clip]
    reasons: dict[str, str]


@pytest.fixture
def built(
    tmp_path: Path, extract_settings: ExtractSettings, talkers: list[Talker], one_thread: None
) -> Built:
    write_folder(tmp_path / "raw", *talkers)
    out = tmp_path / "out"
    report = build_dataset(BuildSettings("videos", tmp_path / "raw", out, extract_settings))
    assert not list(check_dataset(out))
    train = open_dataset(out).split("train")
    clips = [train.read(at) for at in range(len(train))]
    lines = (out / "quarantine.jsonl").read_text("utf8").splitlines()
    reasons = {one["key"]: one["reason"] for one in map(json.loads, lines)}
    return Built(report, {clip.key: clip for clip in clips}, reasons)


def seen(clip: Clip) -> NDArray[np.bool_]:
    """In which frames there is a face."""
    assert clip.expression is not None
    return np.asarray(clip.expression.any(axis=1))


def distance(one: Clip, other: Clip) -> float:
    """Mean difference of their face rows, where both have some."""
    assert one.face is not None
    assert other.face is not None
    count = min(len(one.face), len(other.face))
    both = seen(one)[:count] & seen(other)[:count]
    rows, others = (clip[:count][both].astype(np.float64) for clip in (one.face, other.face))
    return float(np.abs(rows - others).mean())


def test_none_stops_the_build_and_each_ends_where_it_should(
    built: Built, talkers: list[Talker], extract_settings: ExtractSettings
) -> None:
    """One build, for it is the slow part, and what is asked of it in turn."""
    left, right = talkers
    alone = Extractor.load(extract_settings)

    def encoded(pictures: Frames) -> Clip:
        return alone.encode(Clip("k"), None, pictures)

    check_places(built)
    check_speakers(built.clips, left, right, encoded)
    check_who_is_away(built.clips["leaves-0001"])
    check_rates(built.clips, left, right, encoded)
    check_silence(built.clips["silence-0001"])


def check_places(built: Built) -> None:
    """Everything is a clip with the members that it can have, in quarantine, or nothing."""
    clips, reasons = built.clips, built.reasons
    # Quarantined, each with its reason.
    assert list(reasons) == ["empty-0001", "no length-0001", "text-0001", "truncated-0001"]
    assert reasons["no length-0001"] == "it has no length: from 1.000 to 1.000 s"
    for key in ("empty-0001", "text-0001", "truncated-0001"):
        assert "the file cannot be decoded" in reasons[key]
    assert built.report.quarantined == 4

    # All others are clips; links that go round, and a pipe, are nothing. Members are what there is.
    party = "🎉 인터뷰-0001"
    has = {key: (clip.face is not None, clip.speech is not None) for key, clip in clips.items()}
    both = ("fast-0001", "in turn-0001", "in turn-0002", "leaves-0001", "rotated-0001")
    assert has == dict.fromkeys((*both, "silence-0001", "slow-0001", party), (True, True)) | {
        "audio only-0001": (False, True),
        "no face-0001": (False, True),
        "video only-0001": (True, False),
    }


def check_speakers(
    clips: dict[str, Clip], left: Talker, right: Talker, encoded: Callable[[Frames], Clip]
) -> None:
    """Of two who talk in turn each utterance has its speaker's face, and words."""
    first, second = clips["in turn-0001"], clips["in turn-0002"]
    assert (first.text, second.text) == ("I am on the left.", "And I on the right.")
    assert seen(first).all()
    assert seen(second).all()
    assert distance(first, encoded(left.talks)) < distance(first, encoded(right.listens)) / 2
    assert distance(second, encoded(right.talks)) < distance(second, encoded(left.listens)) / 2


def check_who_is_away(clip: Clip) -> None:
    """Who is away has no rows there."""
    found = seen(clip)
    assert len(found) == COUNT
    assert not found[AWAY].any()
    assert found[: AWAY.start].all()
    assert found[AWAY.stop + 2 :].all()  # found again within the next three frames
    assert not clip.face[~found].any()  # type: ignore[index]


def check_rates(
    clips: dict[str, Clip], left: Talker, right: Talker, encoded: Callable[[Frames], Clip]
) -> None:
    """Whatever the rate and the rotation, rows are ten a second, of the same face."""
    party = "🎉 인터뷰-0001"
    own, held = encoded(left.talks), encoded(left.talks[np.arange(COUNT) // FPS * FPS])
    stranger = distance(clips[party], encoded(right.listens))
    for key in ("fast-0001", "rotated-0001", "slow-0001", "video only-0001"):
        clip, expected = clips[key], held if key == "slow-0001" else own
        assert seen(clip).all()
        assert clip.duration_s == pytest.approx(LENGTH_S, abs=0.1)
        assert clip.face is not None
        shortest = COUNT - FPS if key == "slow-0001" else COUNT - 1  # the last picture's is a guess
        assert shortest <= len(clip.face) <= COUNT + 1
        assert distance(clip, expected) < 0.7 * stranger


def check_silence(silence: Clip) -> None:
    """Four seconds of silence are a clip of four seconds, with all rows."""
    assert silence.duration_s == pytest.approx(4, abs=0.1)
    assert seen(silence).all()
    assert silence.text is None
