"""Faces found here and there in time -> tracks, one of each person in the picture.

A face is the one before it whose box it overlaps, as long as the picture as a whole is still the
same: after a cut, somebody else may be in the same place. Who leaves and comes back to the same
place has one track with a gap.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_GAP = 10
"""Longest stretch between two detections that is interpolated, in frames: one second at 10 fps."""
LEAST_SHARE = 0.2
"""Of all frames; a track seen in fewer, beside a longer one, is no speaker's (MEmoBERT)."""
THUMBNAIL = 16
"""Side of the pictures that are compared, in pixels."""

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass
class Track:
    """The detections of one face.

    Attributes:
        times: frame numbers, ascending.
        boxes: x, y, width and height, (4,) float64 in pixels, of each.
    """

    times: list[int] = field(default_factory=list)
    boxes: list[Floats] = field(default_factory=list)

    def runs(self) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Stretches without a gap that is too long: frame numbers (n,) and boxes (n, 4)."""
        times = np.array(self.times)
        ends = np.flatnonzero(np.diff(times) > MAX_GAP) + 1
        boxes = np.split(np.stack(self.boxes), ends)
        yield from zip(np.split(times, ends), boxes, strict=True)

    def seen(self, count: int) -> NDArray[np.bool_]:
        """In which of `count` frames the face is seen, or was before and after: (count,)."""
        seen = np.zeros(count, dtype=bool)
        for times, _ in self.runs():
            seen[times[0] : times[-1] + 1] = True
        return seen

    def area(self) -> float:
        """Mean area of its boxes, in square pixels."""
        return float(np.mean([box[2] * box[3] for box in self.boxes]))


def join_faces(faces: Mapping[int, Floats], frames: Frames) -> list[Track]:
    """Join the faces of some frames into tracks.

    Args:
        faces: boxes (n, 4) of the faces in each frame that was searched, by its number, ascending.
        frames: uint8 (T, H, W), grey.
    """
    tracks: list[Track] = []
    thumbnails: dict[int, Floats] = {}
    for at, boxes in faces.items():
        thumbnails[at] = _thumbnail(frames[at])
        going_on = [
            track for track in tracks if not _is_cut(thumbnails[track.times[-1]], thumbnails[at])
        ]
        joined = _match(going_on, boxes, at)
        for number in np.argsort(-boxes[:, 2], kind="stable").tolist():
            if not any(_is_part(boxes[number], boxes[other]) for other in joined):
                tracks.append(joined.setdefault(number, Track()))
        for number, track in joined.items():
            track.times.append(at)
            track.boxes.append(boxes[number])
    return tracks


def notable_tracks(tracks: list[Track], count: int) -> list[Track]:
    """The tracks without those that are seen in few of `count` frames, beside a longer one.

    Most of them are no faces, but what the detector took for one.
    """
    if not tracks:
        return []
    seen = np.array([track.seen(count) for track in tracks])
    lengths = seen.sum(axis=1)
    beside = seen.astype(int) @ seen.T.astype(int) > 0
    minor = (lengths < LEAST_SHARE * count) & (beside & (lengths > lengths[:, None])).any(axis=1)
    return [track for track, left_out in zip(tracks, minor, strict=True) if not left_out]


def _match(tracks: list[Track], boxes: Floats, at: int) -> dict[int, Track]:
    """Which track goes on with which box: those seen lately first, then those that overlap most."""
    pairs = [
        (at - track.times[-1] <= MAX_GAP, overlap, -place, -number)
        for place, track in enumerate(tracks)
        for number, box in enumerate(boxes)
        if (overlap := _overlap(box, track.boxes[-1])) > 0
    ]
    matched: dict[int, Track] = {}
    taken: set[int] = set()
    for _, _, place, number in sorted(pairs, reverse=True):
        if -number not in matched and -place not in taken:
            matched[-number] = tracks[-place]
            taken.add(-place)
    return matched


def _overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two boxes."""
    shared = _shared(one, other)
    return shared / (float(np.prod(one[2:]) + np.prod(other[2:])) - shared)


def _is_part(one: Floats, other: Floats) -> bool:
    """Whether a box is another one found a second time, or a part of it taken for a face."""
    return _shared(one, other) > 0.5 * float(min(np.prod(one[2:]), np.prod(other[2:])))


def _shared(one: Floats, other: Floats) -> float:
    """Area of the intersection of two boxes."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    return float(np.prod(np.clip(high - low, 0, None)))


def _thumbnail(frame: Frames) -> Floats:
    """The frame (H, W), small and of mean 0."""
    small = cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    floats = np.asarray(small, dtype=np.float64)
    return np.asarray(floats - floats.mean())


def _is_cut(before: Floats, after: Floats) -> bool:
    """Whether thumbnails differ as those of two scenes: of equal contrast, a correlation < 0.5."""
    spread = np.square(before).mean() + np.square(after).mean()
    return bool(np.square(before - after).mean() > spread / 2)
