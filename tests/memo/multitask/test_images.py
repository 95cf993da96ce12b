"""Images of samples as networks take them."""

import cv2
import numpy as np

from memo.multitask.images import decode_image


def test_a_jpeg_is_decoded_and_shrunk() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3)).astype(np.uint8)
    content = bytes(cv2.imencode(".jpg", pixels)[1])
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.resize(expected, (8, 8), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    np.testing.assert_array_equal(decode_image(content, 8), expected.transpose(2, 0, 1))
