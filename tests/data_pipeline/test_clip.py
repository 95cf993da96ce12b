"""Clips <-> members: numpy and json are the references."""

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from data_pipeline.clip import (
    EXPRESSION,
    FACE,
    JSON,
    LONGEST_KEY,
    MEMBERS,
    MOST_BYTES,
    SPEECH,
    BadSampleError,
    Clip,
    Fault,
    Word,
    clip_from_members,
    clip_members,
    is_key,
    npy_shape,
    read_npy,
    read_text,
)
from tests.data_pipeline.shards.samples import same

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SECONDS = st.floats(0, 1e6)
LABEL = TEXT | st.integers() | st.floats(-1e6, 1e6) | st.lists(st.integers(), max_size=3)


COUNT = st.integers(0, 4)

SPAN = st.tuples(SECONDS, SECONDS).filter(lambda ends: ends[0] < ends[1])
SIDES = st.integers(0, 9).flatmap(
    lambda low: st.tuples(st.just(low / 10), st.integers(low + 1, 10).map(lambda high: high / 10))
)
REGION = st.tuples(SIDES, SIDES).map(lambda both: (both[0][0], both[1][0], both[0][1], both[1][1]))


def _rows(columns: int, rows: st.SearchStrategy[int]) -> st.SearchStrategy[NDArray[np.float16]]:
    shape = rows.map(lambda count: (count, columns))
    return hnp.arrays(np.float16, shape, elements=st.floats(-60000, 60000, width=16))


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    frames = st.just(draw(COUNT))
    return Clip(
        key=draw(st.from_regex(r"[a-z0-9_가-힣]{1,8}", fullmatch=True)),
        text=draw(st.none() | TEXT),
        language=draw(TEXT),
        words=tuple(
            Word(*word) for word in draw(st.lists(st.tuples(TEXT, SECONDS, SECONDS), max_size=3))
        ),
        duration_s=draw(SECONDS),
        speaker=draw(TEXT),
        session=draw(TEXT),
        labels=draw(st.dictionaries(TEXT, LABEL, max_size=3)),
        tags=tuple(draw(st.lists(TEXT, max_size=3))),
        source=draw(TEXT),
        span=draw(st.none() | SPAN),
        region=draw(st.none() | REGION),
        face=draw(st.none() | _rows(3, frames)),
        expression=draw(st.none() | _rows(2, frames)),
        speech=draw(st.none() | _rows(5, COUNT)),
        image=draw(st.none() | st.binary(min_size=1, max_size=20)),
    )


@given(clips())
def test_members_hold_the_whole_clip(clip: Clip) -> None:
    members = dict(clip_members(clip))
    assert list(members) == [name for name in MEMBERS if name in members]
    assert same(clip_from_members(clip.key, members), clip)
    assert read_text(members[JSON]) == clip.text


@given(clips())
def test_numpy_and_json_read_the_members(clip: Clip) -> None:
    members = dict(clip_members(clip))
    for suffix, rows in ((FACE, clip.face), (EXPRESSION, clip.expression), (SPEECH, clip.speech)):
        assert (suffix in members) == (rows is not None)
        if rows is not None:
            loaded = np.load(io.BytesIO(members[suffix]), allow_pickle=False)
            assert loaded.dtype == np.float16
            np.testing.assert_array_equal(loaded, rows)
    record = json.loads(members[JSON])
    assert record["text"] == clip.text
    assert record["words"] == [[one.text, one.start_s, one.end_s] for one in clip.words]
    for name, place in (("span", clip.span), ("region", clip.region)):
        assert (name in record) == (place is not None)
        assert place is None or record[name] == list(place)


def test_a_whole_file_has_the_record_that_it_always_had() -> None:
    assert dict(clip_members(Clip("k", "hi", source="a.mp4")))[JSON] == (
        b'{"duration_s": 0.0, "labels": {}, "language": "", "session": "", "source": "a.mp4", '
        b'"speaker": "", "tags": [], "text": "hi", "words": []}'
    )


def _npy(rows: NDArray[Any]) -> bytes:
    """The rows as numpy saves them."""
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


@given(_rows(3, COUNT), st.sampled_from([np.float16, np.float32]))
def test_files_of_numpy_are_read(rows: NDArray[np.float16], dtype: type[np.generic]) -> None:
    content = _npy(rows.astype(dtype))
    assert npy_shape(FACE, content) == rows.shape
    assert read_npy(FACE, content).tobytes() == rows.tobytes()


def test_rows_are_views_of_the_content() -> None:
    content = memoryview(bytearray(_npy(np.zeros((2, 3), np.float16))))
    rows = read_npy(FACE, content)
    content[-2:] = np.float16(7).tobytes()
    assert rows[1, 2] == 7


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros(3, np.float16),
        np.zeros((1, 2, 3), np.float16),
        np.zeros((2, 3), np.float64),
        np.zeros((2, 3), ">f2"),
        np.zeros((2, 3), np.float16, order="F"),
        np.array([["a"]]),
        np.array([[{}]], dtype=object),
    ],
    ids=["1-d", "3-d", "float64", "big-endian", "columns first", "text", "pickle"],
)
def test_other_arrays_are_refused(rows: NDArray[Any]) -> None:
    with pytest.raises(BadSampleError) as caught:
        read_npy(FACE, _npy(rows))
    assert caught.value.member == FACE


@given(st.data())
def test_damaged_rows_are_refused_or_of_the_same_shape(data: st.DataObject) -> None:
    content = bytearray(_npy(np.ones((3, 4), np.float16)))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        rows = read_npy(FACE, bytes(content))
    except BadSampleError:
        return
    assert rows.size == 12
    with pytest.raises(BadSampleError):
        read_npy(FACE, bytes(content[: data.draw(st.integers(0, len(content) - 1))]))


