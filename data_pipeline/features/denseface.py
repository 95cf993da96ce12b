"""DenseFace: the frozen network that turns an aligned face into features and class posteriors.

DenseNet-BC, depth 100, growth 12 (Huang et al., CVPR 2017), on timm's DenseNet, with the stem of
MEmoBERT's DenseFace: one 3x3 convolution of stride 2 with 24 channels. The mean over the last
feature map has 342 numbers; a linear layer makes K expression classes of it.

Each grey image is standardised by its own mean and standard deviation, in training and in encoding
alike, so that the brightness and contrast of a studio or a film need no statistics of the corpus.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.face_encoder import FACE
from data_pipeline.shards.index import file_sha256
from data_pipeline.whole_file import write_atomically

SHIPPED = Path(__file__).with_name("denseface.safetensors")
"""The network that ships with the package; its card is `denseface.md`."""
FEATURES = 342
BATCH = 64
"""Faces encoded at a time."""


@dataclass(frozen=True)
class FaceCard:
    """What is known of a trained face network; kept in its file.

    Attributes:
        classes: names of the K expressions, in the order of the posteriors.
        input_size: height and width of the faces, in pixels.
        trained_on: corpus, epochs and seed.
        test_accuracy: share of the corpus's test split classified rightly.
        temperature: divides the logits; chosen on a part of the train split that was held out.
        ece_uncalibrated, ece: expected calibration error on the test split, without it and with it;
            None: not measured.
    """

    classes: tuple[str, ...]
    input_size: int
    trained_on: str
    test_accuracy: float
    temperature: float = 1.0
    ece_uncalibrated: float | None = None
    ece: float | None = None


class DenseFaceNet(nn.Module):
    """The trainable network.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        cpu_torch.install()
        from timm.models.densenet import DenseNet  # noqa: PLC0415  (slow to import)

        body = DenseNet(
            growth_rate=12, block_config=(16, 16, 16), bn_size=4, in_chans=1, num_classes=0
        ).features
        body.conv0 = nn.Conv2d(1, 24, kernel_size=3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(body.conv0.weight)
        body.norm0 = nn.Identity()
        body.pool0 = nn.Identity()
        self.body = body.to(memory_format=torch.channels_last)
        self.classifier = nn.Linear(FEATURES, classes)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 342) and class logits (B, K) of grey faces, (B, H, W) in 0..255."""
        images = standardise(faces).to(memory_format=torch.channels_last)  # (B, 1, H, W)
        features = self.body(images).mean(dim=(2, 3))  # (B, 342)
        return features, self.classifier(features)


def standardise(faces: Tensor) -> Tensor:
    """Grey faces (B, H, W) -> float32 (B, 1, H, W), each of mean 0 and standard deviation 1."""
    images = faces.float().unsqueeze(1)
    std, mean = torch.std_mean(images, dim=(2, 3), keepdim=True)
    return (images - mean) / (std + 1e-3)


class DenseFace:
    """The frozen encoder.

    Attributes:
        name: "denseface".
        dim: 342.
        classes: names of the expressions.
        input_size: height and width of the faces that `encode` takes.
        sha256: hash of the weights' file.
    """

    name = "denseface"
    dim = FEATURES

    def __init__(
        self, net: DenseFaceNet, card: FaceCard, sha256: str, device: torch.device
    ) -> None:
        self._net = net.eval().to(device)
        self._device = device
        self.card = card
        self.classes = card.classes
        self.input_size = card.input_size
        self.sha256 = sha256

    @classmethod
    def load(cls, path: Path, device: torch.device = CPU) -> "DenseFace":
        """Read a file that `save_face_net` wrote, to encode on a device.

        Raises:
            UserError: the file is missing or is no face network.
        """
        if not path.is_file():
            raise UserError(f"there is no face network at {path}")
        try:
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()["card"])
                weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            card = FaceCard(**{**record, "classes": tuple(record["classes"])})
            net = DenseFaceNet(len(card.classes))
            counters = {name: value for name, value in net.state_dict().items() if value.ndim == 0}
            net.load_state_dict({**counters, **weights})
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{path} is no face network of memo ({error})") from None
        return cls(net, card, file_sha256(path), device)

    @torch.inference_mode()
    def encode(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode aligned grey faces.

        Args:
            faces: uint8 (T, input_size, input_size).

        Returns:
            Features float32 (T, 342) and posteriors float32 (T, K), rows of which sum to 1.
        """
        if not len(faces):
            return (
                np.zeros((0, FEATURES), np.float32),
                np.zeros((0, len(self.classes)), np.float32),
            )
        batches = torch.from_numpy(faces).split(BATCH)
        outputs = [self._net(batch.to(self._device)) for batch in batches]
        features = torch.cat([features for features, _ in outputs])
        logits = torch.cat([logits for _, logits in outputs])
        posteriors = (logits / self.card.temperature).softmax(dim=1)
        return features.cpu().numpy(), posteriors.cpu().numpy()


FACE.register(DenseFace.name, SHIPPED)(DenseFace.load)


def save_face_net(path: Path, net: DenseFaceNet, card: FaceCard) -> None:
    """Write weights (float16; counters are left out) and card as safetensors, atomically."""
    weights = {
        name: value.half().contiguous()
        for name, value in net.state_dict().items()
        if value.is_floating_point()
    }
    write_atomically(path, save(weights, {"card": json.dumps(asdict(card))}))
