"""Clip: one sample, and its members in a WebDataset tar.

| member | content |
|---|---|
| `<key>.json` | every field of `Clip` that is not an array or image, by its name |
| `<key>.face.npy` | float16 `[T_face, D_face]`, one row a frame |
| `<key>.expression.npy` | float16 `[T_face, K]`, the face network's class posteriors |
| `<key>.speech.npy` | float16 `[T_speech, D_speech]` |
| `<key>.jpg` | an image |

A missing modality is a missing member; a clip that is a whole file has neither `span` nor `region`
in its `.json`. A face row (and its expression row) of zeros marks a frame
in which no face was seen: it keeps its place in time, and no objective takes it as a target.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Label: TypeAlias = str | int | float | list[int]
"""A class name, a class number, a score, or the numbers of a multi-label task."""


class Word(NamedTuple):
    """A spoken word and its time in the clip, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Clip:
    """One utterance: aligned text, face and speech features, and what is known about it.

    Attributes:
        key: name of the sample in its tar; unique in the dataset, without a dot or a slash.
        text: the raw transcript; None if there is none.
        language: ISO 639-1 code, "" where unknown.
        words: the transcript's words with their times, empty where unknown.
        duration_s: length in seconds.
        speaker, session: names used by speaker-independent folds, "" where unknown.
        labels: task name -> label.
        tags: free tags (the image-text-tags task).
        source: the file that the clip was cut from.
        span: begin and end of the utterance in it, in seconds; None: all of it.
        region: where the speaker's picture is, (left, top, right, bottom) as shares of the
            picture's width and height; None: anywhere.
        face: float16 (T_face, D_face), a row a frame at the dataset's face fps; None if missing.
        expression: float16 (T_face, K), class posteriors of the same frames; None if missing.
        speech: float16 (T_speech, D_speech); None if missing.
        image: the bytes of a JPEG file; None if missing.
    """

    key: str
    text: str | None = None
    language: str = ""
    words: tuple[Word, ...] = ()
    duration_s: float = 0.0
    speaker: str = ""
    session: str = ""
    labels: dict[str, Label] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    source: str = ""
    span: tuple[float, float] | None = None
    region: tuple[float, float, float, float] | None = None
    face: NDArray[np.float16] | None = None
    expression: NDArray[np.float16] | None = None
    speech: NDArray[np.float16] | None = None
    image: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its rows and its image."""
        size = 0 if self.image is None else len(self.image)
        for rows in (self.face, self.expression, self.speech):
            size += 0 if rows is None else rows.nbytes
        return size

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it to learn from; blank text is no text."""
        for rows in (self.speech, self.face):
            if rows is not None and len(rows):
                return False
        return not (self.image or self.tags or (self.text or "").strip())


JSON = "json"
FACE = "face.npy"
EXPRESSION = "expression.npy"
SPEECH = "speech.npy"
IMAGE = "jpg"
MEMBERS = (JSON, FACE, EXPRESSION, SPEECH, IMAGE)
"""Member suffixes, in the order in which they stand in a tar."""

MOST_BYTES = 16 << 20
"""Of all members of a sample: eight minutes of 768-dimensional speech rows and of face rows. What
is larger is no utterance, and its text alone could take gigabytes to be cut into pieces."""

LONGEST_KEY = 255
"""Characters; a file's name has no more either."""

TOO_LARGE = f"has more than {MOST_BYTES >> 20} MiB, which is more than an utterance has"
NOTHING = "has neither text nor a face nor sound nor an image"

_FIELDS: dict[str, Any] = {
    "text": str | None,
    "language": str,
    "duration_s": int | float,
    "speaker": str,
    "session": str,
    "labels": dict,
    "source": str,
}
"""Fields that stand in the JSON member as they are, and their types."""

_PLACES = ("span", "region")
"""Fields that stand there if they are not None, as lists of numbers."""

_ROWS = {FACE: "face", EXPRESSION: "expression", SPEECH: "speech"}


class Fault(StrEnum):
    """The kinds of what can be wrong with data, by which they are counted."""

    LOST = "lost or cut off"
    CHANGED = "changed since it was written"
    FOREIGN = "foreign member"
    TWICE = "there twice"
    APART = "members apart"
    LARGE = "too large"
    FORM = "of the wrong form"
    SCHEMA = "not of the dataset's schema"
    VALUES = "impossible values"
    EMPTY = "nothing in it"
    INDEX = "bad index"
    UNLISTED = "not in dataset.json"


class BadSampleError(Exception):
    """A sample that cannot be used: the member at fault and the reason.

    Attributes:
        member: suffix of the member, "" for the sample as a whole.
        reason: what is wrong with it, in one line that can be shown.
        fault: the kind of it.
    """

    def __init__(self, member: str, reason: str, fault: Fault = Fault.FORM) -> None:
        super().__init__(f"{member}: {reason}" if member else reason)
        self.member = member
        self.reason = reason
        self.fault = fault


