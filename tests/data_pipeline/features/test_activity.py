import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.features import activity
from data_pipeline.features.activity import (
    LONGEST_S,
    find_speech,
    find_utterances,
    frames_with_speech,
)
from data_pipeline.features.video import decode_sound

RATE = 16_000


def noise(length_s: float, level: float, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, level, round(length_s * RATE)).astype(np.float32)


def with_tones(
    sound: NDArray[np.float32],
    spans: Sequence[tuple[float, float]],
    level: float = 0.1,
    hz: float = 440,
) -> NDArray[np.float32]:
    sound = sound.copy()
    for begin_s, end_s in spans:
        at = np.arange(round(begin_s * RATE), round(end_s * RATE))
        sound[at] += (level * np.sin(2 * np.pi * hz * at / RATE)).astype(np.float32)
    return sound


def voice(length_s: float, seed: int = 0) -> NDArray[np.float32]:
    """Syllables without a pause: four a second, hardly anything between them."""
    times = np.arange(round(length_s * RATE)) / RATE
    swell = 0.01 + np.square(np.sin(np.pi * 4 * times))
    return (0.2 * swell * np.sin(2 * np.pi * 200 * times)).astype(np.float32) + noise(
        length_s, 1e-4, seed
    )


def assert_spans(
    found: Sequence[tuple[float, float]], expected: Sequence[tuple[float, float]]
) -> None:
    assert len(found) == len(expected), found
    np.testing.assert_allclose(found, expected, atol=0.1)


@pytest.mark.parametrize("level", [1e-4, 0.01])
def test_tones_in_noise_are_found_where_they_are(level: float) -> None:
    spans = [(1.0, 2.5), (3.5, 3.9), (6.0, 11.0)]
    assert_spans(find_speech(with_tones(noise(13, level), spans)), spans)


def test_sound_from_the_first_sample_to_the_last() -> None:
    assert_spans(find_speech(with_tones(noise(6, 0.001), [(0, 1), (5, 6)])), [(0, 1), (5, 6)])


def test_short_pauses_are_bridged_and_clicks_left_out() -> None:
    bursts = [(1.0, 1.5), (1.7, 2.2), (4.0, 4.1), (6.0, 7.0), (7.6, 8.0)]
    found = find_speech(with_tones(noise(10, 0.001), bursts))
    assert_spans(found, [(1.0, 2.2), (6.0, 7.0), (7.6, 8.0)])


@pytest.mark.parametrize("hz", [40, 6000])
def test_what_is_no_voice_is_not_heard(hz: float) -> None:
    assert find_speech(with_tones(noise(6, 0.001), [(2, 4)], hz=hz)) == []


@pytest.mark.parametrize("sound", [noise(4, 0), noise(4, 1e-5), noise(40, 0.05), noise(0.005, 1)])
def test_silence_and_even_noise_hold_no_speech(sound: NDArray[np.float32]) -> None:
    assert find_speech(sound) == []
    assert find_speech(sound[:0]) == []


def test_the_floor_follows_noise_that_changes() -> None:
    room = np.concatenate([noise(30, 0.001), noise(30, 0.03)])
    sudden = (29, 41)  # the louder noise itself, until the floor has come up to it
    for level, heard in [(0.1, [(5.0, 6.0), (50.0, 51.0)]), (0.01, [(5.0, 6.0)])]:
        found = find_speech(with_tones(room, [(5.0, 6.0), (50.0, 51.0)], level))
        assert_spans([span for span in found if not sudden[0] < span[0] < sudden[1]], heard)


def test_speech_without_a_pause_is_cut_into_pieces_that_meet() -> None:
    found = find_speech(voice(50))
    assert found[0][0] < 0.1
    assert found[-1][1] > 49.9
    assert [end_s for _, end_s in found[:-1]] == [begin_s for begin_s, _ in found[1:]]
    assert all(1 <= end_s - begin_s <= LONGEST_S for begin_s, end_s in found)


def test_a_long_stretch_is_cut_where_it_is_quietest() -> None:
    sound = voice(18)
    sound[round(6.9 * RATE) : round(7.05 * RATE)] *= 0.001  # no pause, for it is too short
    (begin_s, cut_s), (again_s, end_s) = find_speech(sound)
    assert begin_s < 0.1
    assert cut_s == again_s
    assert 6.9 <= cut_s <= 7.05
    assert end_s > 17.9


def test_spans_do_not_depend_on_how_much_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = with_tones(noise(13, 0.01), [(1.0, 2.5), (6.0, 11.0)])
    whole = find_speech(sound)
    monkeypatch.setattr(activity, "CHUNK", 77)
    assert find_speech(sound) == whole


def test_pictures_with_speech_are_those_around_it() -> None:
    sound = with_tones(noise(4, 0.001), [(1.0, 2.0)])
    assert np.flatnonzero(frames_with_speech(sound, 40, 10.0)).tolist() == list(range(9, 22))
    assert np.flatnonzero(frames_with_speech(sound, 8, 2.0)).tolist() == [1, 2, 3, 4, 5]
    assert frames_with_speech(sound[:0], 3, 10.0).tolist() == [False] * 3


def test_a_short_recording_is_one_utterance() -> None:
    assert find_utterances(noise(20, 0.0)) is None
    assert find_utterances(noise(20.1, 0.0)) == []
    assert_spans(find_utterances(with_tones(noise(30, 0.001), [(5, 6)])) or [], [(5, 6)])


ACTED = ("01-01-01-02-01-09", "05-01-02-01-09", "06-01-01-02-18", "08-01-02-01-16")
"""Calm to loud, of three actors."""


@pytest.mark.corpora
def test_ravdess_speaks_when_its_envelope_says(shared: Path) -> None:
    with tarfile.open(shared / "data" / "ravdess.tar") as tar:
        names = [one for one in tar.getnames() if one.removesuffix(".ogg").endswith(ACTED)]
        sounds = [decode_sound(file.read()) for file in map(tar.extractfile, names) if file]
    assert len(sounds) >= len(ACTED)
    for sound in sounds:
        assert sound is not None
        envelope = np.convolve(np.abs(sound), np.hanning(800), mode="same")
        loud = np.flatnonzero(envelope > envelope.max() * 10 ** (-30 / 20)) / RATE
        found = find_speech(sound)
        assert found[0][0] == pytest.approx(loud[0], abs=0.15)
        assert found[-1][1] == pytest.approx(loud[-1], abs=0.15)


def acted(tar: tarfile.TarFile) -> list[str]:
    """Calm to loud, of five actors."""
    return [name for name in tar.getnames() if name.removesuffix(".ogg").endswith(tuple(ACTED))]
