"""Looking after the checkpoints of a run: which are whole, which may go, and their average."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data_pipeline.errors import UserError
from memo.training.admission import sole_run
from memo.training.checkpoint import (
    LATEST,
    MANIFEST,
    MODEL,
    Checkpoint,
    open_checkpoint,
    verify_files,
)
from memo.training.saving import folders_by_step, latest_step, point_latest, write_checkpoint
from memo.training.state import TrainingState


@dataclass(frozen=True)
class Finding:
    """What a look at a checkpoint has shown.

    Attributes:
        folder: of the checkpoint.
        fault: what is wrong with it; None if it is whole.
    """

    folder: Path
    fault: str | None

    def __str__(self) -> str:
        if self.fault is not None:
            return f"{self.folder}: {self.fault}"
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return f"{self.folder}: whole, {sum(path.stat().st_size for path in files):,} bytes"


def verify(place: Path) -> list[Finding]:
    """Compare every file of a checkpoint, or of all of a run, with its hash.

    Args:
        place: a checkpoint's folder, a run's, or its `checkpoints`.

    Returns:
        One for each checkpoint, by step.

    Raises:
        UserError: there is none.
    """
    if (place / MANIFEST).is_file() or (place / MODEL).is_file():
        return [_look_at(place)]
    return [_look_at(folder) for folder in folders_by_step(_root(place)).values()]


def prune(place: Path, keep: int, every: int | None) -> list[Finding]:
    """Remove all but the newest whole checkpoints; those that are broken go as well.

    The newest is the one that `latest` names, or the last whole one before, which it names then.
    Later ones are of a run that has gone back from them; they do not count, and stay.

    Args:
        place: a run's folder, or its `checkpoints`.
        keep: how many stay, at least 1.
        every: those at multiples of this step stay, too.

    Returns:
        Those that were removed.

    Raises:
        UserError: there is none, or none that is whole, or the run is being trained; then nothing
            is removed.
    """
    root = _root(place)
    with sole_run(root.parent if root.name == "checkpoints" else root):
        findings = {step: _look_at(folder) for step, folder in folders_by_step(root).items()}
        whole = [step for step, one in findings.items() if one.fault is None]
        if not whole:
            raise UserError(f"{root} has no whole checkpoint; nothing was removed")
        own = [step for step in whole if step <= latest_step(root)] or whole
        kept = {*own[-keep:], *(step for step in own if every and step % every == 0)}
        kept |= {*whole} - {*own}
        removed = [one for step, one in findings.items() if step not in kept]
        point_latest(root, findings[own[-1]].folder.name)
        for one in removed:
            shutil.rmtree(one.folder)
    return removed


def average(places: Sequence[Path], out: Path) -> Path:
    """A checkpoint whose weights are the mean of others', which were trained in one run or alike.

    It takes the place in training of the newest of them, but has no optimizer state: it is there to
    be evaluated and tuned from.

    Args:
        places: checkpoints, at least two.
        out: run folder to make.

    Returns:
        The new checkpoint's folder.

    Raises:
        UserError: `out` exists, or the checkpoints are broken or of models that differ.
    """
    if out.exists():
        raise UserError(f"{out} exists already; give a new folder or remove it")
    checkpoints = [open_checkpoint(place) for place in places]
    if len({one.folder.resolve() for one in checkpoints}) < max(len(places), 2):
        raise UserError("an average needs two checkpoints or more, each once")
    newest = max(checkpoints, key=lambda one: one.progress.step)
    for one in checkpoints:
        _refuse_other_model(one, newest)
    state = TrainingState(_mean([one.weights() for one in checkpoints]), {}, 0)
    about = (newest.progress, newest.config, newest.spec, newest.features, newest.tokenizer())
    try:
        return write_checkpoint(out / "checkpoints", state, *about)
    except UserError:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _root(place: Path) -> Path:
    """The folder of a run's checkpoints."""
    for root in (place, place / "checkpoints"):
        if (root / LATEST).is_file() or any(root.glob("step-*")):
            return root
    raise UserError(f"there is no checkpoint in {place}; give a checkpoint's or a run's folder")


def _look_at(folder: Path) -> Finding:
    if not (folder / MANIFEST).is_file():
        return Finding(folder, f"{MANIFEST} is missing")
    try:
        verify_files(folder)
    except UserError as error:
        return Finding(folder, str(error))
    return Finding(folder, None)


def _refuse_other_model(one: Checkpoint, other: Checkpoint) -> None:
    if one.spec != other.spec:
        raise UserError(f"{one.folder} and {other.folder} are of models of different sizes")
    if list(one.config.objectives) != list(other.config.objectives):
        raise UserError(f"{one.folder} and {other.folder} were trained with different objectives")
    if one.features != other.features:
        raise UserError(f"{one.folder} and {other.folder} were trained on rows of different kinds")
    if one.tokenizer().fingerprint != other.tokenizer().fingerprint:
        raise UserError(f"{one.folder} and {other.folder} have different tokenizers")


def _mean(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of each tensor by name, computed in float64."""
    return {
        name: torch.stack([one[name].double() for one in weights]).mean(dim=0).to(first.dtype)
        for name, first in weights[0].items()
    }
