"""Faces found here and there in time -> tracks, one of each person in the picture.

A face is the one before it whose box it overlaps, as long as the picture as a whole is still the
same: after a cut, somebody else may be in the same place. Who leaves and comes back to the same
place, or is seen again when the picture has cut back to it, has one track with a gap.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_GAP_S = 1.0
"""Longest stretch between two detections that is interpolated."""
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
        faces: (4 + k,) float64 of each: x, y, width and height of the box, in pixels, and what
            else the detector tells.
        begins: the detections before which the face was away too long, or another shot was seen.
    """

    times: list[int] = field(default_factory=list)
    faces: list[Floats] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)

    def runs(self) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Stretches that can be interpolated: frame numbers (n,) and faces (n, 4 + k)."""
        times = np.split(np.array(self.times), self.begins)
        yield from zip(times, np.split(np.stack(self.faces), self.begins), strict=True)

    def seen(self, count: int) -> NDArray[np.bool_]:
        """In which of `count` frames the face is seen, or was before and after: (count,)."""
        seen = np.zeros(count, dtype=bool)
        for times, _ in self.runs():
            seen[times[0] : times[-1] + 1] = True
        return seen

    def area(self) -> float:
        """Mean area of its boxes, in square pixels."""
        return float(np.mean([_area(face) for face in self.faces]))


def join_faces(faces: Mapping[int, Floats], frames: Frames, fps: float) -> list[Track]:
    """Join the faces of some frames into tracks.

    Args:
        faces: those (n, 4 + k) of each frame that shows any, by its number, ascending; the first
            four numbers are the box.
        frames: uint8 (T, H, W), grey.
        fps: frames a second.
    """
    gap = max(1, round(MAX_GAP_S * fps))
    tracks: list[Track] = []
    thumbnails: dict[int, Floats] = {}
    for at, found in faces.items():
        thumbnails[at] = _thumbnail(frames[at])
        going_on = [
            track for track in tracks if not _is_cut(thumbnails[track.times[-1]], thumbnails[at])
        ]
        joined = _match(going_on, found, at - gap)
        for number in np.argsort(-found[:, 2], kind="stable").tolist():
            if not any(_is_part(found[number], found[other]) for other in joined):
                tracks.append(joined.setdefault(number, Track()))
        begin = _begin_of_shot(thumbnails, at, at - gap)
        for number, track in joined.items():
            if track.times and track.times[-1] < begin:
                track.begins.append(len(track.times))
            track.times.append(at)
            track.faces.append(found[number])
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


def _begin_of_shot(thumbnails: Mapping[int, Floats], at: int, earliest: int) -> int:
    """The last frame before this one that is another scene's, or the earliest of interest."""
    before = (time for time in range(at - 1, earliest, -1) if time in thumbnails)
    return next((one for one in before if _is_cut(thumbnails[one], thumbnails[at])), earliest)


def _match(tracks: list[Track], faces: Floats, lately: int) -> dict[int, Track]:
    """Which track goes on with which face: those seen lately first, then those that overlap most.

    Args:
        tracks: that may go on.
        faces: of one frame, (n, 4 + k).
        lately: the frame from which on a track was seen lately.
    """
    pairs = [
        (track.times[-1] >= lately, overlap, -place, -number)
        for place, track in enumerate(tracks)
        for number, face in enumerate(faces)
        if (overlap := _overlap(face, track.faces[-1])) > 0
    ]
    matched: dict[int, Track] = {}
    taken: set[int] = set()
    for _, _, place, number in sorted(pairs, reverse=True):
        if -number not in matched and -place not in taken:
            matched[-number] = tracks[-place]
            taken.add(-place)
    return matched


def _overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two faces' boxes."""
    shared = _shared(one, other)
    return shared / (_area(one) + _area(other) - shared)


def _is_part(one: Floats, other: Floats) -> bool:
    """Whether a face is another one found a second time, or a part of it taken for a face."""
    return _shared(one, other) > 0.5 * min(_area(one), _area(other))


def _area(face: Floats) -> float:
    """Of its box, in square pixels."""
    return float(face[2] * face[3])


def _shared(one: Floats, other: Floats) -> float:
    """Area of the intersection of two faces' boxes."""
    low = np.maximum(one[:2], other[:2])
    high = np.minimum(one[:2] + one[2:4], other[:2] + other[2:4])
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
