"""Follows the speaker's face through a frame sequence and cuts it out as FER2013 would have cut it.

A detector looks for faces a few times a second; what lies between is interpolated.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data_pipeline.features.detector import FaceDetector, Floats, Frames
from data_pipeline.features.speaker import choose_faces, lip_motion, score_speakers
from data_pipeline.features.tracks import Track, join_faces, notable_tracks

DETECT_EVERY_S = 0.3
"""From one detection to the next."""
SMOOTHING = 5
"""Detections over which the moving median is taken."""
SPEAKER_PIXELS = 48
"""Lips in larger faces are judged at this size, on which the thresholds were chosen."""

View = tuple[Frames, NDArray[np.bool_]]


class Aligned(NamedTuple):
    """The speaker's faces.

    Attributes:
        faces: uint8 (T, size, size), grey, zeros where there is none.
        found: which were found, (T,).
        score: how well the lips go with the speech, from 1 to 3 (see `score_speakers`); 0: nobody's
            do, or nobody is heard. None: not judged.
    """

    faces: Frames
    found: NDArray[np.bool_]
    score: float | None = None


def align_faces(
    frames: Frames,
    size: int,
    detector: FaceDetector,
    fps: float,
    speech: NDArray[np.bool_] | None = None,
    faces: dict[int, Floats] | None = None,
) -> Aligned:
    """Follow the face that speaks through the frames and cut it out, upright where eyes are seen.

    Args:
        frames: uint8 (T, H, W), grey.
        size: height and width of the faces, in pixels.
        detector: looks for them.
        fps: frames a second.
        speech: in which frames somebody speaks, (T,); None: not known. Where several faces are in
            sight, it tells whose is taken (see `choose_faces`).
        faces: what `search_faces` finds in them, if that is known already.

    Returns:
        A frame without a detection counts as found between two detections of one face that are
        at most `MAX_GAP_S` apart in one shot, and nowhere else.
    """
    cv2.setNumThreads(1)  # one process a core; and the same result on every machine
    count = len(frames)
    faces = search_faces(frames, detector, fps) if faces is None else faces
    tracks = notable_tracks(join_faces(faces, frames, fps), count)
    cuts, found = np.zeros((count, size, size), np.uint8), np.zeros(count, dtype=bool)
    views = [_view(frames, _squares(track, frames, detector), size) for track in tracks]
    speech = np.zeros(count, dtype=bool) if speech is None else speech
    motions = np.array([_lips(*view) for view in views])  # (K, T)
    for cut, seen in _speaking(tracks, views, motions, speech, fps):
        cuts[seen], found = cut[seen], found | seen
    score = float(score_speakers(motions, speech, fps).max()) if views else 0.0
    return Aligned(cuts, found, round(score, 4))


def _speaking(
    tracks: list[Track], views: list[View], motions: Floats, speech: NDArray[np.bool_], fps: float
) -> list[View]:
    """The views of the person who speaks, of all; no two of the same frame."""
    if len(views) < 2:
        return views
    chosen = choose_faces(
        seen=np.array([seen for _, seen in views]),
        areas=np.array([track.area() for track in tracks]),
        motions=motions,
        speech=speech,
        fps=fps,
    )
    return [view for view, taken in zip(views, chosen, strict=True) if taken]


def _lips(faces: Frames, seen: NDArray[np.bool_]) -> Floats:
    """The motion of the lips in a view, (T,), whatever the size of its faces."""
    large = faces.shape[1] > SPEAKER_PIXELS
    return lip_motion(shrink_faces(faces, SPEAKER_PIXELS) if large else faces, seen)


def _view(frames: Frames, squares: Floats, size: int) -> View:
    """The squares (T, 4) cut out, (T, size, size), zeros where there is none; and where one is."""
    seen = ~np.isnan(squares[:, 0])
    faces = np.zeros((len(frames), size, size), np.uint8)
    for at in np.flatnonzero(seen):
        faces[at] = _cut(frames[at], squares[at], size)
    return faces, seen


def shrink_faces(frames: Frames, size: int) -> Frames:
    """Pictures that are faces already: uint8 (T, H, W) -> (T, size, size)."""
    faces = np.zeros((len(frames), size, size), np.uint8)
    for at, frame in enumerate(frames):
        faces[at] = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    return faces


def _squares(track: Track, frames: Frames, detector: FaceDetector) -> Floats:
    """Squares to cut, (T, 4): centre x, y and side in pixels, angle in radians; NaN: no face."""
    squares = np.full((len(frames), 4), np.nan)
    for times, faces in track.runs():
        rows = detector.squares(frames[times], faces)
        known = ~np.isnan(rows[:, 0])
        between = np.arange(times[0], times[-1] + 1)
        smooth = _moving_median(rows[known])
        squares[between] = np.stack(
            [np.interp(between, times[known], column) for column in smooth.T], axis=1
        )
    return squares


def search_faces(frames: Frames, detector: FaceDetector, fps: float) -> dict[int, Floats]:
    """The faces (n, 4 + k) in each searched frame that shows any, by its number.

    Args:
        frames: uint8 (T, H, W), grey.
        detector: looks for them.
        fps: frames a second.
    """
    every = max(1, round(DETECT_EVERY_S * fps))
    searched = {*range(0, len(frames), every), len(frames) - 1} - {-1}
    found = {at: detector.find(frames[at]) for at in sorted(searched)}
    return {at: faces for at, faces in found.items() if len(faces)}


def _moving_median(rows: Floats) -> Floats:
    """Median of each row's `SMOOTHING` neighbours, itself in the middle; ends repeat. (n, 4)."""
    half = SMOOTHING // 2
    padded = np.pad(rows, ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTHING, axis=0)  # (n, 4, window)
    return np.asarray(np.median(windows, axis=2))


def _cut(grey: Frames, square: Floats, size: int) -> Frames:
    """One face (size, size); what lies outside the frame repeats its edge."""
    x, y, side, angle = square
    fine = size * max(1, round(side / size))  # sampled finely, then averaged: no aliasing
    step = side / fine
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * step
    corner = np.array([x, y]) - turn @ np.full(2, (fine - 1) / 2)
    cut = cv2.warpAffine(
        grey,
        np.column_stack([turn, corner]),
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
