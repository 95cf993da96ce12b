"""The time lines of one clip: places on them in percent of its length, and paths."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.clip import Clip, Word
from data_pipeline.preview.media import Media, Sound
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema, RowSchema
from memo.inference.timeline import COLOURS
from memo.preview.pictures import heat_map, jpeg_url

PIXELS_PER_S = 96
"""How wide a second is at least, so that the words can be read on a telephone."""
MOST_PIXELS = 12_000
"""The widest that time lines are drawn; the seconds of a very long clip are narrower."""
SHORTEST_S = 0.001
"""What is shorter has no time line."""
MOST_WORDS = 400
LANES = 4
"""Lines on which words stand that would overlap."""
LETTER_PIXELS = 7.5
MOST_TICKS = 10
MOST_POINTS = 400
"""Of a class's posteriors; of more rows, some at even distances are drawn."""
ACROSS, UP = 1000, 100
"""Size of a path's own coordinates."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """A part of a time line.

    Attributes:
        left, width: in percent.
    """

    left: float
    width: float


@dataclass(frozen=True)
class PlacedWord:
    """A word on the time line.

    Attributes:
        text: the word.
        at: its time.
        lane: line on which it stands, from 0.
        from_right: whether its text ends where it ends, for there is no room to its right.
    """

    text: str
    at: Span
    lane: int
    from_right: bool


@dataclass(frozen=True)
class FaceCell:
    """A picture of the strip."""

    url: str
    at: Span
    found: bool


@dataclass(frozen=True)
class Band:
    """A class of the expression.

    Attributes:
        name: of the class.
        colour: of its area.
        mean: over the frames with a face, in percent.
        path: of the area, stacked upon the classes before.
    """

    name: str
    colour: str
    mean: float
    path: str


@dataclass(frozen=True)
class RowsMap:
    """Feature rows as a picture.

    Attributes:
        name: of the modality.
        url: of the picture, "" if there are no rows.
        width: in percent of the time line.
        rows: how many.
        empty: those of zeros.
        dim: numbers in a row.
        per_s: rows a second.
    """

    name: str
    url: str
    width: float
    rows: int
    empty: int
    dim: int
    per_s: float


@dataclass(frozen=True)
class Tracks:
    """All time lines of a clip.

    Attributes:
        seconds: what they span.
        pixels: how wide they are at least.
        ticks: place in percent, and time in seconds.
        words: with a place.
        lanes: lines that the words take.
        words_left_out: how many words there are beyond `MOST_WORDS`.
        faces: pictures of the face.
        wave: path of the sound's outline, "" if there is none.
        wave_width: in percent.
        peak: the loudest sample.
        bands: classes of the expression.
        bands_width: in percent.
        maps: face and speech rows.
    """

    seconds: float
    pixels: int
    ticks: tuple[tuple[float, str], ...]
    words: tuple[PlacedWord, ...]
    lanes: int
    words_left_out: int
    faces: tuple[FaceCell, ...]
    wave: str
    wave_width: float
    peak: float
    bands: tuple[Band, ...]
    bands_width: float
    maps: tuple[RowsMap, ...]


def make_tracks(clip: Clip, features: FeatureSchema, media: Media) -> Tracks | None:
    """The time lines of a clip; None if nothing in it has a time.

    Args:
        clip: with its rows.
        features: of its dataset.
        media: what was decoded of its file.
    """
    seconds = _length_s(clip, features, media)
    if seconds < SHORTEST_S:
        return None
    pixels = math.ceil(min(seconds * PIXELS_PER_S, MOST_PIXELS))
    words = tuple(place_words(clip.words[:MOST_WORDS], seconds, pixels))
    sound = media.sound
    return Tracks(
        seconds=seconds,
        pixels=pixels,
        ticks=tuple((_percent(time, seconds), f"{time:g}") for time in _ticks(seconds)),
        words=words,
        lanes=max((word.lane + 1 for word in words), default=0),
        words_left_out=max(0, len(clip.words) - MOST_WORDS),
        faces=tuple(
            FaceCell(jpeg_url(one.picture), _span(one.begin_s, one.end_s, seconds), one.found)
            for one in media.faces
        ),
        wave=wave_path(sound) if sound else "",
        wave_width=_percent(sound.seconds, seconds) if sound else 0.0,
        peak=_peak(sound) if sound else 0.0,
        bands=tuple(_bands(clip, features.face)),
        bands_width=_bands_width(clip, features.face, seconds),
        maps=tuple(_maps(clip, features, seconds)),
    )


def place_words(words: Sequence[Word], seconds: float, pixels: int) -> Iterator[PlacedWord]:
    """Words on lines on which their texts do not overlap, as long as there are enough lines.

    Args:
        words: in any order.
        seconds: length of the time line.
        pixels: its width.
    """
    free = [0.0] * LANES
    """Where each line has room, in pixels."""
    for word in sorted(words, key=lambda one: one.start_s):
        at = _span(word.start_s, word.end_s, seconds)
        begin, end = at.left * pixels / 100, (at.left + at.width) * pixels / 100
        needs = _width(word.text)
        from_right = begin + needs > pixels
        begin = max(0.0, min(begin, end - needs)) if from_right else begin
        lane = next((one for one in range(LANES) if free[one] <= begin), int(np.argmin(free)))
        free[lane] = max(end, begin + needs)
        yield PlacedWord(word.text, at, lane, from_right)


def wave_path(sound: Sound) -> str:
    """The area between the outline's lowest and highest samples; its peak fills the height."""
    half = UP / 2
    scale = half / (_peak(sound) or 1)
    across = (np.arange(len(sound.low)) + 0.5) * ACROSS / len(sound.low)
    upper = _points(across, half - scale * sound.high.astype(np.float64))
    lower = _points(across[::-1], half - scale * sound.low[::-1].astype(np.float64))
    return f"M{upper}L{lower}Z"


