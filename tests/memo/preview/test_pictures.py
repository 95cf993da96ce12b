import base64

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.clip import BadSampleError
from memo.preview.pictures import LONGEST_SIDE, MOST_NUMBERS, MOST_ROWS, heat_map, image_url


def decode(url: str, kind: str) -> NDArray[np.uint8]:
    """The pixels in a `data:` URL, read by OpenCV."""
    head, _, content = url.partition(",")
    assert head == f"data:image/{kind};base64"
    raw = np.frombuffer(base64.b64decode(content), np.uint8)
    return np.asarray(cv2.imdecode(raw, cv2.IMREAD_UNCHANGED), np.uint8)


def brightness(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Of pixels (H, W, 4), (H, W)."""
    return np.asarray(pixels[..., :3].astype(np.int64).sum(axis=-1))


def test_a_heat_map_has_a_column_a_row_and_is_brighter_above_the_mean() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (20, 7)).astype(np.float16)
    rows[4:6] = 0
    pixels = decode(heat_map(rows), "png")
    assert pixels.shape == (7, 20, 4)
    assert (pixels[:, :, 3] == 0).all(axis=0).tolist() == [at in (4, 5) for at in range(20)]
    seen = np.delete(np.arange(20), [4, 5])
    values = rows[seen].astype(np.float64)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    shown = brightness(pixels[:, seen]).T
    assert shown[scaled > 1.5].min() > shown[scaled < -1.5].max()
    for number in range(7):  # the order of the values is that of the colours
        order = np.argsort(scaled[:, number])
        assert (np.diff(shown[order, number]) >= 0).all()


def test_a_heat_map_takes_mean_and_deviation_of_the_dataset() -> None:
    rows = np.full((3, 2), 5, np.float16)
    plain, low, high = (
        brightness(decode(heat_map(rows, (mean, mean), (1, 1)), "png")) for mean in (5, 50, -50)
    )
    assert [np.unique(one).size for one in (low, plain, high)] == [1, 1, 1]
    assert low[0, 0] < plain[0, 0] < high[0, 0]
    assert (brightness(decode(heat_map(rows), "png")) == plain).all()  # no deviation at all
    assert (decode(heat_map(np.zeros((3, 2), np.float16)), "png")[..., 3] == 0).all()


def test_of_many_rows_and_numbers_some_at_even_distances_are_shown() -> None:
    shape = 2 * MOST_ROWS, 3 * MOST_NUMBERS
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    pixels = decode(heat_map(rows, [0] * rows.shape[1], [1] * rows.shape[1]), "png")
    some = heat_map(rows[::2, ::3], [0] * MOST_NUMBERS, [1] * MOST_NUMBERS)
    np.testing.assert_array_equal(pixels, decode(some, "png"))


def test_large_images_are_shrunk_and_broken_ones_refused() -> None:
    small = np.full((30, 60, 3), (10, 100, 200), np.uint8)
    for pixels, shape in (
        (small, (30, 60, 3)),
        (cv2.resize(small, (1200, 600)), (LONGEST_SIDE // 2, LONGEST_SIDE, 3)),
    ):
        shown = decode(image_url(bytes(cv2.imencode(".jpg", pixels)[1])), "jpeg")
        assert shown.shape == shape
        assert np.abs(shown.astype(int) - small[0, 0]).max() < 8
    with pytest.raises(BadSampleError, match="does not decode"):
        image_url(b"\xff\xd8 no JPEG")
