"""Finds the speaker's face in a frame sequence and cuts it out as FER2013 would have cut it.

OpenCV's Haar cascades (Viola and Jones, CVPR 2001) look for the face and its eyes in every third
frame; what lies between is interpolated. FER2013's crops are those of such a face detector too: its
box is 0.974 of their side, the eyes lie 0.37 of the side apart and 0.38 of it from the top (medians
over 362 and 281 faces of its train split).
"""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

from data_pipeline.features.speaker import choose_faces, lip_motion
from data_pipeline.features.tracks import Track, join_faces, notable_tracks

DETECT_EVERY = 3
"""Frames from one detection to the next."""
SMOOTHING = 5
"""Detections over which the moving median is taken."""
SEARCH_PIXELS = 200
"""Larger frames are searched at this length of their short side."""
SPEAKER_PIXELS = 48
"""Lips in larger faces are judged at this size, on which the thresholds were chosen."""
BOX_SHARE = 0.974
EYE_DISTANCE = 0.37
EYE_HEIGHT = 0.38

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]
View = tuple[Frames, NDArray[np.bool_]]


def align_faces(
    frames: Frames,
    size: int,
    speech: NDArray[np.bool_] | None = None,
    boxes: dict[int, Floats] | None = None,
) -> tuple[Frames, NDArray[np.bool_]]:
    """Follow the face that speaks through the frames and cut it out, upright where eyes are seen.

    Args:
        frames: uint8 (T, H, W), grey, about 10 a second.
        size: height and width of the faces, in pixels.
        speech: in which frames somebody speaks, (T,); None: not known. Where several faces are in
            sight, it tells whose is taken (see `choose_faces`).
        boxes: what `search_faces` finds in them, if that is known already.

    Returns:
        Grey faces uint8 (T, size, size), zeros where there is none, and which were found, (T,).
        A frame without a detection counts as found between two detections of one face that are
        at most `MAX_GAP` frames apart, and nowhere else.
    """
    cv2.setNumThreads(1)  # one process a core; and the same result on every machine
    count = len(frames)
    boxes = search_faces(frames) if boxes is None else boxes
    tracks = notable_tracks(join_faces(boxes, frames), count)
    faces, found = np.zeros((count, size, size), np.uint8), np.zeros(count, dtype=bool)
    views = [_view(frames, track, size) for track in tracks]
    for cut, seen in _speaking(tracks, views, np.zeros(count, bool) if speech is None else speech):
        faces[seen], found = cut[seen], found | seen
    return faces, found


def _speaking(tracks: list[Track], views: list[View], speech: NDArray[np.bool_]) -> list[View]:
    """The views of the person who speaks, of all; no two of the same frame."""
    if len(views) < 2:
        return views
    chosen = choose_faces(
        seen=np.array([seen for _, seen in views]),
        areas=np.array([track.area() for track in tracks]),
        motions=np.array([_lips(*view) for view in views]),
        speech=speech,
    )
    return [view for view, taken in zip(views, chosen, strict=True) if taken]


def _lips(faces: Frames, seen: NDArray[np.bool_]) -> Floats:
    """The motion of the lips in a view, (T,), whatever the size of its faces."""
    large = faces.shape[1] > SPEAKER_PIXELS
    return lip_motion(shrink_faces(faces, SPEAKER_PIXELS) if large else faces, seen)


def _view(frames: Frames, track: Track, size: int) -> View:
    """A track's faces, cut out, (T, size, size), zeros where it is not seen; and where it is."""
    squares = _squares(track, frames)  # (T, 4)
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


def _squares(track: Track, greys: Frames) -> Floats:
    """Squares to cut, (T, 4): centre x, y and side in pixels, angle in radians; NaN: no face."""
    squares = np.full((len(greys), 4), np.nan)
    for times, boxes in track.runs():
        eyes = np.array([_find_eyes(greys[at], box) for at, box in zip(times, boxes, strict=True)])
        seen = ~np.isnan(eyes[:, 0])
        if seen.sum() * 2 > len(times):
            known, rows = times[seen], _squares_of_eyes(eyes[seen])
        else:
            known, rows = times, _squares_of_boxes(boxes)
        frames = np.arange(times[0], times[-1] + 1)
        smooth = _moving_median(rows)
        squares[frames] = np.stack(
            [np.interp(frames, known, column) for column in smooth.T], axis=1
        )
    return squares


