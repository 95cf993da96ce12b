"""Any image network of timm as a frozen face encoder, `timm:MODEL`, e.g. `timm:resnet18.a1_in1k`.

Rows are what the network hands to its classifier, pooled over the picture. The weights are a file
of timm's state dict, safetensors or torch's, with or without a classifier; nothing is downloaded.
How large a face is, and the mean and deviation of its colours, stand in timm's configuration of the
pretrained model; a grey face is the same in all three colours. Such a network knows no expressions.
"""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.face_encoder import FACE
from data_pipeline.features.tensors import read_tensors
from data_pipeline.registry import Weights
from data_pipeline.shards.index import file_sha256

BATCH = 32
"""Faces encoded at a time."""
_COUNTER = ".num_batches_tracked"
"""Of batch norm; of no use when it is trained, and not in every file."""


@FACE.register_family("timm", Weights.GIVEN)
class TimmFace:
    """One network.

    Args:
        model: timm's name of it, with a tag or without.
        weights: file of its weights.
        device: to encode on.

    Raises:
        UserError: timm has no such model, its pictures are not square, or the weights are not its.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, model: str, weights: Path, device: torch.device = CPU) -> None:
        self.name = f"timm:{model}"
        net = _create(model)
        config = net.pretrained_cfg
        channels, height, self.input_size = config["input_size"]
        if height != self.input_size:
            raise UserError(
                f"--face {self.name}: its pictures are {self.input_size} x {height} pixels; take "
                "a model of square ones"
            )
        _load(net, weights, self.name)
        self._net, self._device = net.eval().to(device), device
        self._mean, self._std = (
            torch.tensor(config[name], device=device).view(channels, 1, 1)
            for name in ("mean", "std")
        )
        self.dim: int = self._features(torch.zeros(1, height, height, dtype=torch.uint8)).shape[1]
        self.sha256 = file_sha256(weights)

    def encode(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Grey faces (T, input_size, input_size) -> rows (T, dim) and no posteriors, (T, 0)."""
        batches = torch.from_numpy(faces).split(BATCH) if len(faces) else ()
        rows = [self._features(batch).cpu().numpy() for batch in batches]
        none = np.zeros((0, self.dim), np.float32)
        return np.concatenate([none, *rows]), np.zeros((len(faces), 0), np.float32)

    @torch.inference_mode()
    def _features(self, faces: Tensor) -> Tensor:
        """Grey faces uint8 (B, H, W) -> float32 (B, dim)."""
        images = faces.to(self._device).float().div(255).unsqueeze(1)  # (B, 1, H, W)
        features: Tensor = self._net((images - self._mean) / self._std)
        return features


def _create(model: str) -> Any:  # noqa: ANN401
    """Timm's network of this name without a classifier; its weights are random.

    Raises:
        UserError: there is none.
    """
    cpu_torch.install()
    import timm  # noqa: PLC0415  (slow to import)

    architecture = model.partition(".")[0]
    if not timm.is_model(architecture):  # nor is anything fetched from elsewhere
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--face timm:{model}: timm has no model {architecture!r}{meant}")
    try:
        return timm.create_model(model, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError) as error:  # no such tag, or a name that is none
        raise UserError(f"--face timm:{model}: {error}") from None


def _load(net: Any, weights: Path, name: str) -> None:  # noqa: ANN401
    """Give the network its weights; those of its classifier are left out.

    Raises:
        UserError: they are not its.
    """
    named = net.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{one}." for one in ([named] if isinstance(named, str) else named))
    tensors = {
        key: value for key, value in read_tensors(weights).items() if not key.startswith(heads)
    }
    counters = {key: value for key, value in net.state_dict().items() if key.endswith(_COUNTER)}
    try:
        net.load_state_dict({**counters, **tensors})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{weights} are no weights of {name} ({reason})") from None
