"""Images of samples, whole, broken and evil."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.clip import BadSampleError, Fault
from data_pipeline.features.picture import decode_jpeg

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 40, 3)).astype(np.uint8)


def _encoded(suffix: str, *settings: int) -> bytes:
    return bytes(cv2.imencode(suffix, PIXELS, settings)[1])


@pytest.mark.parametrize(
    "settings", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)], ids=["", "progressive"]
)
def test_a_jpeg_is_decoded(settings: tuple[int, ...]) -> None:
    content = _encoded(".jpg", *settings)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_jpeg(content), expected)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff\xd8", _encoded(".png"), _encoded(".jpg")[:30]]
)
def test_what_is_no_jpeg_does_not_decode(content: bytes) -> None:
    with pytest.raises(BadSampleError, match="does not decode"):
        decode_jpeg(content)


@pytest.mark.parametrize("side", [20_000, 65_535])
def test_a_jpeg_that_says_it_is_enormous_is_not_decoded(side: int) -> None:
    content = bytearray(_encoded(".jpg"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", side, side)
    with pytest.raises(BadSampleError, match=f"is {side} x {side}, too large") as caught:
        decode_jpeg(bytes(content))
    assert caught.value.fault is Fault.LARGE


@given(st.integers(0, len(_encoded(".jpg")) - 1), st.integers(0, 255))
def test_any_damage_is_refused_or_decoded(at: int, value: int) -> None:
    content = bytearray(_encoded(".jpg"))
    content[at] = value
    try:
        assert decode_jpeg(bytes(content)).shape[2] == 3
    except BadSampleError as error:
        assert error.member == "jpg"  # noqa: PT017
