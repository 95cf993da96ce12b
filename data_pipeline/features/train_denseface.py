"""Training of the DenseFace network on FER2013.

One epoch is one pass; the learning rate follows one cycle (Smith and Topin, 2018) over all epochs.
After each epoch the run's state is kept in `OUT.partial`; the same command goes on from there, and
ends with the weights of a run that was never interrupted.

Most of the epochs see smaller faces, which cost less than half as much and blur what a small corpus
would be learnt by heart from; the last see them as they are (progressive learning: Tan and Le,
EfficientNetV2, ICML 2021, section 4).

A tenth of the train split is held out; in the end it gives the temperature of the posteriors.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from time import perf_counter
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.errors import UserError
from data_pipeline.features.calibration import calibration_error, fit_temperature
from data_pipeline.features.denseface import DenseFaceNet, FaceCard, save_face_net
from data_pipeline.features.fer2013 import SIZE, FaceSplit, read_fer2013

HELD_OUT = 10
"""One of so many training faces is."""
SHIFT = 4
"""Random shift of a training face in each direction, in pixels."""
SIZES = ((0.6, 32), (0.75, 40), (1.0, SIZE))
"""Until which share of the epochs a training face is how many pixels high and wide."""


@dataclass(frozen=True)
class FaceTraining:
    """Settings of one training run.

    Attributes:
        source: FER2013, a folder or tar archive with `train/<class>/*.jpg` and `test/...`.
        out: file to write.
        epochs: passes over the train split.
        batch: faces a step.
        lr: peak of the learning rate.
        weight_decay: AdamW's.
        label_smoothing: probability spread evenly over all classes.
        seed: of the initial weights, the order and the augmentation.
    """

    source: Path
    out: Path
    epochs: int = 30
    batch: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    seed: int = 0

    def recipe(self) -> dict[str, float | str]:
        """What decides the outcome, beside the corpus."""
        settings = {
            name: value for name, value in asdict(self).items() if name not in {"source", "out"}
        }
        return {**settings, "held_out": HELD_OUT, "sizes": str(SIZES)}


class _Run:
    """The state of a training run between two epochs."""

    def __init__(self, settings: FaceTraining, train: FaceSplit) -> None:
        self.settings = settings
        self.partial = settings.out.with_name(f"{settings.out.name}.partial")
        self.generator = torch.manual_seed(settings.seed)  # timm initialises from this one
        self.net = DenseFaceNet(len(train.classes))
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            settings.lr,
            total_steps=settings.epochs * (len(train.faces) // settings.batch),
            pct_start=0.2,
        )
        self.epoch = 0

    def save(self) -> None:
        """Write the partial file, atomically."""
        state = {
            "recipe": self.settings.recipe(),
            "epoch": self.epoch,
            "generator": self.generator.get_state(),
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        temporary = self.partial.with_name(f"{self.partial.name}.tmp")
        torch.save(state, temporary)
        temporary.replace(self.partial)

    def resume(self) -> None:
        """Go on from the partial file if there is one.

        Raises:
            UserError: it is of another recipe, or is no such file.
        """
        if not self.partial.exists():
            return
        ours = self.settings.recipe()
        state = _read_state(self.partial)
        if (recipe := state["recipe"]) != ours:
            raise UserError(f"{self.partial} was begun with {recipe}, not {ours}; remove it first")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        self.epoch = state["epoch"]


def _read_state(partial: Path) -> dict[str, Any]:
    """What `_Run.save` wrote; torch's reader alone would stumble over any other bytes."""
    try:
        if is_zipfile(partial):
            state: dict[str, Any] = torch.load(partial, weights_only=True)
            if "recipe" in state:
                return state
    except (RuntimeError, UnpicklingError):
        pass
    raise UserError(f"{partial} is no unfinished training run; remove it")