def is_key(key: str) -> bool:
    """Whether a clip can have this key: it comes back from a tar as it is, and can be shown."""
    return 0 < len(key) <= LONGEST_KEY and not set(key) & set("./\\") and key.isprintable()


def clip_members(clip: Clip) -> list[tuple[str, bytes]]:
    """The clip as (suffix, content) in the order of `MEMBERS`; what is missing is left out."""
    record = {name: getattr(clip, name) for name in _FIELDS}
    record["words"] = [[word.text, word.start_s, word.end_s] for word in clip.words]
    record["tags"] = list(clip.tags)
    places = {name: getattr(clip, name) for name in _PLACES}
    record |= {name: list(place) for name, place in places.items() if place is not None}
    content = json.dumps(record, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
    members = [(JSON, content)]
    for suffix, name in _ROWS.items():
        rows = getattr(clip, name)
        if rows is not None:
            members.append((suffix, _npy_bytes(rows)))
    if clip.image is not None:
        members.append((IMAGE, clip.image))
    return members


def clip_from_members(
    key: str, members: Mapping[str, bytes | memoryview], unchanged: bool = False
) -> Clip:
    """Read a clip; arrays are views of the members' bytes, not copies.

    Args:
        key: of the clip.
        members: suffix -> content.
        unchanged: a checksum tells that they are bit for bit what has been read before without an
            error: numbers, words and kinds are not checked again.

    Raises:
        BadSampleError: no JSON member, a member of the wrong form, rows that are not finite, face
            and expression rows of different number, or more than `MOST_BYTES`.
    """
    if JSON not in members:
        raise BadSampleError(JSON, "is missing", Fault.LOST)
    if sum(map(len, members.values())) > MOST_BYTES:
        raise BadSampleError("", TOO_LARGE, Fault.LARGE)
    rows: dict[str, Any] = {
        name: read_npy(suffix, members[suffix])
        for suffix, name in _ROWS.items()
        if suffix in members
    }
    if not unchanged:
        for suffix, name in _ROWS.items():
            _check_finite(suffix, rows.get(name))
    if {"face", "expression"} <= rows.keys() and len(rows["face"]) != len(rows["expression"]):
        counts = f"{len(rows['expression'])} rows for {len(rows['face'])} of the face"
        raise BadSampleError(EXPRESSION, counts)
    image = bytes(members[IMAGE]) if IMAGE in members else None
    return Clip(key=key, image=image, **rows, **_read_record(members[JSON], unchanged))


def read_text(members: bytes | memoryview) -> str | None:
    """The transcript in a JSON member.

    Raises:
        BadSampleError: the member is not of the right form.
    """
    text: str | None = _read_record(members).get("text")
    return text


def _read_record(content: bytes | memoryview, unchanged: bool = False) -> dict[str, Any]:
    """The JSON member as arguments of `Clip`; what it does not name keeps its default."""
    try:
        text = str(content, "utf8").strip(_BLANKS)
        record, end = _DECODER.raw_decode(text)  # `decode` strips as well, and takes longer
        if end < len(text):
            raise ValueError(f"there is more than a record: {text[end:]!r:.50}")
        known = {name: record[name] for name in _FIELDS if name in record}
        make = _known_word if unchanged else _checked_word
        words = tuple(map(make, record.get("words", ())))
        tags = tuple(map(str, record.get("tags", ())))
        places = {name: tuple(map(_finite, record[name])) for name in _PLACES if name in record}
        if not math.isfinite(known.get("duration_s", 0)):
            raise ValueError("duration_s is infinite")
        if not unchanged and "\\u" in text:
            _ENCODER.encode(record).encode()  # fails on half a surrogate pair
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadSampleError(JSON, f"not a clip's record ({error})") from None
    if not unchanged:
        _check_kinds(known)
        _check_places(**places)
    return {**known, **places, "words": words, "tags": tags}


def _check_kinds(known: Mapping[str, Any]) -> None:
    """Refuse a field that is not what `Clip` says of it."""
    for name, value in known.items():
        if not isinstance(value, _FIELDS[name]):
            raise BadSampleError(JSON, f"{name} cannot be {value!r:.50}")
    for name, label in known.get("labels", {}).items():
        if not isinstance(label, str | int) and not _is_score(label) and not _are_numbers(label):
            raise BadSampleError(JSON, f"label {name!r:.50} cannot be {label!r:.50}")


def _check_places(span: Sequence[float] = (0, 1), region: Sequence[float] = (0, 0, 1, 1)) -> None:
    """Refuse a span or a region that is empty, or lies outside of the file or the picture."""
    if len(span) != 2 or not 0 <= span[0] < span[1]:
        raise BadSampleError(JSON, f"span cannot be {span!r:.50}")
    corners = zip(region[:2], region[2:], strict=False)
    if len(region) != 4 or not all(0 <= low < high <= 1 for low, high in corners):
        raise BadSampleError(JSON, f"region cannot be {region!r:.50}")


def _checked_word(word: Sequence[object]) -> Word:
    text, start_s, end_s = word
    return Word(str(text), _finite(start_s), _finite(end_s))


def _finite(value: object) -> float:
    """A number; 10**400 and 1e999, which JSON can spell, are none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.50} is no finite number")
    return float(value)


def _is_score(label: object) -> bool:
    return isinstance(label, float) and math.isfinite(label)


def _are_numbers(label: object) -> bool:
    """Whether this is the label of a multi-label task."""
    return isinstance(label, list) and all(isinstance(one, int) for one in label)


def _refuse_number(name: str) -> None:
    """Called for NaN and Infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is no number")


_BLANKS = " \t\r\n"
"""What may stand around JSON."""
_known_word = partial(tuple.__new__, Word)
"""`Word._make` without its check of the length, in two thirds of the time."""
_DECODER = json.JSONDecoder(parse_constant=_refuse_number)
_ENCODER = json.JSONEncoder(ensure_ascii=False)

_FLOAT16, _FLOAT32 = 2, 4
"""Bytes."""

_FLOATS: dict[int, np.dtype[Any]] = {_FLOAT16: np.dtype("<f2"), _FLOAT32: np.dtype("<f4")}

_NPY_MAGIC = b"\x93NUMPY"
_NPY_START = _NPY_MAGIC + b"\x01\x00"
_USUAL_START = 128
_NPY_HEADER = re.compile(
    rb"\{'descr': '<f([24])', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9})\), \}\s*"
)


def _npy_bytes(rows: NDArray[np.float16]) -> bytes:
    """A two-dimensional array as a version 1.0 npy file."""
    assert rows.ndim == 2, f"rows are (T, D), not {rows.shape}"
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {rows.shape}, }}"
    padding = -(len(_NPY_MAGIC) + 4 + len(header) + 1) % 64
    header = f"{header}{' ' * padding}\n"
    start = _NPY_MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header.encode("latin1")
    return start + rows.astype("<f2").tobytes()


