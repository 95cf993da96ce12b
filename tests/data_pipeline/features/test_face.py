"""Faces in frames: geometry against formulas, detection on real clips."""

import io
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.corpora.source import open_source
from data_pipeline.features import face
from data_pipeline.features.face import _cut, _lips, _moving_median
from data_pipeline.features.haar import HaarDetector
from data_pipeline.features.speaker import lip_motion
from data_pipeline.features.tracks import join_faces

Frames = NDArray[np.uint8]
SIZE = 48
FPS = 10.0
MAX_GAP = 10
"""Frames between which a face is interpolated."""


@pytest.fixture(scope="session")
def clip(shared: Path) -> Frames:
    """A GRID clip at 12.5 frames a second, (38, 288, 360), grey."""
    media = open_source(shared / "data" / "grid_s1.tar").read("clips/lgbs9a.mp4")
    with av.open(io.BytesIO(media)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[::2]])


def search_faces(frames: Frames) -> dict[int, NDArray[np.float64]]:
    return face.search_faces(frames, HaarDetector(), FPS)


def align_faces(
    frames: Frames, size: int, speech: NDArray[np.bool_] | None = None
) -> tuple[Frames, NDArray[np.bool_]]:
    return face.align_faces(frames, size, HaarDetector(), FPS, speech)[:2]


def turned(frames: Frames, degrees: float, scale: float) -> Frames:
    height, width = frames.shape[1:3]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    return np.stack(
        [cv2.warpAffine(f, turn, (width, height), borderMode=cv2.BORDER_REPLICATE) for f in frames]
    )


def difference(one: Frames, other: Frames) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.mark.parametrize("count", [0, 1, 7])
def test_frames_without_a_face_are_marked(count: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (count, 120, 160), np.uint8)
    faces, found = align_faces(noise, SIZE)
    assert faces.shape == (count, SIZE, SIZE)
    assert faces.dtype == np.uint8
    assert not found.any()
    assert not faces.any()


@given(
    x=st.floats(60, 140), y=st.floats(60, 140), side=st.floats(20, 60), angle=st.floats(-0.5, 0.5)
)
def test_cut_samples_the_turned_square(x: float, y: float, side: float, angle: float) -> None:
    rows, columns = np.mgrid[:200, :200]
    ramp = (columns * 0.7 + rows * 0.5).astype(np.uint8)
    cut = _cut(ramp, np.array([x, y, side, angle]), 16)
    across, down = np.meshgrid(*[(np.arange(16) + 0.5) / 16 * side - side / 2] * 2)
    at_x = x + across * np.cos(angle) - down * np.sin(angle)
    at_y = y + across * np.sin(angle) + down * np.cos(angle)
    np.testing.assert_allclose(cut, at_x * 0.7 + at_y * 0.5, atol=2)


def test_moving_median_drops_an_outlier_and_keeps_a_drift() -> None:
    rows = np.arange(9.0)[:, None] * [1, 2, 3, 0]
    np.testing.assert_array_equal(_moving_median(rows)[2:-2], rows[2:-2])
    spoilt = rows.copy()
    spoilt[4] = 100
    assert np.abs(_moving_median(spoilt) - rows).max() <= 3


def single_face_runs(faces: dict[int, NDArray[np.float64]]) -> list[list[int]]:
    """Frame numbers of each run, as they were when one face alone was followed."""
    runs: list[list[int]] = []
    for at, boxes in faces.items():
        assert len(boxes) == 1
        if runs and at - runs[-1][-1] <= MAX_GAP:
            x, y, width, height = np.abs(boxes[0] - faces[runs[-1][-1]][0])
            assert x + y + width + height < 30  # pixels: it is held still
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


class Bright:
    """A detector to which a picture's brightest pixel is a face's centre, if it is white."""

    name = "bright"
    sha256: str | None = None

    def __init__(self) -> None:
        self.looked = 0

    def find(self, grey: Frames) -> NDArray[np.float64]:
        self.looked += 1
        row, column = np.unravel_index(grey.argmax(), grey.shape)
        known = [[column - 10.0, row - 10.0, 20.0, 20.0, column, row]]
        return np.array(known if grey.max() == 255 else []).reshape(-1, 6)

    def squares(self, greys: Frames, faces: NDArray[np.float64]) -> NDArray[np.float64]:
        assert len(greys) == len(faces)
        return np.column_stack([faces[:, 4:], np.full(len(faces), 20.0), np.zeros(len(faces))])


