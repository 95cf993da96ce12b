"""What a tuning run does, fold by fold: one task, or a sequence of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from data_pipeline.errors import UserError
from data_pipeline.stream import StepSize, check_size
from memo.training.distributed import Ranks
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Keeping
from memo.tuning.together import Divided

Record = Mapping[str, Any]
"""Plain values, as JSON has them."""


class Artifact(ABC):
    """What a fold leaves beside its record.

    Attributes:
        name: of its folder.
    """

    name: str

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write it into a new folder."""


class Job(ABC):
    """A tuning run, opened and checked.

    Attributes:
        config: the settings, as they were given.
    """

    config: FinetuneConfig

    @property
    @abstractmethod
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds to run."""

    @property
    @abstractmethod
    def seeds(self) -> tuple[int, ...]:
        """Each fold is trained once with each."""

    @property
    @abstractmethod
    def divided(self) -> Sequence[Divided]:
        """Its tasks, and how their clips are divided."""

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """What the folds come from beyond the settings: a name may mean another thing tomorrow."""

    def check_ranks(self, ranks: int) -> None:
        """Refuse more ranks than a step, or a part that is trained on, can be divided among.

        Raises:
            UserError: there are more.
        """
        check_size(StepSize(self.config.batch.global_batch), ranks)
        for task in self.divided:
            for number in self.folds:
                clips = len(task.folds[number].train)
                if clips < ranks:
                    raise UserError(
                        f"{ranks} ranks, but fold {number} of task {task.name} trains on only "
                        f"{clips} clips; start fewer ranks"
                    )

    @abstractmethod
    def learn(
        self, fold: int, seed: int, ranks: Ranks, keeping: Keeping
    ) -> tuple[Record, Sequence[Artifact]]:
        """Train and test one fold with one seed.

        Args:
            fold: its number.
            seed: of all that is drawn.
            ranks: this process among the others.
            keeping: where what is trained is kept until all is done.

        Raises:
            UserError: too many non-finite steps or bad clips, or more ranks than clips.
            StoppedError: by a signal.
        """

    @abstractmethod
    def summarise(self, records: Sequence[Record]) -> Record:
        """The content of `results.json`, from the records of all folds and seeds."""

    @abstractmethod
    def tables(self, results: Record) -> list[Table]:
        """What a person sees of it."""
