"""The training of a fold: its steps, its epochs, the best of them; a run that is stopped goes on.

```
partial/fold-0-seed-1/step-00000120/     until the fold is done
  model.safetensors, optimizer.safetensors   what the next step changes
  best.safetensors                           trained tensors and buffers of the best epoch so far
  state.json, manifest.json
```

What a step sees is told by its number and the seed, so nothing of the data is kept.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Self

from safetensors.torch import save_file
from torch import Tensor

from data_pipeline.errors import AgreedError, UserError
from memo.training.checkpoint import MODEL, OPTIMIZER, STATE, load_tensors, verify_files
from memo.training.distributed import Ranks
from memo.training.engine import Engine, StepResult
from memo.training.progress import Display
from memo.training.saving import folder_of, folders_by_step, write_whole
from memo.training.signals import StopSignals
from memo.training.state import TrainingState
from memo.tuning.config import TrainingSettings

BAD_STEPS = 5
"""Non-finite steps in a row after which a fold is given up."""
KEEP_S = 300.0
"""So much of its training is lost at most when a run is killed."""
BEST = "best.safetensors"
FORMAT = "memo-fold/1"
_DUE = 1
"""Stands for "it is time to keep" where the ranks agree on a signal; no such one is heard."""


class StoppedError(Exception):
    """A signal has asked to stop, on all ranks: what was trained is kept.

    Args:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


def stop_if_asked(ranks: Ranks, signals: StopSignals) -> None:
    """Where there is nothing to keep; all ranks call it together.

    Raises:
        StoppedError: a signal has come, to one of them at least.
    """
    asked = ranks.max(signals.received or 0)
    if asked:
        raise StoppedError(asked)


@dataclass(frozen=True)
class Keeping:
    """Where the training of a fold is kept until the fold is done.

    Attributes:
        folder: of the fold with its seed; it need not be there.
        signals: that ask to stop.
    """

    folder: Path
    signals: StopSignals

    def stage(self, name: str) -> Self:
        """Of one of several trainings of a fold."""
        return replace(self, folder=self.folder / name)


@dataclass(frozen=True)
class Best:
    """The best epoch so far.

    Attributes:
        number: from 1.
        score: by which it was chosen.
        trained: the trained tensors at its end.
        buffers: the model's other values, by name.
    """

    number: int
    score: float
    trained: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Standing:
    """Where a training stands.

    Attributes:
        step: steps taken.
        bad_steps: of them the last ones that were not finite.
        loss: of the last one.
        over: no step follows.
        epochs: of each that is done what was said of it, as JSON has it.
        seconds: that it took.
    """

    step: int = 0
    bad_steps: int = 0
    loss: float = 0.0
    over: bool = False
    epochs: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0