@pytest.mark.parametrize(
    ("fps", "looked"),
    [(1.0, [*range(50)]), (10.0, [*range(0, 50, 3), 49]), (25.0, [*range(0, 50, 8), 49])],
)
def test_faces_are_looked_for_in_seconds_and_any_detector_can_do_it(
    fps: float, looked: list[int]
) -> None:
    frames = np.full((50, 60, 80), 90, np.uint8)
    frames[:, 30, 40] = 255
    detector = Bright()
    assert list(face.search_faces(frames, detector, fps)) == looked
    assert detector.looked == len(looked)
    faces, found, _ = face.align_faces(frames, 20, detector, fps)
    assert found.all()
    np.testing.assert_array_equal(faces, np.broadcast_to(faces[0], faces.shape))
    assert np.unravel_index(faces[0].argmax(), (20, 20)) in {(9, 9), (9, 10), (10, 9), (10, 10)}


@pytest.mark.corpora
def test_one_face_is_followed_as_it_was_before_several_were(clip: Frames) -> None:
    clip = clip.copy()
    clip[7:9], clip[16:31] = 128, 128
    faces = search_faces(clip)
    (track,) = join_faces(faces, clip, FPS)
    assert [times.tolist() for times, _ in track.runs()] == single_face_runs(faces)
    np.testing.assert_array_equal(track.faces, np.concatenate(list(faces.values())))
    known = align_faces(clip, SIZE, np.arange(len(clip)) < 20)
    for one, other in zip(known, align_faces(clip, SIZE), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.corpora
def test_a_real_clip_is_followed_throughout(clip: Frames) -> None:
    faces, found = align_faces(clip, SIZE)
    assert found.all()
    assert faces.std(axis=(1, 2)).min() > 10
    # A head held still gives almost the same crop from frame to frame.
    assert max(difference(a, b) for a, b in pairwise(faces)) < 12


@pytest.mark.corpora
@pytest.mark.parametrize(("degrees", "scale"), [(12, 1.0), (-12, 1.0), (0, 0.7)])
def test_a_turned_or_smaller_face_is_cut_alike(clip: Frames, degrees: float, scale: float) -> None:
    upright, _ = align_faces(clip[:10], SIZE)
    again, found = align_faces(turned(clip[:10], degrees, scale), SIZE)
    assert found.all()
    untreated = turned(upright, degrees, scale)  # as if only the box were followed
    assert difference(again, upright) < 0.6 * difference(untreated, upright)


@pytest.mark.corpora
def test_short_gaps_are_filled_and_long_ones_are_not(clip: Frames) -> None:
    short, long = clip.copy(), clip.copy()
    short[13:18] = 128
    long[10 : 10 + 2 * MAX_GAP] = 128
    assert align_faces(short, SIZE)[1].all()
    _, found = align_faces(long, SIZE)
    assert not found[10 : 10 + 2 * MAX_GAP].any()
    assert found[:9].all()
    assert found[-3:].all()


@pytest.mark.corpora
def test_a_jump_to_another_place_is_not_bridged(clip: Frames) -> None:
    wide = np.full((12, 288, 720), 128, np.uint8)
    wide[:6, :, :360], wide[6:, :, 360:] = clip[:6], clip[6:12]
    faces, found = align_faces(wide, SIZE)
    assert not found[4:6].any()
    assert found[:4].all()
    assert found[6:].all()
    assert difference(faces[0], faces[-1]) < 15


def test_lips_move_alike_in_faces_of_any_size() -> None:
    faces = np.random.default_rng(0).integers(20, 220, (6, SIZE, SIZE), np.uint8)
    seen = np.array([True] * 5 + [False])
    flicker = 16 * (np.indices((4 * SIZE, 4 * SIZE)).sum(axis=0) % 2) - 8  # nothing on average
    signs = np.array([1, -1] * 3)[:, None, None]
    large = (faces.repeat(4, axis=1).repeat(4, axis=2) + signs * flicker).astype(np.uint8)
    np.testing.assert_array_equal(_lips(large, seen), lip_motion(faces, seen))
    np.testing.assert_array_equal(_lips(faces, seen), lip_motion(faces, seen))
    assert np.nanmax(np.abs(lip_motion(large, seen) - lip_motion(faces, seen))) > 1e-3
