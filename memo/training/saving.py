"""Writing checkpoints: whole or not at all, while training goes on; `checkpoint.py` reads them."""

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.index import file_sha256
from memo.config import ModelSpec, PretrainConfig
from memo.tokenizer import Tokenizer
from memo.training.checkpoint import (
    FORMAT,
    LATEST,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    TOKENIZER,
    Progress,
)
from memo.training.state import TrainingState

_NAME = re.compile(r"step-(\d{8,})")

_log = logging.getLogger(__name__)


class Saver:
    """Writes checkpoints in a thread, one at a time, while training goes on; a context manager.

    One that cannot be written is told of, and training goes on: those before it are as they were,
    and the next one may find room again. Leaving the context waits for the last one.

    Args:
        say: tells the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wait()

    def begin(self, write: Callable[[], Path]) -> None:
        """Write a checkpoint in the thread, when the one before is done.

        Raises:
            Exception: the one before has failed, and it was no user's mistake.
        """
        self.wait()
        if self._failure is not None and not isinstance(self._failure, UserError):
            raise self._failure
        self._thread = Thread(target=self._run, args=(write,), name="checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Wait for the last one.

        Raises:
            UserError: it could not be written.
        """
        self.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self, write: Callable[[], Path]) -> None:
        """In the thread."""
        self._failure = None
        try:
            write()
        except UserError as error:
            self._failure = error
            self._say(f"no checkpoint: {error}; the run goes on")
        except BaseException as error:  # raised in the thread that trains
            self._failure = error

    def wait(self) -> None:
        """Until the last one is written, or has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def refuse_unwritable(root: Path) -> None:
    """Stop a run that could save nothing before its first step.

    Args:
        root: the run's `checkpoints`, which need not exist.

    Raises:
        UserError: it is no folder, or nothing can be put there.
    """
    if not root.exists():
        return
    try:
        with TemporaryDirectory(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"{root}: no checkpoint can be written there ({error.strerror}); set run_dir"
        ) from None


def write_checkpoint(
    root: Path,
    state: TrainingState,
    progress: Progress,
    config: PretrainConfig,
    spec: ModelSpec,
    features: FeatureSchema,
    tokenizer: Tokenizer,
) -> Path:
    """Write a checkpoint; called on the first rank alone.

    Its folder appears by one rename when every file is on disk, then `latest` names it, then the
    oldest ones beyond `config.keep_checkpoints` are removed, but for those at multiples of
    `config.keep_every`.

    Args:
        root: the run's `checkpoints` folder.
        state: from `Engine.collect`.
        progress: how far the run is.
        config: its settings.
        spec: the model's sizes.
        features: of the dataset.
        tokenizer: the run's.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: a weight is not finite, or the disk is full; the older checkpoints stay as they
            are, and nothing is left of this one.
    """
    _refuse_non_finite(state.model)
    folder = folder_of(root, progress.step)
    about = (state, progress, config, spec, features, tokenizer)
    write_whole(folder, lambda place: _write_files(place, *about))
    try:
        before = latest_step(root)
        point_latest(root, folder.name)
    except OSError as error:
        raise UserError(f"{root / LATEST} cannot be written: {error}") from None
    try:
        _prune(root, config, before, progress)
    except OSError as error:
        _log.warning("%s: older checkpoints cannot be removed: %s", root, error)
    return folder


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Let a folder appear by one rename when every file is on disk, and their hashes with them.

    Args:
        folder: `verify_files` can look at it then; one of this name makes room.
        write: fills an empty folder.

    Raises:
        UserError: the disk is full, or not to be written to; nothing is left.
    """
    temporary = folder.with_suffix(".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        _write_manifest(temporary)
        _sync_tree(temporary)
        _put_in_place(temporary, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)  # a part of it would keep a full disk full
        raise UserError(f"{temporary} cannot be written: {error}") from None


def _write_files(
    temporary: Path,
    state: TrainingState,
    progress: Progress,
    config: PretrainConfig,
    spec: ModelSpec,
    features: FeatureSchema,
    tokenizer: Tokenizer,
) -> None:
    """All of a checkpoint but its manifest."""
    save_file(dict(state.model), temporary / MODEL)
    save_file(dict(state.moments), temporary / OPTIMIZER)
    tokenizer.save(temporary / TOKENIZER)
    record = {
        "format": FORMAT,
        "progress": {**asdict(progress), "stream": progress.stream.to_json()},
        "updates": state.updates,
        "spec": spec.model_dump(),
        "features": features.model_dump(mode="json"),
        "config": config.model_dump(mode="json"),
        "tokenizer_fingerprint": tokenizer.fingerprint,
    }
    (temporary / STATE).write_text(json.dumps(record, indent=1), encoding="utf8")


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Give a whole checkpoint its name; one of a run that was resumed from before it makes room."""
    if folder.exists():
        old = folder.with_suffix(".old.tmp")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    temporary.rename(folder)


def _refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} is not finite; no checkpoint of this state is written")


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    entries = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in files
    }
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1), encoding="utf8")


def _sync_tree(folder: Path) -> None:
    """Have every file and folder on disk before the rename that makes them count."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def point_latest(root: Path, name: str) -> None:
    """Let `latest` name a checkpoint, on disk before this returns."""
    temporary = root / f"{LATEST}.tmp"
    with temporary.open("w", encoding="utf8") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(root / LATEST)
    _sync(root)


def latest_step(root: Path) -> float:
    """The step of the checkpoint that `latest` names; infinite if it names none."""
    named = root / LATEST
    name = named.read_text("utf8", errors="replace").strip() if named.is_file() else ""
    found = (step for step, folder in folders_by_step(root).items() if folder.name == name)
    return next(found, math.inf)


def steps_so_far(root: Path) -> list[int]:
    """Steps of the checkpoints up to the one that `latest` names, ascending.

    Later ones are of a course that the run has left: it was resumed from before them.
    """
    newest = latest_step(root)
    return [step for step in folders_by_step(root) if step <= newest < math.inf]


def is_own(root: Path, folder: Path) -> bool:
    """Whether a checkpoint is one of those in a run's `checkpoints`."""
    return folder.resolve().parent == root.resolve()


def go_back_to(root: Path, step: int) -> None:
    """Let `latest` name the checkpoint of a step, and remove the later ones."""
    folders = folders_by_step(root)
    point_latest(root, folders[step].name)
    for later, folder in folders.items():
        if later > step:
            shutil.rmtree(folder)


def _prune(root: Path, config: PretrainConfig, before: float, progress: Progress) -> None:
    """Remove the oldest checkpoints, and what interrupted writes have left.

    Later ones than the newest are of a run that was resumed from before them; they do not count,
    and go when it has passed them: between the newest and the one before it there is none. Nor do
    those count whose loss was high already, for the run may go back to before it rose.
    """
    for left in root.glob("step-*.tmp"):
        shutil.rmtree(left)
    steps = folders_by_step(root)
    for passed in [step for step in steps if before < step < progress.step]:
        shutil.rmtree(steps.pop(passed))
    if config.keep_checkpoints is not None:
        calm = sorted(step for step in steps if step <= progress.step - progress.losses.high)
        for old in calm[: -config.keep_checkpoints]:
            if config.keep_every is None or old % config.keep_every:
                shutil.rmtree(steps[old])


def folder_of(root: Path, step: int) -> Path:
    """Where a run's `checkpoints` has that of a step."""
    return root / f"step-{step:08d}"


def folders_by_step(root: Path) -> dict[int, Path]:
    """Step -> folder of each checkpoint in a run's `checkpoints`, ascending.

    What interrupted writes have left, and what somebody else has put there, is none.
    """
    found = ((_NAME.fullmatch(folder.name), folder) for folder in sorted(root.glob("step-*")))
    return {int(match[1]): folder for match, folder in found if match}
