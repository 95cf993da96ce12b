"""Where encoders run: the CPU where there is no GPU, and the same rows on either."""

import numpy as np
import pytest
import torch

from data_pipeline.errors import UserError
from data_pipeline.features.denseface import SHIPPED, DenseFace
from data_pipeline.features.device import CPU, choose_device, open_device
from data_pipeline.features.log_mel import LogMel

META = torch.device("meta")
"""A device that every machine has; nothing is computed there."""
SOUND = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
has_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


@pytest.mark.parametrize(
    ("asked", "there", "chosen"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_is_the_gpu_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, asked: str, there: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(asked) == chosen


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU here; give cpu"):
        choose_device("cuda")
    with pytest.raises(UserError, match="--device: there is no 'gpu'; give auto, cpu, cuda"):
        choose_device("gpu")


def test_a_gpu_is_kept_from_races_and_short_products(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("benchmark", "deterministic", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, name != "deterministic")
    assert open_device("cpu") == CPU
    assert torch.backends.cudnn.allow_tf32
    assert open_device("cuda").type == "cuda"
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32


def test_rows_are_made_on_the_device() -> None:
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        DenseFace.load(SHIPPED, META).encode(np.zeros((2, 48, 48), np.uint8))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        LogMel(device=META).encode(SOUND)


@has_gpu
def test_rows_of_a_gpu_are_those_of_the_cpu() -> None:
    gpu = open_device("cuda")
    faces = np.random.default_rng(0).integers(0, 256, (70, 48, 48), np.uint8)
    one, again = (DenseFace.load(SHIPPED, gpu).encode(faces)[0] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(one, DenseFace.load(SHIPPED).encode(faces)[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        LogMel(device=gpu).encode(SOUND), LogMel().encode(SOUND), rtol=1e-4, atol=1e-4
    )
