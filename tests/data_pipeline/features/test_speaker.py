"""Who speaks: lips in pictures that move in known ways, scores of constructed motions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.features.speaker import CHANGE, choose_faces, lip_motion, score_speakers

COUNT, SIZE, FPS = 40, 48, 10.0
SPEECH = (np.arange(COUNT) >= 10) & (np.arange(COUNT) < 25)

Floats = NDArray[np.float64]


def moves(where: NDArray[np.bool_], level: float = 3.0, seed: int = 0) -> Floats:
    """Lips that move by about so much in some frames, and hardly in the others: (T,)."""
    noise = np.random.default_rng(seed).uniform(0.8, 1.2, COUNT)
    return noise * np.where(where, level, 0.5)


ALL, NEVER = slice(None), np.zeros(COUNT, dtype=bool)
SILENT = moves(NEVER)


def face(seed: int = 0) -> NDArray[np.uint8]:
    """One still face in all frames, (T, size, size)."""
    picture = np.random.default_rng(seed).integers(60, 180, (SIZE, SIZE), np.uint8)
    return np.broadcast_to(picture, (COUNT, SIZE, SIZE)).copy()


def open_mouth(faces: NDArray[np.uint8], frames: NDArray[np.bool_]) -> None:
    faces[frames, 34:42, 18:30] = 10


def test_lips_that_open_and_close_move() -> None:
    faces, odd = face(), np.arange(COUNT) % 2 == 1
    open_mouth(faces, odd & SPEECH)
    motion = lip_motion(faces, np.ones(COUNT, dtype=bool))
    assert np.isnan(motion[0])
    assert (motion[11:25] > CHANGE).all()
    assert not motion[1:11].any()
    assert not motion[25:].any()


@pytest.mark.parametrize("what", ["light", "head", "noise", "eyes"])
def test_what_else_changes_does_not_count_as_lips(what: str) -> None:
    faces, rng = face(), np.random.default_rng(1)
    if what == "light":
        faces = (faces * rng.uniform(0.5, 1, COUNT)[:, None, None]).astype(np.uint8)
    elif what == "head":
        shifts = rng.integers(-3, 4, COUNT)
        faces = np.stack([np.roll(one, by, 0) for one, by in zip(faces, shifts, strict=True)])
    elif what == "noise":
        faces += rng.integers(0, 4, faces.shape, np.uint8)
    else:
        faces[::2, 14:20, 8:40] = 20
    motion = lip_motion(faces, np.ones(COUNT, dtype=bool))
    assert np.nanmean(motion) < 1


def test_lips_of_a_face_that_is_not_seen_are_unknown() -> None:
    seen = np.ones(COUNT, dtype=bool)
    seen[5:8] = False
    motion = lip_motion(face(), seen)
    assert np.flatnonzero(np.isnan(motion)).tolist() == [0, 5, 6, 7, 8]
    assert lip_motion(face()[:1], seen[:1]).shape == (1,)


def test_who_moves_the_lips_in_speech_wins_over_all_others() -> None:
    half, always = SPEECH & (np.arange(COUNT) % 2 > 0), np.ones(COUNT, dtype=bool)
    always[:3] = False  # so it moves a little more in speech
    others = [moves(~SPEECH), SILENT, moves(half), moves(always, 4.0)]
    scores = score_speakers(np.stack([*others, moves(SPEECH)]), SPEECH, FPS)
    assert scores.argmax() == 4
    assert scores[:2].tolist() == [0, 0]
    assert (scores[2:] > 0).all()


def test_lips_that_do_not_care_about_speech_are_dropped_where_that_can_be_told() -> None:
    chews = moves(np.ones(COUNT, dtype=bool), 4.0)
    chews[SPEECH] *= 0.9
    speaks = moves(SPEECH, 1.0)
    assert score_speakers(np.stack([chews, speaks]), SPEECH, FPS)[0] == 0
    assert score_speakers(np.stack([chews, speaks])[:, 8:27], SPEECH[8:27], FPS)[0] > 0


@pytest.mark.parametrize("fps", [5, 10, 25, 60])
def test_how_much_silence_can_tell_is_in_seconds(fps: int) -> None:
    for around_s, told in ((0.2, False), (0.4, True)):
        around = round(around_s * fps)
        speech = np.repeat([False, True, False], [around, 2 * fps, around])
        motions = np.stack([np.where(speech, 3.6, 4.0), np.where(speech, 1.0, 0.0)])
        assert (score_speakers(motions, speech, fps)[0] == 0) == told


def test_equal_lips_have_equal_scores() -> None:
    scores = score_speakers(np.stack([moves(SPEECH)] * 3), SPEECH, FPS)
    np.testing.assert_allclose(scores, 3.0)


def test_unknown_motion_is_no_motion() -> None:
    hidden = moves(SPEECH)
    hidden[SPEECH] = np.nan
    scores = score_speakers(np.stack([hidden, np.full(COUNT, np.nan), moves(SPEECH)]), SPEECH, FPS)
    assert scores[:2].tolist() == [0, 0]


def test_scores_hold_where_there_is_no_silence() -> None:
    speech = np.ones(COUNT, dtype=bool)
    scores = score_speakers(np.stack([moves(~speech), moves(speech)]), speech, FPS)
    assert scores[0] == 0 < scores[1]


def choose(
    seen: list[slice], motions: list[Floats], speech: NDArray[np.bool_] = SPEECH
) -> list[bool]:
    """The tracks chosen; areas grow from track to track."""
    flags = np.zeros((len(seen), COUNT), dtype=bool)
    for track, frames in enumerate(seen):
        flags[track, frames] = True
    known = np.where(flags, np.stack(motions), np.nan)
    areas = np.linspace(100.0, 110.0, len(seen))
    return [bool(one) for one in choose_faces(flags, areas, known, speech, FPS)]


def test_of_two_the_speaker_is_taken_whatever_the_size() -> None:
    assert choose([ALL, ALL], [moves(SPEECH), SILENT]) == [True, False]
    assert choose([ALL, ALL], [SILENT, moves(SPEECH)]) == [False, True]


def test_one_face_is_taken_whatever_its_lips_do() -> None:
    assert choose([ALL], [SILENT]) == [True]
    assert choose([ALL], [SILENT], NEVER) == [True]
    assert choose([slice(0, 10), slice(10, 40)], [SILENT, moves(SPEECH)]) == [True, True]


@pytest.mark.parametrize("speech", [SPEECH, NEVER])
def test_if_nobodys_lips_go_with_speech_it_is_the_longest_and_largest(
    speech: NDArray[np.bool_],
) -> None:
    assert choose([ALL, ALL], [SILENT, SILENT], speech) == [False, True]
    assert choose([ALL, slice(0, 30)], [SILENT, SILENT], speech) == [True, False]


def test_without_speech_moving_lips_do_not_count() -> None:
    assert choose([ALL, ALL], [moves(SPEECH), SILENT], NEVER) == [False, True]


def test_after_a_cut_only_a_face_whose_lips_go_with_the_speech_is_taken_as_well() -> None:
    before, after = slice(0, 18), slice(18, 40)
    seen = [before, before, after, after]
    motions = [moves(SPEECH), SILENT, SILENT, moves(SPEECH)]
    assert choose(seen, motions) == [True, False, False, True]
    assert choose(seen[:3], motions[:3]) == [True, False, False]


def test_of_shot_and_reverse_shot_only_a_face_whose_lips_go_with_the_speech_is_taken() -> None:
    shots, between = np.zeros(COUNT, dtype=bool), slice(14, 21)
    shots[:14] = shots[21:] = True
    flags = np.stack([shots, ~shots])
    for listener, taken in ((SILENT, False), (moves(SPEECH), True)):
        known = np.where(flags, np.stack([moves(SPEECH), listener]), np.nan)
        chosen = choose_faces(flags, np.array([100.0, 110.0]), known, SPEECH, FPS)
        assert chosen.tolist() == [True, taken]
    alone = choose([slice(0, 14), between, slice(21, 40)], [moves(SPEECH), SILENT, SILENT])
    assert alone == [True, True, True]  # three people, or one in three scenes
