"""Images of samples as networks take them."""

import cv2
import numpy as np
import torch

from memo.multitask.config import ImageSettings
from memo.multitask.images import ImageNetwork, decode_image


def test_a_jpeg_is_decoded_and_shrunk() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3)).astype(np.uint8)
    content = bytes(cv2.imencode(".jpg", pixels)[1])
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.resize(expected, (8, 8), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    np.testing.assert_array_equal(decode_image(content, 8), expected.transpose(2, 0, 1))


def test_the_default_network_gives_a_row_of_densenet_121s_size() -> None:
    """Channels of 6, 12, 24 and 16 layers of growth 32, halved between (Huang et al., 2017)."""
    channels = 64
    for layers in (6, 12, 24, 16):
        channels = channels // (1 if layers == 6 else 2) + 32 * layers
    network = ImageNetwork(ImageSettings(size=32)).eval()
    assert network.width == channels == 1024
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        rows = network(images)
        scaled = images / 255  # ImageNet's mean and deviation
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        maps = network.body.forward_features((scaled - mean) / std)
    assert rows.shape == (2, 1024)
    torch.testing.assert_close(rows, maps.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