GOOD = Clip("k", "hi", face=np.ones((2, 3), np.float16), expression=np.ones((2, 4), np.float16))


def _with(name: str, value: object) -> bytes:
    return json.dumps({**json.loads(dict(clip_members(GOOD))[JSON]), name: value}).encode()


@pytest.mark.parametrize(
    ("member", "content"),
    [
        (JSON, b"{"),
        (JSON, b"\xff"),
        (JSON, b"[]"),
        (JSON, b"7"),
        (JSON, b"[" * 100_000),
        (JSON, _with("text", 7)),
        (JSON, _with("text", "\ud800")),
        (JSON, _with("labels", [])),
        (JSON, _with("speaker", None)),
        (JSON, _with("duration_s", float("nan"))),
        (JSON, _with("words", [["a", 0]])),
        (JSON, _with("words", [["a", "x", 1]])),
        (JSON, _with("words", [["a", 0, "inf"]])),
        (JSON, _with("speaker", "\ud800")),
        (JSON, _with("labels", {"emotion": [None]})),
        (JSON, _with("duration_s", 1).replace(b": 1", b": 1e999")),
        (JSON, _with("duration_s", 1).replace(b": 1", b": 1" + b"0" * 309 + b".0")),
        (JSON, _with("labels", {"a": 1}).replace(b": 1", b": 1E999")),
        (JSON, _with("duration_s", 10**400)),
        (JSON, _with("words", [["a", 0, 10**400]])),
        *(
            (JSON, _with("span", span))
            for span in (None, 3, [], [1], [1, 2, 3], [2, 1], [1, 1], [-1, 1], ["a", 2], "12")
        ),
        (JSON, _with("span", [0, 1]).replace(b"[0, 1]", b"[0, 1e999]")),
        *(
            (JSON, _with("region", region))
            for region in (
                [0, 0, 1],
                [0, 0, 1, 1, 1],
                [1, 0, 0, 1],
                [0, 0, 1, 1.1],
                [-0.1, 0, 1, 1],
                [0, 0.5, 1, 0.5],
            )
        ),
        (FACE, b""),
        (FACE, _npy(np.ones((2, 3), np.float16))[:-1]),
        (FACE, _npy(np.full((2, 3), np.nan, np.float16))),
        (FACE, _npy(np.full((2, 3), -np.inf, np.float16))),
        (FACE, _npy(np.full((2, 3), 1e6, np.float32))),
        (EXPRESSION, _npy(np.ones((3, 4), np.float16))),
    ],
)
def test_a_bad_member_is_named(member: str, content: bytes) -> None:
    with pytest.raises(BadSampleError) as caught:
        clip_from_members("k", {**dict(clip_members(GOOD)), member: content})
    assert caught.value.member == member
    assert caught.value.reason


@given(*[st.text(" \t\r\n\x0b\xa0x}", max_size=3)] * 2)
def test_what_stands_around_a_record_is_what_json_allows(before: str, after: str) -> None:
    content = f'{before}{{"text": "a"}}{after}'
    try:
        expected = json.loads(content)["text"]
    except ValueError:
        with pytest.raises(BadSampleError, match="not a clip's record"):
            read_text(content.encode())
    else:
        assert read_text(content.encode()) == expected


def test_a_clip_needs_its_record() -> None:
    with pytest.raises(BadSampleError, match=r"json: is missing"):
        clip_from_members("k", {FACE: _npy(np.ones((2, 3), np.float16))})


def test_a_sample_has_a_largest_size() -> None:
    members: dict[str, bytes] = {JSON: b"{}", "jpg": bytes(MOST_BYTES - 2)}
    assert clip_from_members("k", members).image == members["jpg"]
    with pytest.raises(BadSampleError, match="has more than 16 MiB") as caught:
        clip_from_members("k", {**members, "jpg": bytes(MOST_BYTES - 1)})
    assert caught.value.fault is Fault.LARGE


def test_what_is_unchanged_is_read_the_same() -> None:
    members = dict(clip_members(GOOD))
    assert same(clip_from_members("k", members, unchanged=True), GOOD)


@pytest.mark.parametrize(
    ("clip", "empty"),
    [
        (Clip("k"), True),
        (Clip("k", text=" \n"), True),
        (Clip("k", speech=np.zeros((0, 3), np.float16), image=b""), True),
        (Clip("k", text="a"), False),
        (Clip("k", tags=("a",)), False),
        (Clip("k", image=b"a"), False),
        (Clip("k", text="", face=np.zeros((1, 3), np.float16)), False),
    ],
)
def test_a_clip_with_nothing_in_it_is_empty(clip: Clip, empty: bool) -> None:
    assert clip.is_empty == empty


@pytest.mark.parametrize(
    ("key", "fine"),
    [
        ("a b_가-1", True),
        ("k" * LONGEST_KEY, True),
        ("k" * (LONGEST_KEY + 1), False),
        *(
            (key, False)
            for key in ("", "a.b", "a/b", "..", "a\\b", "a\nb", "a\0", "\ud800", "\u202ea")
        ),
    ],
)
def test_keys(key: str, fine: bool) -> None:
    assert is_key(key) == fine


def test_the_reason_can_be_shown_whatever_the_member_holds() -> None:
    label = {"labels": {"\x1b[2J" * 500: [None]}}
    header = b"\x93NUMPY\x01\x00\x40\x00" + b"\x1b[2J\r\n" * 10
    for member, content in ((JSON, json.dumps(label).encode()), (FACE, header)):
        with pytest.raises(BadSampleError) as caught:
            clip_from_members("k", {JSON: b"{}", member: content})
        assert caught.value.reason.isprintable()
        assert len(caught.value.reason) < 200
