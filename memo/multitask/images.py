"""Images as the original trimodal network reads them: through a network of timm's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.picture import decode_jpeg
from data_pipeline.features.tensors import read_tensors
from memo.multitask.config import ImageSettings

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Modules with running statistics."""


def decode_image(content: bytes, size: int) -> NDArray[np.uint8]:
    """A JPEG file as RGB (3, size, size).

    Raises:
        BadSampleError: it cannot be decoded, or is too large.
    """
    square = cv2.resize(decode_jpeg(content), (size, size), interpolation=cv2.INTER_AREA)
    rgb = cv2.cvtColor(square, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.uint8)


class ImageNetwork(nn.Module):
    """Any of timm's networks, without its classifier.

    Args:
        settings: which, and its weights; without these they are drawn from torch's generator.

    Attributes:
        width: D.

    Raises:
        UserError: timm has no such network, or the file does not hold its weights.
    """

    def __init__(self, settings: ImageSettings) -> None:
        super().__init__()
        cpu_torch.install()
        import timm  # noqa: PLC0415  (slow to import)

        if not timm.is_model(settings.model):
            raise UserError(f"trimodal.image.model: timm has no {settings.model!r}")
        self.body: Any = timm.create_model(settings.model, pretrained=False, num_classes=0)
        self.size = settings.size
        if settings.weights is not None:
            _load(self.body, settings.weights)
        for name in ("mean", "std"):
            values = torch.tensor(self.body.pretrained_cfg[name]) * 255
            self.register_buffer(name, values[:, None, None], persistent=False)
        self.width = self._width(settings)

    def _width(self, settings: ImageSettings) -> int:
        """Of what the network makes of a black image."""
        training = self.body.training
        try:
            with torch.no_grad():
                found = self.body.eval()(torch.zeros(1, 3, self.size, self.size))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"trimodal.image: {settings.model} cannot read images of {self.size} x {self.size} "
                f"({reason})"
            ) from None
        self.body.train(training)
        if found.dim() != 2:
            raise UserError(f"trimodal.image.model: {settings.model} gives no row an image")
        return int(found.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (I, 3, H, W) -> (I, D).

        Of no image a black one is read and left out: every rank then uses every parameter. One
        alone has no statistics, so that the running ones are taken.
        """
        mean, std = cast("Tensor", self.mean), cast("Tensor", self.std)
        read = images if len(images) else images.new_zeros(1, 3, self.size, self.size)
        dtype = next(self.body.parameters()).dtype
        pixels = ((read.float() - mean) / std).to(dtype)
        training = self.body.training
        self.body.train(training and len(images) > 1)
        with _buffers_as(dtype, self.body):
            rows: Tensor = self.body(pixels)
        self.body.train(training)
        return rows[: len(images)]


@contextmanager
def _buffers_as(dtype: torch.dtype, body: nn.Module) -> Iterator[None]:
    """Lend a network its buffers in the type of its weights, which torch does not mix with another.

    DeepSpeed casts parameters alone, and running statistics shall stay in float32: in bfloat16
    their small changes would be lost. A normalisation therefore tells the statistics of its batch,
    with a momentum of 1, and its own take them up here.
    """
    lent = [
        (module, name, own, own.to(dtype))
        for module in body.modules()
        for name, own in module.named_buffers(recurse=False)
        if own.is_floating_point() and own.dtype != dtype
    ]
    norms = {module: module.momentum for module, *_ in lent if isinstance(module, NORMS)}
    for module, name, _, copy in lent:
        setattr(module, name, copy)
    for norm in norms:
        norm.momentum = 1.0
    yield
    for norm, momentum in norms.items():
        norm.momentum = momentum
    for module, name, own, copy in lent:
        setattr(module, name, own)
        if module in norms and module.training:
            share = norms[module]
            assert share is not None, "timm's networks have a momentum"
            own.lerp_(copy.to(own.dtype), share)


def _load(body: nn.Module, path: Path) -> None:
    """Weights of a safetensors or torch file; those of a classifier are left out."""
    try:
        missing, _ = body.load_state_dict(read_tensors(path), strict=False)
    except RuntimeError as error:  # other shapes
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"trimodal.image.weights: {path} is of another network ({reason})"
        ) from None
    if missing:
        raise UserError(f"trimodal.image.weights: {path} lacks {missing[0]} ({len(missing)} such)")
