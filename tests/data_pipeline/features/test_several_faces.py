"""Videos with several people, drawn or pasted together, from the file to the clip's rows."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.corpora.source import open_source
from data_pipeline.features.activity import frames_with_speech
from data_pipeline.features.extract import Extractor, ExtractSettings
from data_pipeline.features.face import Aligned, align_faces
from data_pipeline.features.haar import HaarDetector
from data_pipeline.features.video import decode_frames, decode_sound
from tests.data_pipeline.features.drawing import Person, draw, talk
from tests.data_pipeline.features.media import make_film, rotate, voice

FPS, RATE, SIZE = 10, 16_000, 48
LENGTH_S = 4
COUNT = LENGTH_S * FPS
LEFT, RIGHT = 90.0, 270.0
SKIN = {LEFT: 170, RIGHT: 210}
HAAR = HaarDetector()

Frames = NDArray[np.uint8]
Flags = NDArray[np.bool_]


def at(begin_s: float, end_s: float) -> Flags:
    times_s = np.arange(COUNT) / FPS
    return np.asarray((times_s >= begin_s) & (times_s < end_s))


def heads(x: float, speaks: Flags, seen: Flags | None = None) -> list[Person | None]:
    """One person in each frame, None where not in the picture."""
    seen = np.ones(COUNT, dtype=bool) if seen is None else seen
    return [
        Person(x, mouth=mouth, skin=SKIN[x]) if there else None
        for mouth, there in zip(talk(speaks, int(x)), seen, strict=True)
    ]


def film(people: Sequence[Sequence[Person | None]]) -> list[Frames]:
    return [draw([one for one in row if one is not None]) for row in zip(*people, strict=True)]


def times_ms(fps: float, length_s: float = LENGTH_S) -> list[int]:
    return [round(1000 * number / fps) for number in range(round(length_s * fps))]


def assert_is(faces: Frames, person: float) -> None:
    """All of the faces are one person's."""
    cheeks = np.median(faces[:, 24:32, 10:38], axis=(1, 2))
    np.testing.assert_allclose(cheeks, SKIN[person], atol=6)


@pytest.fixture(scope="session")
def talks() -> bytes:
    """The left one speaks in the first half, the right one in the second."""
    pictures = film([heads(LEFT, at(0.3, 1.7)), heads(RIGHT, at(2.3, 3.7))])
    sound = voice([(0.3, 1.7), (2.3, 3.7)], LENGTH_S)
    return make_film(times_ms(FPS), pictures, sound, format="matroska", audio_codec="pcm_s16le")


@pytest.fixture(scope="session")
def extractor(extract_settings: ExtractSettings) -> Extractor:
    return Extractor.load(extract_settings)


def faces_of(media: bytes, begin_s: float = 0.0, end_s: float = LENGTH_S) -> tuple[Frames, Flags]:
    """The aligned faces of a part of a video."""
    return speaker_of(media, begin_s, end_s)[:2]


def speaker_of(media: bytes, begin_s: float = 0.0, end_s: float = LENGTH_S) -> Aligned:
    """The speaker in a part of a video."""
    sound, frames = decode_sound(media), decode_frames(media)
    assert sound is not None
    frames = frames[round(begin_s * FPS) : round(end_s * FPS)]
    sound = sound[round(begin_s * RATE) : round(end_s * RATE)]
    return align_faces(frames, SIZE, HAAR, FPS, frames_with_speech(sound, len(frames), FPS))


@pytest.mark.parametrize(("begin_s", "speaker"), [(0.0, LEFT), (2.0, RIGHT)])
def test_of_two_who_talk_in_turn_each_utterance_has_its_own(
    talks: bytes, begin_s: float, speaker: float
) -> None:
    faces, found = faces_of(talks, begin_s, begin_s + 2)
    assert found.all()
    assert_is(faces, speaker)


def test_a_speaker_is_identified_by_lips_that_go_with_the_speech(
    talks: bytes, extractor: Extractor
) -> None:
    assert [speaker_of(talks, begin_s, begin_s + 2).score for begin_s in (0, 2)] == [3, 3]
    speaks = at(0.5, 3.5)
    for mouths, score in ((speaks, 3), (~speaks, 0), (np.zeros(COUNT, dtype=bool), 0)):
        media = make_film(times_ms(FPS), film([heads(LEFT, mouths)]), voice([(0.5, 3.5)], LENGTH_S))
        assert speaker_of(media).score == score
    cut_out = extractor.look(decode_frames(media), None, aligned=True)
    assert cut_out is not None
    assert cut_out.score is None


def test_the_rows_of_an_utterance_are_those_of_its_speaker(
    talks: bytes, extractor: Extractor
) -> None:
    whole = [
        Recording(f"k{part}", "train", "a.mkv", span=(2 * part, 2 * part + 2)) for part in (0, 1)
    ]
    sides = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    for recording, part in extractor.parts(whole, talks):
        assert not isinstance(part, Exception)
        rows = extractor.clip(recording, part).face
        assert rows is not None
        distances = []
        for left, _, right, _ in sides:
            beside = part.frames[:, :, round(left * 360) : round(right * 360)]
            alone = extractor.encode(Clip("k"), part.sound, beside).face
            assert alone is not None
            distances.append(float(np.abs(rows.astype(np.float64) - alone).mean()))
        assert (distances[0] < distances[1]) == (recording.key == "k0")


