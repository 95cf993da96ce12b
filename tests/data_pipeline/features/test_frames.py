"""Pictures that are larger than what is kept of them."""

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from data_pipeline.features.face import align_faces
from data_pipeline.features.frames import COMBED, LARGEST, Frames, uncombed
from data_pipeline.features.haar import HaarDetector
from data_pipeline.features.video import MOST_BYTES, decode_frames
from tests.data_pipeline.features.drawing import Person, draw
from tests.data_pipeline.features.media import make_film, rotate


def person(height: int, width: int) -> Frames:
    """Somebody in the middle, and some noise."""
    drawn = np.asarray(cv2.resize(draw([Person(180)]), (width, height)), np.float64)
    noise = np.random.default_rng(0).normal(0, 10, drawn.shape)
    return np.clip(drawn + noise, 0, 255).astype(np.uint8)


def plainly_decoded(media: bytes) -> Frames:
    """The first picture, grey, as it is stored."""
    with av.open(io.BytesIO(media)) as container:
        frame = next(container.decode(container.streams.video[0]))
        return np.asarray(cv2.cvtColor(frame.to_ndarray(format="rgb24"), cv2.COLOR_RGB2GRAY))


@pytest.mark.parametrize(
    ("height", "width", "pixel", "shown"),
    [
        (2160, 3840, Fraction(1), (720, 1280)),
        (1080, 1440, Fraction(4, 3), (720, 1280)),
        (1920, 1080, Fraction(1), (1280, 720)),
        (730, 736, Fraction(1), (720, 726)),
    ],
)
def test_large_pictures_are_shrunk(
    height: int, width: int, pixel: Fraction, shown: tuple[int, int]
) -> None:
    media = make_film([0, 40], [person(height, width)] * 2, None, pixel=pixel)
    (frame,) = decode_frames(media)
    assert frame.shape == shown
    expected = cv2.resize(plainly_decoded(media), shown[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(frame - np.asarray(expected, np.float64)).mean() < 2  # it is rounded down
    np.testing.assert_array_equal(decode_frames(rotate(media))[0], np.rot90(frame, -1))


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (720, 2560), (1280, 720), (75, 101)])
def test_pictures_up_to_the_largest_are_taken_as_they_are(height: int, width: int) -> None:
    media = make_film([0, 40], [person(height, width)] * 2, None, video_codec="ffv1", format="nut")
    np.testing.assert_array_equal(decode_frames(media)[0], plainly_decoded(media))


def test_a_minute_of_4k_fits_into_memory() -> None:
    assert 60 * 10 * LARGEST * (LARGEST * 16 // 9) < MOST_BYTES


def test_a_face_in_4k_is_found() -> None:
    media = make_film(range(0, 400, 100), [person(2160, 2700)] * 4, None)
    aligned = align_faces(decode_frames(media), 48, HaarDetector(), 10.0)
    assert aligned.found.all()
    small = align_faces(decode_frames(make_film([0, 40], [person(720, 900)] * 2, None)),
                        48, HaarDetector(), 10.0)  # fmt: skip
    difference = aligned.faces[0].astype(float) - small.faces[0].astype(float)
    assert np.abs(difference).mean() < 12


INTERLACED = {"x264-params": "tff=1", "crf": "1"}
"""Options of libx264; the picture's even lines are shown first."""


def woven(one: Frames, other: Frames) -> Frames:
    """The even lines of one picture and the odd ones of another."""
    both = one.copy()
    both[1::2] = other[1::2]
    return both


@pytest.mark.parametrize(("height", "width"), [(288, 360), (1080, 1920)])
def test_an_interlaced_film_shows_one_moment(height: int, width: int) -> None:
    now = np.asarray(cv2.GaussianBlur(person(height, width), (0, 0), 3), np.uint8)
    later = np.roll(now, width // 20, axis=1)
    media = make_film(
        [0, 40], [woven(now, later)] * 2, None, video_codec="libx264", options=INTERLACED
    )
    (frame,) = decode_frames(media)
    truth = cv2.resize(now, frame.shape[::-1], interpolation=cv2.INTER_AREA)
    combed = cv2.resize(woven(now, later), frame.shape[::-1], interpolation=cv2.INTER_AREA)
    assert _wrong(frame, truth) < 0.1 * _wrong(combed, truth)


def _wrong(shown: Frames, truth: Frames) -> float:
    """The share of pixels that anybody would see to be wrong."""
    return float(np.mean(np.abs(shown.astype(np.float64) - truth) > 2 * COMBED))


def test_a_film_that_is_not_interlaced_keeps_its_lines() -> None:
    striped = np.zeros((64, 64), np.uint8)
    striped[1::2] = 200
    plain, flagged = (
        make_film([0, 40], [striped] * 2, None, video_codec="libx264", options=options)
        for options in ({"crf": "1"}, INTERLACED)
    )
    assert np.ptp(decode_frames(plain)[0]) > 150
    assert np.ptp(decode_frames(flagged)[0][:-1]) < 50  # but for the last line


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_lines_that_differ_from_both_neighbours_become_their_mean(picture: Frames) -> None:
    found = uncombed(picture)
    for row in range(len(picture)):
        for column in range(picture.shape[1]):
            line = int(picture[row, column])
            expected = line
            if row % 2 and row + 1 < len(picture):
                above, below = int(picture[row - 1, column]), int(picture[row + 1, column])
                if line > max(above, below) + COMBED or line < min(above, below) - COMBED:
                    expected = (above + below + 1) // 2
            assert found[row, column] == expected