def search_faces(frames: Frames) -> dict[int, Floats]:
    """Boxes (n, 4) of the faces in each searched frame that shows any, by its number.

    Args:
        frames: uint8 (T, H, W), grey.
    """
    searched = {*range(0, len(frames), DETECT_EVERY), len(frames) - 1} - {-1}
    found = {at: _find_faces(frames[at]) for at in sorted(searched)}
    return {at: boxes for at, boxes in found.items() if len(boxes)}


def _moving_median(rows: Floats) -> Floats:
    """Median of each row's `SMOOTHING` neighbours, itself in the middle; ends repeat. (n, 4)."""
    half = SMOOTHING // 2
    padded = np.pad(rows, ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTHING, axis=0)  # (n, 4, window)
    return np.asarray(np.median(windows, axis=2))


def _squares_of_boxes(boxes: Floats) -> Floats:
    """Detectors' boxes (n, 4) -> upright squares (n, 4)."""
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    sides = boxes[:, 2] / BOX_SHARE
    return np.column_stack([centres, sides, np.zeros(len(boxes))])


def _squares_of_eyes(eyes: Floats) -> Floats:
    """Eyes (left x, y, right x, y) (n, 4) -> squares (n, 4) with the eyes level."""
    left, right = eyes[:, :2], eyes[:, 2:]
    across = right - left
    angles = np.arctan2(across[:, 1], across[:, 0])
    sides = np.hypot(across[:, 0], across[:, 1]) / EYE_DISTANCE
    down = np.stack([-np.sin(angles), np.cos(angles)], axis=1)
    centres = (left + right) / 2 + down * (sides * (0.5 - EYE_HEIGHT))[:, None]
    return np.column_stack([centres, sides, angles])


def _find_faces(grey: Frames) -> Floats:
    """Boxes of frontal faces, (n, 4), in pixels of the frame."""
    scale: float = min(1.0, SEARCH_PIXELS / min(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    least = max(24, min(small.shape) // 8)
    found = _cascade("haarcascade_frontalface_default").detectMultiScale(
        small, scaleFactor=1.15, minNeighbors=4, minSize=(least, least)
    )
    boxes: Floats = np.asarray(found, np.float64).reshape(-1, 4)
    return boxes / scale


def _find_eyes(grey: Frames, box: Floats) -> Floats:
    """Left and right eye (x, y, x, y) of a face as the picture shows them; NaN if not plain."""
    x, y, width, height = box.astype(int)
    top, bottom = y + height // 6, y + height * 11 // 20
    region = grey[max(top, 0) : bottom, max(x, 0) : x + width]
    scale = min(1.0, 140 / width)
    small = cv2.resize(region, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    least = int(width * scale) // 7
    found = _cascade("haarcascade_eye").detectMultiScale(
        small, scaleFactor=1.1, minNeighbors=4, minSize=(least, least)
    )
    eyes = np.asarray(found, np.float64).reshape(-1, 4) / scale
    centres = eyes[:, :2] + eyes[:, 2:] / 2 + (max(x, 0), max(top, 0))
    return _pair(centres, float(width))


def _pair(centres: Floats, width: float) -> Floats:
    """Two centres that lie as eyes do in a box of this width, left first; else NaN. (4,)."""
    if len(centres) == 2:
        left, right = centres[centres[:, 0].argsort()]
        across = right - left
        if 0.25 < across[0] / width < 0.55 and abs(across[1]) < 0.4 * across[0]:
            return np.concatenate([left, right])
    return np.full(4, np.nan)


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


@lru_cache
def _cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(haarcascades) / f"{name}.xml"))