def train_face(settings: FaceTraining) -> FaceCard:
    """Train, printing a line an epoch, and write the network of the last one.

    The test split is looked at once, when the training is over.

    Raises:
        UserError: a setting or the source is unfit (see `read_fer2013`), or the partial file is
            not of this run.
    """
    if settings.epochs < 1:
        raise UserError(f"--epochs: {settings.epochs} is less than 1")
    if not settings.out.parent.is_dir():
        raise UserError(f"--out: there is no folder {settings.out.parent}; make it first")
    whole, test = read_fer2013(settings.source)
    train, held_out = _hold_out(whole, settings.seed)
    if len(train.faces) < settings.batch:
        raise UserError(f"FER2013: {len(train.faces)} faces to train; {settings.batch} are needed")
    run = _Run(settings, train)
    run.resume()
    while run.epoch < settings.epochs:
        _train_epoch(run, train)
    trained_on = f"FER2013, {settings.epochs} epochs, seed {settings.seed}"
    temperature = fit_temperature(logits_of(run.net, held_out), held_out.labels)
    logits = logits_of(run.net, test)
    errors = [calibration_error((logits / t).softmax(1), test.labels) for t in (1.0, temperature)]
    accuracy = (logits.argmax(1) == test.labels).double().mean().item()
    found = [round(value, 4) for value in (accuracy, temperature, *errors)]
    card = FaceCard(test.classes, SIZE, trained_on, *found)
    save_face_net(settings.out, run.net, card)
    run.partial.unlink()
    return card


def _hold_out(split: FaceSplit, seed: int) -> tuple[FaceSplit, FaceSplit]:
    """The faces to train on, and those that are held out."""
    shuffled = torch.randperm(len(split.faces), generator=torch.Generator().manual_seed(seed))
    cut = -(-len(shuffled) // HELD_OUT)
    parts = [shuffled[cut:].sort().values, shuffled[:cut].sort().values]
    train, held_out = (replace(split, faces=split.faces[p], labels=split.labels[p]) for p in parts)
    return train, held_out


def _train_epoch(run: _Run, train: FaceSplit) -> None:
    """One pass, one line, one partial file."""
    start = perf_counter()
    size = size_at(run.epoch / run.settings.epochs)
    losses, rights = zip(
        *(
            _step(run, resize(faces, size), labels)
            for faces, labels in _batches(train, run.settings.batch, run.generator)
        ),
        strict=True,
    )
    faces = len(losses) * run.settings.batch
    rate = faces / (perf_counter() - start)
    run.epoch += 1
    print(  # noqa: T201
        f"epoch {run.epoch} ({size} px): loss {sum(losses) / len(losses):.4f}, "
        f"train accuracy {sum(rights) / faces:.4f}, {rate:.0f} images/s",
        flush=True,
    )
    run.save()


def _batches(
    split: FaceSplit, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented faces (B, 48, 48) and their classes, shuffled; a short last batch is left out."""
    shuffled = torch.randperm(len(split.faces), generator=generator)
    for chosen in shuffled[: len(shuffled) // size * size].split(size):
        yield augment(split.faces[chosen], generator), split.labels[chosen]


def augment(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each face (B, H, W) by up to `SHIFT` pixels, edges repeated; mirror every other one."""
    padded = F.pad(faces.float().unsqueeze(1), (SHIFT,) * 4, mode="replicate").squeeze(1)
    shifts = torch.randint(0, 2 * SHIFT + 1, (len(faces), 2), generator=generator).tolist()
    height, width = faces.shape[1:]
    moved = torch.stack(
        [face[y : y + height, x : x + width] for face, (y, x) in zip(padded, shifts, strict=True)]
    )
    mirrored = torch.rand(len(faces), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None], moved.flip(2), moved)


def size_at(share: float) -> int:
    """Height and width of the training faces after a share of the epochs, in pixels."""
    return next(size for until, size in SIZES if share < until)


def resize(faces: Tensor, size: int) -> Tensor:
    """Faces (B, H, W) -> (B, size, size), without aliasing."""
    if faces.shape[1:] == (size, size):
        return faces
    images = faces.unsqueeze(1)
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).squeeze(1)


def _step(run: _Run, faces: Tensor, labels: Tensor) -> tuple[float, int]:
    """One optimizer step on (B, H, W) faces; the loss and how many were classified rightly."""
    _, logits = run.net(faces)
    loss = F.cross_entropy(logits, labels, label_smoothing=run.settings.label_smoothing)
    run.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.net.parameters(), 5.0)
    run.optimizer.step()
    run.schedule.step()
    return loss.item(), int((logits.argmax(1) == labels).sum())


@torch.inference_mode()
def logits_of(net: DenseFaceNet, split: FaceSplit) -> Tensor:
    """Class logits of a split's faces, (n, K)."""
    net.eval()
    logits = torch.cat([net(faces)[1] for faces in split.faces.split(256)])
    net.train()
    return logits
