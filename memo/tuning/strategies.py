"""How tasks are learned one after the other: what is taken over, held on to and rehearsed."""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.errors import UserError
from memo.evaluation.folds import Fold
from memo.tuning.config import ContinualSettings
from memo.tuning.ewc import ElasticPenalty, Memory
from memo.tuning.model import Penalty


@dataclass(frozen=True)
class Stage:
    """A task that has been learned.

    Attributes:
        fold: its parts.
        trained: the trained tensors at its end.
        memory: what EWC keeps of it.
    """

    fold: Fold
    trained: Mapping[str, Tensor]
    memory: Memory | None


class Strategy(ABC):
    """One way to learn a sequence.

    Args:
        settings: of continual learning.
    """

    name: ClassVar[str]
    """Name on the command line (`--mode`)."""

    mode: ClassVar[str] = "full"
    """The tuning mode of each stage."""

    remembers: ClassVar[bool] = False
    """Whether weights and Fisher information of each task are kept."""

    def __init__(self, settings: ContinualSettings) -> None:
        self.settings = settings

    def stages(self, folds: Sequence[Fold]) -> list[Fold]:
        """What is trained on in each stage; as many as there are tasks, unless learned at once."""
        return list(folds)

    def start(self, before: Sequence[Stage]) -> Mapping[str, Tensor] | None:
        """The weights that the next stage begins with; None: new ones."""
        return before[-1].trained if before else None

    def penalty(self, before: Sequence[Stage]) -> Penalty | None:
        """What is added to the loss of the next stage."""
        del before
        return None

    def rehearsed(
        self, before: Sequence[Stage], labels: NDArray[np.int64], seed: int
    ) -> NDArray[np.int64]:
        """Clips of earlier tasks that the next stage trains on as well, int64 (m,)."""
        del before, labels, seed
        return np.zeros(0, dtype=np.int64)

    def weights_of(self, task: int, stages: Sequence[Stage]) -> Mapping[str, Tensor]:
        """The weights that answer for a task after some stages."""
        del task
        return stages[-1].trained


class Finetune(Strategy):
    """Plain fine-tuning on one task after the other."""

    name: ClassVar[str] = "full"


class Ewc(Strategy):
    """Fine-tuning with elastic weight consolidation."""

    name: ClassVar[str] = "ewc"
    remembers: ClassVar[bool] = True

    def penalty(self, before: Sequence[Stage]) -> Penalty | None:
        """The penalty of all earlier tasks."""
        memories = [stage.memory for stage in before if stage.memory is not None]
        return ElasticPenalty(memories, self.settings.strength) if memories else None


class Replay(Strategy):
    """Fine-tuning on the new task and a few clips of each earlier one."""

    name: ClassVar[str] = "replay"

    def rehearsed(
        self, before: Sequence[Stage], labels: NDArray[np.int64], seed: int
    ) -> NDArray[np.int64]:
        """As many clips of each class of each earlier task, drawn from its training part."""
        chosen = [np.zeros(0, dtype=np.int64)]
        for number, stage in enumerate(before):
            rng = np.random.default_rng((seed, number))
            own = stage.fold.train
            for label in np.unique(labels[own]):
                clips = rng.permutation(own[labels[own] == label])
                chosen.append(clips[: self.settings.replay_clips])
        return np.concatenate(chosen)


class Adapters(Strategy):
    """An adapter and a head for each task, on the one frozen backbone: nothing is forgotten."""

    name: ClassVar[str] = "adapter"
    mode: ClassVar[str] = "adapter"

    def start(self, before: Sequence[Stage]) -> None:
        """New ones."""
        del before

    def weights_of(self, task: int, stages: Sequence[Stage]) -> Mapping[str, Tensor]:
        """The task's own; before it is learned, the last ones."""
        return stages[min(task, len(stages) - 1)].trained


class Joint(Strategy):
    """All tasks at once: what no sequence is expected to reach."""

    name: ClassVar[str] = "joint"

    def stages(self, folds: Sequence[Fold]) -> list[Fold]:
        """One, of all tasks' parts."""
        parts = [[getattr(fold, name) for fold in folds] for name in ("train", "valid", "test")]
        return [Fold(*(np.concatenate(part) for part in parts))]


STRATEGIES: dict[str, type[Strategy]] = {
    one.name: one for one in (Finetune, Ewc, Replay, Adapters, Joint)
}


def load_strategy(name: str, settings: ContinualSettings) -> Strategy:
    """The strategy of this name.

    Raises:
        UserError: there is none.
    """
    if name not in STRATEGIES:
        raise UserError(
            f"--mode: {name!r} cannot learn a sequence of tasks (known: {', '.join(STRATEGIES)})"
        )
    return STRATEGIES[name](settings)