def npy_shape(member: str, content: bytes | memoryview) -> tuple[int, int]:
    """Rows and columns that an npy member declares; its data are not looked at.

    Raises:
        BadSampleError: not an npy file of float16 or float32 rows.
    """
    _, shape, _ = _npy_header(member, content)
    return shape


def read_npy(member: str, content: bytes | memoryview) -> NDArray[np.float16]:
    """Rows (T, D) as a view of the member's bytes; float32 is converted.

    The header is matched against the one form that is allowed and is never evaluated, so an array
    of objects (a pickle) cannot get in.

    Raises:
        BadSampleError: not an npy file of float16 or float32 rows, or of the wrong length.
    """
    width, shape, start = _npy_header(member, content)
    size = shape[0] * shape[1] * width
    if len(content) - start != size:
        raise BadSampleError(member, f"{len(content) - start} bytes of data, {size} declared")
    rows: NDArray[Any] = np.ndarray(shape, _FLOATS[width], content, start)
    if width == _FLOAT16:
        return rows
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused as such
        return rows.astype(np.float16)


def _npy_header(member: str, content: bytes | memoryview) -> tuple[int, tuple[int, int], int]:
    """Bytes of a number, shape, and where the data begin."""
    usual = _usual_header(bytes(content[:_USUAL_START]))
    if usual is not None:
        return *usual, _USUAL_START
    if bytes(content[:8]) != _NPY_START:
        raise BadSampleError(member, "not a version 1.0 npy file")
    start = 10 + int.from_bytes(content[8:10], "little")
    header = bytes(content[10:start])
    found = _match_header(header)
    if found is None:
        shown = header.decode("latin1").strip()
        reason = f"not float16 or float32 rows in C order, but {shown!r:.100}"
        raise BadSampleError(member, reason)
    return *found, start


def _match_header(header: bytes) -> tuple[int, tuple[int, int]] | None:
    """Bytes of a number, and shape; None if it is not the one form that is allowed."""
    match = _NPY_HEADER.fullmatch(header)
    return match and (int(match[1]), (int(match[2]), int(match[3])))


@lru_cache(4096)
def _usual_header(begin: bytes) -> tuple[int, tuple[int, int]] | None:
    """The same of a file's first bytes, which come again and again; None if it is longer."""
    length = (_USUAL_START - 10).to_bytes(2, "little")
    return _match_header(begin[10:]) if begin.startswith(_NPY_START + length) else None


def _check_finite(member: str, rows: NDArray[np.float16] | None) -> None:
    """Refuse rows that are not."""
    if rows is None:
        return
    magnitudes = rows.view(np.uint16) & _NO_SIGN
    if np.maximum.reduce(magnitudes, axis=None, initial=0) >= _INFINITY:
        raise BadSampleError(member, "holds NaN or infinity", Fault.VALUES)


_NO_SIGN = np.uint16(0x7FFF)
_INFINITY = 0x7C00
"""Bits of a float16: magnitudes from infinity on are infinity and the NaNs."""
