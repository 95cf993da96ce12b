"""Faces joined through time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.features.tracks import Track, join_faces, notable_tracks

Boxes = list[list[int]]

COUNT = 60
FPS = 10.0
MAX_GAP = 10
"""Frames, a second, that are bridged."""
LEFT, RIGHT = [20, 30, 40, 40], [100, 30, 40, 40]


def scene(seed: int = 0, count: int = COUNT) -> NDArray[np.uint8]:
    """A picture that stands still."""
    picture = np.random.default_rng(seed).integers(0, 256, (120, 160), np.uint8)
    return np.broadcast_to(picture, (count, 120, 160))


def join(faces: dict[int, Boxes], frames: NDArray[np.uint8] | None = None) -> list[Track]:
    boxes = {at: np.array(one, np.float64) for at, one in faces.items()}
    return join_faces(boxes, scene() if frames is None else frames, FPS)


def at_left(track: Track) -> tuple[bool, ...]:
    return tuple(bool(box[0] < 60) for box in track.faces)


def test_two_faces_are_two_tracks_in_whatever_order_they_are_found() -> None:
    rng = np.random.default_rng(0)
    faces = {at: [LEFT, RIGHT][:: rng.choice([1, -1])] for at in range(0, COUNT, 3)}
    first, second = join(faces)
    assert first.times == second.times == list(faces)
    left = {at_left(first), at_left(second)}
    assert left == {(True,) * len(faces), (False,) * len(faces)}


def test_faces_that_come_close_keep_their_tracks() -> None:
    faces = {at: [[20 + at, 30, 40, 40], [110 - at // 2, 30, 40, 40]] for at in range(0, 46, 3)}
    first, second = join(faces)
    assert [box[0] for box in first.faces] == [20 + at for at in faces]
    assert [box[0] for box in second.faces] == [110 - at // 2 for at in faces]


@pytest.mark.parametrize(("gap", "runs"), [(MAX_GAP, 1), (MAX_GAP + 1, 2)])
def test_who_comes_back_has_one_track_and_short_gaps_are_bridged(gap: int, runs: int) -> None:
    back = 6 + gap
    (track,) = join({0: [LEFT], 3: [LEFT], 6: [LEFT], back: [LEFT], back + 3: [LEFT]})
    assert len(list(track.runs())) == runs
    assert track.seen(COUNT).sum() == (back + 4 if runs == 1 else 7 + 4)


def test_a_cut_ends_all_tracks() -> None:
    frames = np.concatenate([scene(0, 30), scene(1, 30)])
    tracks = join({at: [LEFT, RIGHT] for at in range(0, COUNT, 3)}, frames)
    assert [(one.times[0], one.times[-1]) for one in tracks] == [(0, 27)] * 2 + [(30, 57)] * 2


def test_who_is_seen_again_after_another_shot_was_not_there_in_it() -> None:
    frames = np.concatenate([scene(0, 12), scene(1, 6), scene(0, 42)])
    tracks = join({at: [LEFT] for at in range(0, COUNT, 3)}, frames)
    first, second = tracks
    assert [times.tolist() for times, _ in first.runs()] == [[0, 3, 6, 9], list(range(18, 60, 3))]
    assert second.times == [12, 15]
    assert not (first.seen(COUNT) & second.seen(COUNT)).any()
    nobody = join({at: [LEFT] for at in range(0, COUNT, 3) if at not in (12, 15)}, frames)
    assert len(list(nobody[0].runs())) == 1  # it may have been a flash


@pytest.mark.parametrize(("fps", "gap"), [(1.0, 1), (10.0, 10), (12.5, 12), (60.0, 60)])
def test_gaps_are_bridged_for_a_second_at_any_rate(fps: float, gap: int) -> None:
    for away, runs in ((gap, 1), (gap + 1, 2)):
        boxes = {at: np.array([LEFT], np.float64) for at in (0, 1, 1 + away)}
        (track,) = join_faces(boxes, scene(count=100), fps)
        assert len(list(track.runs())) == runs


def test_flashes_and_fading_light_are_no_cuts() -> None:
    frames = scene().copy()
    frames[10:14] = 255
    light = np.linspace(1, 0.6, COUNT)[:, None, None]
    (track,) = join({at: [LEFT] for at in (0, 3, 6, 9, 15, 18, 21)}, (frames * light).astype("u1"))
    assert len(list(track.runs())) == 1


def test_a_face_found_twice_is_one() -> None:
    inner, shifted = [28, 40, 24, 24], [24, 32, 38, 38]
    tracks = join({at: [inner, LEFT, RIGHT, shifted] for at in range(0, COUNT, 3)})
    assert len(tracks) == 2
    assert tracks[0].faces[0].tolist() == LEFT


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 9))
def test_one_face_that_moves_is_one_track(found: list[bool], seed: int) -> None:
    steps = np.random.default_rng(seed).integers(-8, 9, (len(found), 2)).cumsum(axis=0) + 40
    faces = {3 * at: [[*steps[at].tolist(), 40, 40]] for at in np.flatnonzero(found).tolist()}
    tracks = join(faces)
    if all(found):
        assert len(tracks) == 1
    assert sorted(at for track in tracks for at in track.times) == list(faces)


def test_what_is_seen_briefly_beside_a_longer_track_is_left_out() -> None:
    faces = {at: [LEFT, RIGHT] if at == 9 else [LEFT] for at in range(0, 30, 3)}
    tracks = join({**faces, 51: [RIGHT], 54: [RIGHT]})
    assert len(tracks) == 2
    kept = notable_tracks(tracks, COUNT)
    assert [track.times[-1] for track in kept] == [27]
    alone = join({**{at: [LEFT] for at in range(0, 30, 3)}, 51: [RIGHT]})
    assert len(notable_tracks(alone, COUNT)) == 2
    assert notable_tracks([], COUNT) == []