class Course:
    """One training from where it stands to its last epoch.

    Args:
        keeping: where it is kept.
        ranks: this process among the others.
        engine: takes its steps; it takes up what was kept.
        settings: epochs and patience.
        per_epoch: steps of an epoch.
        name: for messages.

    Raises:
        UserError: what was kept is damaged.
    """

    def __init__(
        self,
        keeping: Keeping,
        ranks: Ranks,
        engine: Engine,
        settings: TrainingSettings,
        per_epoch: int,
        name: str,
    ) -> None:
        self._keeping, self._ranks, self._engine = keeping, ranks, engine
        self._settings, self._per_epoch, self._name = settings, per_epoch, name
        self._standing = _Standing()
        self._best: Best | None = None
        self._take_up()
        self._begun_at = self._kept_at = perf_counter()

    @property
    def step(self) -> int:
        """Steps taken."""
        return self._standing.step

    @property
    def loss(self) -> float:
        """Of the last step."""
        return self._standing.loss

    @property
    def epochs(self) -> Sequence[Mapping[str, Any]]:
        """What was said of each epoch that is done, see `judge`."""
        return self._standing.epochs

    @property
    def seconds(self) -> float:
        """That the training has taken, before it was stopped as well."""
        return self._standing.seconds + perf_counter() - self._begun_at

    @property
    def best(self) -> Best:
        """The best epoch; one must be done."""
        assert self._best is not None, "there is at least one epoch"
        return self._best

    def epochs_left(self, take: Callable[[int], StepResult], display: Display) -> Iterator[int]:
        """Train epoch by epoch; `judge` must follow each before the next is asked for.

        Args:
            take: takes the step of a number, from 0.
            display: what a person sees.

        Yields:
            The number of each epoch, from 1, when its steps are taken.

        Raises:
            AgreedError: too many non-finite steps in a row, or asked to stop it cannot be kept.
            StoppedError: by a signal.
        """
        if self.step and not self._standing.over:
            display.say(f"{self._name}: goes on from step {self.step}")
        display.step(self.step)
        while not self._standing.over:
            number = len(self.epochs) + 1
            while self.step < number * self._per_epoch:
                self._take(take)
                display.step(self.step)
                self._keep_if_asked(display)
            yield number
            assert len(self.epochs) == number, "each is judged"
        self._keep(display)
        stop_if_asked(self._ranks, self._keeping.signals)

    def judge(self, score: float, about: Mapping[str, Any]) -> None:
        """An epoch has reached a score on the validation part; of equal ones the first is best.

        Args:
            score: the higher the better.
            about: what is to be said of the epoch, as JSON has it.
        """
        number = len(self.epochs) + 1
        if self._best is None or score > self._best.score:
            buffers = {name: one.clone() for name, one in self._engine.model.named_buffers()}
            self._best = Best(number, score, self._engine.trained(), buffers)
        patience = self._settings.patience
        tired = patience is not None and number - self._best.number >= patience
        self._standing = replace(
            self._standing,
            epochs=(*self.epochs, about),
            over=tired or number == self._settings.epochs,
        )

    def _take(self, take: Callable[[int], StepResult]) -> None:
        self._ranks.does(f"{self._name}, step {self.step + 1}")
        result = take(self.step)
        bad = 0 if result.applied else self._standing.bad_steps + 1
        self._standing = replace(
            self._standing, step=self.step + 1, bad_steps=bad, loss=result.loss
        )
        if bad >= BAD_STEPS:
            raise AgreedError(f"{self._name}: {bad} non-finite steps in a row; lower optimizer.lr")

    def _keep_if_asked(self, display: Display) -> None:
        """After a step: by a signal, or because it is time."""
        due = self._ranks.first and perf_counter() - self._kept_at >= KEEP_S
        asked = self._ranks.max(self._keeping.signals.received or (_DUE if due else 0))
        if not asked:
            return
        self._keep(display, must=asked != _DUE)
        if asked != _DUE:
            display.say(
                f"{self._name}: asked to stop at step {self.step}; the same command goes on"
            )
            raise StoppedError(asked)

    def _keep(self, display: Display, must: bool = False) -> None:
        """Write where the training stands; all ranks call it together.

        Args:
            display: told if it cannot be written.
            must: it is an error then.
        """
        self._ranks.does(f"{self._name}, keeping step {self.step}")
        nothing = TrainingState({}, {}, 0)
        state = nothing if self._standing.over else self._engine.collect()
        with self._ranks.together():
            if self._ranks.first:
                assert state is not None, "the first rank has it"
                try:
                    self._write(state)
                    self._remove_older(display)
                except UserError as error:
                    if must:
                        raise
                    display.say(f"{self._name}: not kept at step {self.step}: {error}")
        self._kept_at = perf_counter()

    def _write(self, state: TrainingState) -> None:
        """On the first rank."""
        folder = folder_of(self._keeping.folder, self.step)
        write_whole(folder, lambda place: self._write_files(place, state))

    def _remove_older(self, display: Display) -> None:
        """What is kept is whole already: nothing that stays beside it is worth a fold."""
        for step, other in folders_by_step(self._keeping.folder).items():
            if step != self.step:
                try:
                    shutil.rmtree(other)
                except OSError as error:
                    display.say(f"{self._name}: {other} cannot be removed: {error.strerror}")

    def _write_files(self, place: Path, state: TrainingState) -> None:
        save_file(dict(state.model), place / MODEL)
        save_file(dict(state.moments), place / OPTIMIZER)
        best = self._best
        trained = {f"trained.{name}": one for name, one in best.trained.items()} if best else {}
        buffers = {f"buffers.{name}": one for name, one in best.buffers.items()} if best else {}
        save_file({**trained, **buffers}, place / BEST)
        record = {
            "format": FORMAT,
            **vars(replace(self._standing, seconds=self.seconds)),
            "updates": state.updates,
            "best": best and {"number": best.number, "score": best.score},
        }
        (place / STATE).write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf8")

    def _take_up(self) -> None:
        """Go on from what was kept, if anything was; all ranks call it together."""
        place = None
        if self._ranks.first:
            place = next(reversed(folders_by_step(self._keeping.folder).values()), None)
        place = self._ranks.gather(place)[0]
        if place is None:
            return
        with self._ranks.together():
            state = self._read(place)
        if not self._standing.over:
            self._engine.go_back(state)

    def _read(self, place: Path) -> TrainingState:
        """What was kept of the engine; the rest is taken over.

        Raises:
            UserError: it is damaged.
        """
        try:
            verify_files(place)
        except UserError as error:
            raise UserError(f"{error}; or remove {place}, and the fold begins anew") from None
        record = json.loads((place / STATE).read_text("utf8"))
        if record.pop("format") != FORMAT:
            raise UserError(f"{place} was kept by another version; remove it to begin anew")
        updates, best = record.pop("updates"), record.pop("best")
        if best:
            tensors = load_tensors(place / BEST)
            self._best = Best(
                **best,
                trained=_beginning(tensors, "trained."),
                buffers=_beginning(tensors, "buffers."),
            )
        self._standing = _Standing(**record)
        return TrainingState(load_tensors(place / MODEL), load_tensors(place / OPTIMIZER), updates)


def _beginning(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, without it, as copies.

    Tensors of a file are maps of it, and the best epoch outlives this file: NFS does not let go of
    a folder with a file that is mapped.
    """
    return {
        name.removeprefix(prefix): one.clone()
        for name, one in tensors.items()
        if name.startswith(prefix)
    }
