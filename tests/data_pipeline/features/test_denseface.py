"""DenseFace against a plain implementation of DenseNet-BC, and its file."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.errors import UserError
from data_pipeline.features.denseface import (
    BATCH,
    DenseFace,
    DenseFaceNet,
    FaceCard,
    save_face_net,
    standardise,
)

SIZE = 16
CARD = FaceCard(("angry", "happy", "sad"), SIZE, "nothing", 0.5)


@pytest.fixture(scope="module")
def net() -> DenseFaceNet:
    """A random network whose running statistics are not the trivial ones."""
    generator = torch.manual_seed(0)
    net = DenseFaceNet(3)
    for name, buffer in net.named_buffers():
        if buffer.ndim:
            noise = torch.rand(buffer.shape, generator=generator)
            buffer.copy_(noise + 0.5 if name.endswith("var") else noise - 0.5)
    return net.eval()


@pytest.fixture
def path(net: DenseFaceNet, tmp_path: Path) -> Path:
    save_face_net(tmp_path / "face.safetensors", net, CARD)
    return tmp_path / "face.safetensors"


def faces(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE), np.uint8)


def plain_densenet(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """DenseNet-BC (Huang et al. 2017): norm, relu, convolution; (B, 1, H, W) -> (B, 342)."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, gain, bias = (
            weights[f"body.{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.relu((x - mean) / (var + 1e-5).sqrt() * gain + bias)

    x = F.conv2d(images, weights["body.conv0.weight"], stride=2, padding=1)
    for block in (1, 2, 3):
        for layer in range(1, 17):
            at = f"denseblock{block}.denselayer{layer}"
            inner = F.conv2d(norm(x, f"{at}.norm1"), weights[f"body.{at}.conv1.weight"])
            new = F.conv2d(
                norm(inner, f"{at}.norm2"), weights[f"body.{at}.conv2.weight"], padding=1
            )
            x = torch.cat([x, new], dim=1)
        if block < 3:
            at = f"transition{block}"
            x = F.avg_pool2d(F.conv2d(norm(x, f"{at}.norm"), weights[f"body.{at}.conv.weight"]), 2)
    return norm(x, "norm5").mean(dim=(2, 3))


def test_network_is_densenet_bc_100_12(net: DenseFaceNet) -> None:
    images = torch.from_numpy(faces(2))
    with torch.inference_mode():
        features, logits = net(images)
        expected = plain_densenet(net.state_dict(), standardise(images))
        classified = features @ net.classifier.weight.T + net.classifier.bias
    assert features.shape == (2, 342)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits, classified)


def test_stem_is_one_convolution_of_24_channels(net: DenseFaceNet) -> None:
    assert net.state_dict()["body.conv0.weight"].shape == (24, 1, 3, 3)
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(
        769e3, rel=0.01
    )


def test_brightness_and_contrast_do_not_matter() -> None:
    grey = torch.from_numpy(faces(3)).float()
    torch.testing.assert_close(
        standardise(grey), standardise(grey * 0.3 + 40), rtol=1e-3, atol=1e-3
    )


def test_a_flat_face_is_standardised_to_zeros() -> None:
    assert standardise(torch.full((1, 8, 8), 90, dtype=torch.uint8)).abs().max() == 0


def test_encoding_does_not_depend_on_the_batch(path: Path) -> None:
    encoder = DenseFace.load(path)
    images = faces(BATCH + 3)
    features, posteriors = encoder.encode(images)
    assert features.dtype == posteriors.dtype == np.float32
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, rtol=1e-5)
    alone, _ = encoder.encode(images[-1:])
    np.testing.assert_allclose(features[-1:], alone, rtol=1e-4, atol=1e-4)


def test_no_faces_give_no_rows(path: Path) -> None:
    features, posteriors = DenseFace.load(path).encode(faces(0))
    assert (features.shape, posteriors.shape) == ((0, 342), (0, 3))


def test_file_keeps_network_and_card(path: Path, net: DenseFaceNet) -> None:
    encoder = DenseFace.load(path)
    assert encoder.card == CARD
    assert (encoder.classes, encoder.input_size) == (CARD.classes, SIZE)
    assert encoder.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with torch.inference_mode():
        expected, _ = net(torch.from_numpy(faces(4)))
    # The file is in half precision.
    np.testing.assert_allclose(encoder.encode(faces(4))[0], expected, rtol=0.05, atol=0.02)
    assert list(path.parent.iterdir()) == [path]


def test_a_temperature_levels_posteriors_and_leaves_features(
    tmp_path: Path, path: Path, net: DenseFaceNet
) -> None:
    levelled = tmp_path / "levelled.safetensors"
    save_face_net(levelled, net, replace(CARD, temperature=2.0))
    features, posteriors = DenseFace.load(path).encode(faces(4))
    same_features, level = DenseFace.load(levelled).encode(faces(4))
    roots = np.sqrt(posteriors)
    np.testing.assert_array_equal(same_features, features)
    np.testing.assert_allclose(level, roots / roots.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no face network at .*none\.safetensors"):
        DenseFace.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("left", [0, 5, 2000])
def test_a_file_cut_short_is_refused(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match="is no face network"):
        DenseFace.load(path)


def test_a_missing_weight_is_not_replaced_by_a_random_one(path: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        card = file.metadata()
    weights = load_file(path)
    del weights["body.conv0.weight"]
    save_file(weights, tmp_path / "less.safetensors", card)
    with pytest.raises(UserError, match="is no face network"):
        DenseFace.load(tmp_path / "less.safetensors")