def band_paths(posteriors: Floats) -> list[str]:
    """Stacked areas, one a class, left open where no face was seen.

    Args:
        posteriors: (T, K), not negative; rows of zeros have no face.
    """
    paths = [""] * posteriors.shape[1]
    for begin, end in _runs(np.asarray(posteriors.any(axis=1))):
        shares = posteriors[begin:end] / posteriors[begin:end].sum(axis=1, keepdims=True)
        held = np.pad(shares, ((1, 1), (0, 0)), mode="edge")
        heights = np.pad(np.cumsum(held, axis=1), ((0, 0), (1, 0)))
        middles = np.arange(begin, end) + 0.5
        across = np.concatenate([[begin], middles, [end]]) * ACROSS / len(posteriors)
        for number in range(len(paths)):
            lower = _points(across, UP * (1 - heights[:, number]))
            upper = _points(across[::-1], UP * (1 - heights[::-1, number + 1]))
            paths[number] += f"M{lower}L{upper}Z"
    return paths


def _length_s(clip: Clip, features: FeatureSchema, media: Media) -> float:
    """Until the last thing in a clip that has a time."""
    ends = [clip.duration_s, *(word.end_s for word in clip.words[:MOST_WORDS])]
    if clip.face is not None and features.face:
        ends.append(len(clip.face) / features.face.fps)
    if clip.speech is not None and features.speech:
        ends.append(len(clip.speech) / features.speech.rows_per_s)
    if media.sound:
        ends.append(media.sound.seconds)
    return max(ends + [face.end_s for face in media.faces])


def _ticks(seconds: float) -> Iterator[float]:
    """Round times, at most `MOST_TICKS` + 1 of them."""
    step = round_step(seconds / MOST_TICKS)
    for number in range(math.floor(seconds / step) + 1):
        yield number * step


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not smaller than `least` > 0."""
    power = float(10.0 ** math.floor(math.log10(least)))
    return next(one * power for one in (1, 2, 5, 10, 20) if one * power >= least)


def _span(begin_s: float, end_s: float, seconds: float) -> Span:
    """A part of the time line; what is outside of it is cut."""
    begin, end = (_percent(min(max(time, 0.0), seconds), seconds) for time in (begin_s, end_s))
    return Span(begin, round(max(0.0, end - begin), 3))


def _percent(time_s: float, seconds: float) -> float:
    return round(100 * (time_s / seconds), 3)


def _width(text: str) -> float:
    """About how many pixels a word takes; Chinese, Japanese and Korean letters are wide."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return (len(text) + wide + 1) * LETTER_PIXELS


def _peak(sound: Sound) -> float:
    return float(max(sound.high.max(), -sound.low.min(), 0))


def _points(across: Floats, down: Floats) -> str:
    """Points of a path."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))


def _runs(seen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each stretch that is seen, (T,)."""
    edges = np.flatnonzero(np.diff(np.pad(seen.astype(np.int8), 1)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _bands(clip: Clip, face: FaceSchema | None) -> Iterator[Band]:
    """The classes of the expression, in the schema's order."""
    if clip.expression is None or face is None or not (clip.expression > 0).any():
        return
    posteriors = clip.expression.astype(np.float64).clip(min=0)
    means = 100 * posteriors[posteriors.any(axis=1)].mean(axis=0)
    paths = band_paths(posteriors[:: math.ceil(len(posteriors) / MOST_POINTS)])
    for number, (name, path) in enumerate(zip(face.classes, paths, strict=True)):
        yield Band(name, COLOURS[number % len(COLOURS)], float(means[number]), path)


def _bands_width(clip: Clip, face: FaceSchema | None, seconds: float) -> float:
    if clip.expression is None or face is None:
        return 0.0
    return _percent(len(clip.expression) / face.fps, seconds)


def _maps(clip: Clip, features: FeatureSchema, seconds: float) -> Iterator[RowsMap]:
    """Face and speech rows, where there are any."""
    face, speech = features.face, features.speech
    if clip.face is not None and len(clip.face) and face:
        yield _map("face", clip.face, face, face.fps, seconds)
    if clip.speech is not None and len(clip.speech) and speech:
        yield _map("speech", clip.speech, speech, speech.rows_per_s, seconds)


def _map(
    name: str, rows: NDArray[np.float16], schema: RowSchema, per_s: float, seconds: float
) -> RowsMap:
    return RowsMap(
        name=name,
        url=heat_map(rows, schema.mean, schema.std),
        width=_percent(len(rows) / per_s, seconds),
        rows=len(rows),
        empty=int((~rows.any(axis=1)).sum()),
        dim=schema.dim,
        per_s=per_s,
    )
