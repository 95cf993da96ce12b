"""Training of the DenseFace network on FER2013 (Goodfellow et al., ICONIP 2013).

28,709 grey faces of 48x48 to train, 7,178 to test, 7 classes. One epoch is one pass; the learning
rate follows one cycle over all epochs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.corpora.source import Source, open_source
from data_pipeline.errors import UserError
from data_pipeline.features.denseface import DenseFaceNet, FaceCard, save_face_net

SIZE = 48
SHIFT = 4
"""Random shift of a training face in each direction, in pixels."""


@dataclass(frozen=True)
class FaceTraining:
    """Settings of one training run.

    Attributes:
        source: FER2013, a folder or tar archive with `train/<class>/*.jpg` and `test/...`.
        out: file to write.
        epochs, batch, lr, weight_decay, label_smoothing, seed: as usual.
    """

    source: Path
    out: Path
    epochs: int = 30
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class FaceSplit:
    """One split: faces uint8 (n, 48, 48), class numbers int64 (n,), names of the classes."""

    faces: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def read_split(source: Source, split: str) -> FaceSplit:
    """Decode all images of a split once.

    Raises:
        UserError: the source has none, or one is not a 48x48 image.
    """
    names = [name for name in source.names() if name.split("/")[0] == split]
    classes = tuple(sorted({name.split("/")[1] for name in names}))
    if not classes:
        raise UserError(f"FER2013: the source has no folder {split!r} with a folder for each class")
    faces = np.stack([_decode(source, name) for name in names])
    labels = [classes.index(name.split("/")[1]) for name in names]
    return FaceSplit(torch.from_numpy(faces), torch.tensor(labels), classes)


def _decode(source: Source, name: str) -> NDArray[np.uint8]:
    content = np.frombuffer(source.read(name), dtype=np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    if image is None or image.shape != (SIZE, SIZE):
        raise UserError(f"FER2013: {name} is not an image of {SIZE}x{SIZE} pixels")
    return np.asarray(image, dtype=np.uint8)


def train_face(settings: FaceTraining) -> FaceCard:
    """Train, print a line an epoch, and write the network after each; the last one counts.

    Raises:
        UserError: see `read_split`.
    """
    torch.manual_seed(settings.seed)
    source = open_source(settings.source)
    train, test = read_split(source, "train"), read_split(source, "test")
    net = DenseFaceNet(len(train.classes))
    steps = settings.epochs * (len(train.faces) // settings.batch)
    optimizer = torch.optim.AdamW(
        net.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps, pct_start=0.2
    )
    for epoch in range(1, settings.epochs + 1):
        start = perf_counter()
        losses = [
            _step(net, optimizer, schedule, batch, settings.label_smoothing)
            for batch in _batches(train, settings.batch)
        ]
        rate = len(losses) * settings.batch / (perf_counter() - start)
        trained_on = f"FER2013, {epoch} of {settings.epochs} epochs, seed {settings.seed}"
        card = FaceCard(test.classes, SIZE, trained_on, round(accuracy(net, test), 4))
        print(  # noqa: T201
            f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}, "
            f"test accuracy {card.test_accuracy:.4f}, {rate:.0f} images/s",
            flush=True,
        )
        save_face_net(settings.out, net, card)
    return card


def _batches(split: FaceSplit, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented faces (B, 48, 48) and their classes, shuffled; a short last batch is left out."""
    shuffled = torch.randperm(len(split.faces))
    for chosen in shuffled[: len(shuffled) // size * size].split(size):
        yield augment(split.faces[chosen]), split.labels[chosen]


def augment(faces: Tensor) -> Tensor:
    """Shift each face (B, H, W) by up to `SHIFT` pixels and mirror every other one."""
    padded = F.pad(faces.float().unsqueeze(1), (SHIFT,) * 4, mode="replicate").squeeze(1)
    shifts = torch.randint(0, 2 * SHIFT + 1, (len(faces), 2)).tolist()
    height, width = faces.shape[1:]
    moved = [
        face[y : y + height, x : x + width] for face, (y, x) in zip(padded, shifts, strict=True)
    ]
    mirrored = torch.rand(len(faces)) < 0.5
    stacked = torch.stack(moved)
    return torch.where(mirrored[:, None, None], stacked.flip(2), stacked)


def _step(
    net: DenseFaceNet,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: tuple[Tensor, Tensor],
    label_smoothing: float,
) -> float:
    """One optimizer step; the loss."""
    faces, labels = batch
    _, logits = net(faces)
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimizer.step()
    schedule.step()
    return loss.item()


@torch.inference_mode()
def accuracy(net: DenseFaceNet, split: FaceSplit) -> float:
    """Share of a split that is classified rightly."""
    net.eval()
    pairs = zip(split.faces.split(256), split.labels.split(256), strict=True)
    right = sum(int((net(faces)[1].argmax(1) == labels).sum()) for faces, labels in pairs)
    net.train()
    return right / len(split.faces)
