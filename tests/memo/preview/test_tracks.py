import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.clip import Clip, Word
from data_pipeline.preview.media import Media, Sound
from memo.preview.tracks import (
    ACROSS,
    LETTER_PIXELS,
    MOST_PIXELS,
    MOST_TICKS,
    MOST_WORDS,
    UP,
    Tracks,
    band_paths,
    make_tracks,
    place_words,
    round_step,
    wave_path,
)
from tests.data_pipeline.shards.samples import FEATURES, make_clips

times = st.floats(-1, 20)
words = st.builds(Word, st.text(max_size=12), times, times)


def tracks_of(clip: Clip) -> Tracks:
    tracks = make_tracks(clip, FEATURES, Media())
    assert tracks is not None
    return tracks


def points(path: str) -> list[list[tuple[float, float]]]:
    """The corners of each area of a path."""
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", part)]
        for part in path.split("M")[1:]
    ]


def area(corners: list[tuple[float, float]]) -> float:
    """Of a polygon, by the shoelace formula."""
    x, y = np.array(corners).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def test_time_lines_have_room_for_everything_in_a_clip() -> None:
    clip = replace(make_clips(1)[0], duration_s=0.1, words=(Word("oh", 0.1, 0.15),))
    tracks = tracks_of(clip)
    assert tracks.seconds == pytest.approx(0.2)  # two frames of a tenth of a second
    assert [(one.name, one.width, one.rows, one.empty) for one in tracks.maps] == [
        ("face", 100, 2, 0), ("speech", 90, 3, 0),
    ]  # fmt: skip
    assert tracks.bands_width == 100
    assert (tracks.words[0].at.left, tracks.words[0].at.width) == (50, 25)
    assert tracks_of(replace(clip, duration_s=0.8)).maps[0].width == 25
    assert tracks_of(replace(clip, words=(Word("oh", 0.1, 2.0),))).seconds == 2
    sound = Sound(4.0, np.zeros(2, np.float32), np.zeros(2, np.float32))
    longer = make_tracks(clip, FEATURES, Media(sound=sound))
    assert longer is not None
    assert (longer.seconds, longer.wave_width) == (4, 100)
    assert make_tracks(Clip("k", text="a"), FEATURES, Media()) is None


@pytest.mark.parametrize("seconds", [0.002, 0.3, 2.9, 61, 1e4, 1e308])
def test_ticks_are_few_and_the_lines_no_wider_than_can_be_drawn(seconds: float) -> None:
    tracks = tracks_of(Clip("k", duration_s=seconds))
    assert 3 <= len(tracks.ticks) <= MOST_TICKS + 1
    places = [place for place, _ in tracks.ticks]
    assert places == sorted(set(places))
    assert places[0] == 0
    assert places[-1] <= 100
    for place, time in tracks.ticks:
        assert place == pytest.approx(100 * (float(time) / seconds), abs=0.01)
    assert 1 <= tracks.pixels <= MOST_PIXELS


@given(st.floats(1e-9, 1e9))
def test_steps_are_round(least: float) -> None:
    step = round_step(least)
    assert least <= step < 2.5 * least * (1 + 1e-9)
    assert f"{step:e}"[:4] in ("1.00", "2.00", "5.00")


@given(st.lists(words, max_size=12))
def test_words_stay_on_the_time_line_in_order(said: list[Word]) -> None:
    placed = list(place_words(said, 10, 960))
    assert sorted(one.text for one in placed) == sorted(one.text for one in said)
    for one in placed:
        assert 0 <= one.at.left <= one.at.left + one.at.width <= 100 + 1e-6
    assert [one.at.left for one in placed] == sorted(one.at.left for one in placed)


def test_words_do_not_overlap() -> None:
    """At the usual speed of speech, the lines are enough."""
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.uniform(0.15, 0.4, 60))
    lengths = rng.integers(1, 9, 60)
    said = [Word("m" * length, end - 0.15, end) for length, end in zip(lengths, ends, strict=True)]
    seconds = float(ends[-1])
    pixels = round(96 * seconds)
    taken: dict[int, list[tuple[float, float]]] = {}
    for one in place_words(said, seconds, pixels):
        begin = one.at.left / 100 * pixels
        end = (one.at.left + one.at.width) / 100 * pixels
        width = (len(one.text) + 1) * LETTER_PIXELS
        begin, end = (end - width, end) if one.from_right else (begin, max(end, begin + width))
        assert end <= pixels + 1
        taken.setdefault(one.lane, []).append((begin, end))
    assert len(taken) > 1
    for spans in taken.values():
        for (_, end), (begin, _) in pairwise(spans):
            assert end <= begin + 0.1


def test_wide_letters_take_more_room() -> None:
    narrow = list(place_words([Word("oooo", 0, 0.1), Word("a", 0.4, 0.5)], 10, 1000))
    wide = list(place_words([Word("안녕하세", 0, 0.1), Word("a", 0.4, 0.5)], 10, 1000))
    assert [one.lane for one in narrow] == [0, 0]
    assert [one.lane for one in wide] == [0, 1]


def test_of_many_words_the_first_are_placed() -> None:
    said = tuple(Word("a", 0.1 * at, 0.1 * at + 0.1) for at in range(MOST_WORDS + 7))
    tracks = tracks_of(Clip("k", duration_s=50, words=said))
    assert (len(tracks.words), tracks.words_left_out) == (MOST_WORDS, 7)


def test_bands_are_stacked_and_as_large_as_their_probability() -> None:
    posteriors = np.random.default_rng(0).dirichlet(np.ones(4), 9)
    posteriors[3:5] = 0
    parts = [points(path) for path in band_paths(posteriors)]
    assert [len(one) for one in parts] == [2] * 4  # before and after the frames without a face
    steps = ACROSS / 9
    for begin, end, run in ((0, 3, 0), (5, 9, 1)):
        shares = posteriors[begin:end]
        middles = (shares[:-1] + shares[1:]).sum(axis=0) / 2 + (shares[0] + shares[-1]) / 2
        for band, expected in zip(parts, middles, strict=True):
            assert area(band[run]) == pytest.approx(expected * steps * UP, rel=0.01, abs=20)
            assert min(x for x, _ in band[run]) == pytest.approx(begin * steps, abs=0.1)
            assert max(x for x, _ in band[run]) == pytest.approx(end * steps, abs=0.1)
        for lower, upper in pairwise(parts):
            half = len(lower[run]) // 2
            assert lower[run][half:][::-1] == upper[run][:half]


def test_the_wave_reaches_its_peak_and_no_further() -> None:
    low = np.array([-0.1, -0.4, 0.0], np.float32)
    high = np.array([0.1, 0.2, 0.05], np.float32)
    ((*upper, one, two, three),) = points(wave_path(Sound(1.0, low, high)))
    assert [y for _, y in upper] == [37.5, 25.0, 43.8]
    assert [y for _, y in (one, two, three)] == [50.0, 100.0, 62.5]
    silent = Sound(1.0, np.zeros(2, np.float32), np.zeros(2, np.float32))
    assert {y for _, y in points(wave_path(silent))[0]} == {50.0}


def test_posteriors_that_are_none_are_no_bands() -> None:
    clip = make_clips(1)[0]
    assert clip.expression is not None
    tracks = tracks_of(replace(clip, expression=-clip.expression))
    assert tracks.bands == ()
    mean = tracks_of(clip).bands
    assert sum(one.mean for one in mean) == pytest.approx(100, abs=0.2)