@pytest.mark.parametrize("fps", [1, 60])
def test_slow_and_fast_videos_have_their_speaker(fps: int) -> None:
    times = times_ms(fps, 8)
    open_wide = np.random.default_rng(0).uniform(0, 1, len(times)) if fps > 1 else [0, 1] * 4
    pictures = [
        draw([Person(LEFT, mouth=mouth, skin=SKIN[LEFT]), Person(RIGHT, skin=SKIN[RIGHT])])
        for mouth in open_wide
    ]
    sound = voice([(0.5, 7.5)], 8)
    media = make_film(times, pictures, sound, format="matroska", audio_codec="pcm_s16le")
    faces, found = faces_of(media, 0, 8)
    assert 7 <= len(found) / FPS <= 8  # the last picture's length is not known
    assert found.all()
    assert_is(faces, LEFT)


def test_who_leaves_and_comes_back_is_not_there_in_between() -> None:
    away = at(1.0, 2.6)
    speaks = at(0.2, 1.0) | at(2.8, 3.8)
    people = [heads(LEFT, speaks, ~away), heads(RIGHT, at(0, 0))]
    sound = voice([(0.2, 3.8)], LENGTH_S)  # somebody speaks on, unseen
    media = make_film(times_ms(FPS), film(people), sound, format="matroska")
    faces, found = faces_of(media)
    assert not found[away].any()
    assert not faces[~found].any()
    assert found[~away].mean() > 0.8  # up to two frames at either edge are not searched
    assert_is(faces[found], LEFT)


@pytest.mark.parametrize("shot_s", [0.6, 1.4])
def test_the_listener_of_a_reverse_shot_is_not_the_speaker(shot_s: float) -> None:
    reverse = at(1.6, 1.6 + shot_s)
    people = [heads(LEFT, at(0.3, 3.7), ~reverse), heads(RIGHT, at(0, 0), reverse)]
    pictures = film(people)
    for frame in np.flatnonzero(reverse):
        pictures[frame][:, :150] = 30  # another room
        pictures[frame][200:] = 220
    sound = voice([(0.3, 3.7)], LENGTH_S)
    media = make_film(times_ms(FPS), pictures, sound, format="matroska", audio_codec="pcm_s16le")
    faces, found = faces_of(media)
    assert not found[reverse].any()
    assert not faces[~found].any()
    assert found[~reverse].mean() > 0.8
    assert_is(faces[found], LEFT)


def test_a_turned_video_is_turned_back_before_faces_are_looked_for() -> None:
    people = [heads(LEFT, at(0.5, 3.5)), heads(RIGHT, at(0, 0))]
    lying = [np.ascontiguousarray(np.rot90(one)) for one in film(people)]
    media = make_film(times_ms(FPS), lying, voice([(0.5, 3.5)], LENGTH_S))
    assert not faces_of(media)[1].any()
    faces, found = faces_of(rotate(media))
    assert found.all()
    assert_is(faces, LEFT)


def test_without_sound_it_is_the_nearest_face(extractor: Extractor) -> None:
    near, far = (draw([Person(90.0, skin=SKIN[one])], 180) for one in (LEFT, RIGHT))
    picture = np.full((288, 300), 120, np.uint8)
    picture[:192, :120], picture[:, 120:] = cv2.resize(far, (120, 192)), near
    frames = np.repeat(picture[None], 20, axis=0)
    faces, found, score = align_faces(frames, SIZE, HAAR, FPS)
    assert score == 0
    assert found.all()
    assert_is(faces, LEFT)
    assert extractor.encode(Clip("k"), None, frames).face is not None


def test_a_clip_without_a_face_keeps_its_text_and_speech(extractor: Extractor) -> None:
    media = make_film(times_ms(FPS), film([[None] * COUNT]), voice([(0.5, 3.5)], LENGTH_S))
    recording = Recording("k", "train", "a.mp4", text="Nobody is here.")
    ((_, part),) = extractor.parts([recording], media)
    assert not isinstance(part, Exception)
    clip = extractor.clip(recording, part)
    assert clip.face is None
    assert clip.expression is None
    assert clip.speech is not None
    assert clip.text == "Nobody is here."


PAIRS = [("bbaf2n", "lgbs9a"), ("lgbs9a", "bbaf2n"), ("bbaf3s", "bbal7s"), ("bbal7s", "bbaf5a")]


@pytest.mark.corpora
@pytest.mark.parametrize(("speaker", "listener"), PAIRS)
@pytest.mark.parametrize("left", [True, False])
def test_of_two_real_faces_the_one_that_speaks_is_taken(
    shared: Path, speaker: str, listener: str, left: bool
) -> None:
    source = open_source(shared / "data" / "grid_s1.tar")
    media = source.read(f"clips/{speaker}.mp4")
    speaking, sound = decode_frames(media), decode_sound(media)
    assert sound is not None
    still = decode_frames(source.read(f"clips/{listener}.mp4"))[25:]  # after the last word
    swing = np.concatenate([still, still[::-1]])
    listening = swing[np.arange(len(speaking)) % len(swing)]
    both = [speaking, listening] if left else [listening, speaking]
    speech = frames_with_speech(sound, len(speaking), FPS)
    faces, found, _ = align_faces(np.concatenate(both, axis=2), SIZE, HAAR, FPS, speech)
    alone, _, _ = align_faces(speaking, SIZE, HAAR, FPS)
    assert found.all()
    assert np.abs(faces.astype(int) - alone).mean() < 6
