"""A timm model as a face encoder: timm's own features of what its configuration asks for."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.face_encoder import FACE, FaceEncoder
from data_pipeline.features.timm_face import BATCH, TimmFace
from data_pipeline.registry import ModelChoice

MODELS = ("test_resnet.r160_in1k", "test_vit")
"""Small ones: batch norm and a classifier `fc`; tokens and a classifier `head`."""


def published(model: str) -> Any:  # noqa: ANN401
    """Timm's network with its classifier, of random weights none of which are trivial."""
    cpu_torch.install()
    import timm

    torch.manual_seed(0)
    net = timm.create_model(model).eval()
    with torch.no_grad():
        for parameter in (*net.parameters(), *(one for one in net.buffers() if one.ndim)):
            parameter.add_(torch.rand_like(parameter) * 0.1)
    return net


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def weights(model: str, tmp_path: Path) -> Path:
    save_file(published(model).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def load(model: str, weights: Path) -> FaceEncoder:
    return FACE.load(ModelChoice(f"timm:{model}", weights), CPU)


def faces(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, size, size), np.uint8)


def test_rows_are_what_timm_hands_to_its_classifier(model: str, weights: Path) -> None:
    encoder = load(model, weights)
    assert (encoder.name, encoder.classes) == (f"timm:{model}", ())
    assert encoder.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    grey = faces(BATCH + 2, encoder.input_size)
    rows, posteriors = encoder.encode(grey)
    assert (rows.shape, posteriors.shape) == ((BATCH + 2, encoder.dim), (BATCH + 2, 0))
    net = published(model)
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    prepare = create_transform(**{**resolve_model_data_config(net), "crop_pct": 1.0})
    images = [prepare(Image.fromarray(grey[at]).convert("RGB")) for at in (0, BATCH + 1)]
    with torch.inference_mode():
        expected = net.forward_head(net.forward_features(torch.stack(images)), pre_logits=True)
    np.testing.assert_allclose(rows[[0, -1]], expected, rtol=1e-3, atol=1e-4)
    assert rows.dtype == np.float32


def test_no_faces_give_no_rows(model: str, weights: Path) -> None:
    encoder = load(model, weights)
    rows, posteriors = encoder.encode(faces(0, encoder.input_size))
    assert (rows.shape, posteriors.shape) == ((0, encoder.dim), (0, 0))


def test_a_file_without_classifier_or_counters_or_in_halves_will_do(
    model: str, weights: Path, tmp_path: Path
) -> None:
    grey = faces(2, load(model, weights).input_size)
    rows, _ = load(model, weights).encode(grey)
    kept = {
        name: value
        for name, value in load_file(weights).items()
        if not name.startswith(("fc.", "head.")) and value.ndim
    }
    torch.save(kept, tmp_path / "less.pth")
    np.testing.assert_array_equal(load(model, tmp_path / "less.pth").encode(grey)[0], rows)
    save_file({name: value.half() for name, value in kept.items()}, tmp_path / "half.safetensors")
    halved = load(model, tmp_path / "half.safetensors").encode(grey)[0]
    np.testing.assert_allclose(halved, rows, rtol=0.1, atol=0.1)


def test_weights_of_another_network_are_refused(model: str, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    kept = (one for one, value in tensors.items() if value.ndim > 1)
    name = next(one for one in kept if not one.startswith(("fc.", "head.")))
    for changed in ({name: torch.ones(7)}, {"extra.weight": torch.ones(1)}):
        save_file({**tensors, **changed}, tmp_path / "other.safetensors")
        with pytest.raises(UserError, match=f"no weights of timm:{model} .*{next(iter(changed))}"):
            load(model, tmp_path / "other.safetensors")
    save_file({one: tensors[one] for one in tensors if one != name}, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=f"no weights of timm:{model} .*Missing.*{name}"):
        load(model, tmp_path / "less.safetensors")
    (tmp_path / "less.safetensors").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load(model, tmp_path / "less.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", "timm has no model 'resnt18'; did you mean resnet18"),
        ("resnet18.foo", r"--face timm:resnet18\.foo: .*foo"),
        ("resnet18.foo:bar", r"--face timm:resnet18\.foo:bar: .*resnet18\.foo"),
        ("resnet18.foo/bar", r"--face timm:resnet18\.foo/bar: "),
        ("hf_hub:somebody/something", "timm has no model 'hf_hub:somebody/something'"),
        ("local-dir:somewhere", "timm has no model 'local-dir:somewhere'"),
    ],
)
def test_unknown_models_are_refused_and_none_is_fetched(
    name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        TimmFace(name, tmp_path / "w.safetensors")


def test_rows_are_made_on_the_device(model: str, weights: Path) -> None:
    encoder = TimmFace(model, weights, torch.device("meta"))  # where nothing is computed
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        encoder.encode(faces(2, encoder.input_size))
