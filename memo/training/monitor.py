"""`metrics.jsonl` and TensorBoard: what a run says of itself, on the first rank alone."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Self

from torch.utils.tensorboard import SummaryWriter

from data_pipeline.errors import UserError
from data_pipeline.stream import BatchMaker
from memo.training.engine import ObjectiveResult, StepResult

MEGA = 1e6

ROLL_BACKS = "roll_backs"
"""Column of the rows that say of a roll-back."""


class Monitor:
    """Appends to `metrics.jsonl`, `skipped.jsonl` and TensorBoard's events; a context manager.

    Args:
        run: the run's folder.
        step: resumed from; later lines, of steps that will be taken again, are cut off.
        roll_backs: made before that step; later ones will be made again.
    """

    def __init__(self, run: Path, step: int, roll_backs: int) -> None:
        self._run = run
        self._path = run / "metrics.jsonl"
        self._skipped = run / "skipped.jsonl"
        self._cut_back(step, roll_backs)
        self._board = self._open_board(step)

    def _cut_back(self, step: int, roll_backs: int) -> None:
        for path in (self._path, self._skipped):
            cut_back(path, step, roll_backs)

    def _open_board(self, step: int) -> SummaryWriter:
        return SummaryWriter(str(self._run / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.close()

    def go_back(self, step: int, row: Mapping[str, float]) -> None:
        """Cut off the rows after a step, and say in a row why; see `write`."""
        self._cut_back(step, int(row[ROLL_BACKS]) - 1)
        self._board.close()
        self._board = self._open_board(step)
        self.write(row)

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row; it must have a `step`. What is not finite is written as null.

        Raises:
            UserError: the disk is full, or the folder read-only.
        """
        known = {key: value if math.isfinite(value) else None for key, value in row.items()}
        _append(self._path, known)
        for key, value in known.items():
            if key != "step" and value is not None:
                self._board.add_scalar(key, value, int(row["step"]))

    def skip(self, step: int, in_a_row: int, keys: Sequence[str]) -> None:
        """A row about a step that was not finite, and in `skipped.jsonl` whose samples it had.

        Args:
            step: its number.
            in_a_row: so many have not been finite, up to this one.
            keys: of its samples on all ranks.

        Raises:
            UserError: see `write`.
        """
        _append(self._skipped, {"step": step, "keys": list(keys)})
        self.write({"step": step, "skipped": 1, "skipped_in_a_row": in_a_row})

    def sync(self) -> None:
        """Have every row on disk; a checkpoint that is saved then has all rows up to its step.

        Raises:
            UserError: see `write`.
        """
        for path in (self._path, self._skipped):
            if path.exists():
                with _told(path), path.open("a") as file:
                    os.fsync(file.fileno())


class Supply:
    """What the first rank's loader brings in, between one row of the log and the next.

    Args:
        maker: of the micro-batches.
    """

    def __init__(self, maker: BatchMaker) -> None:
        self._maker = maker
        self._last = self._counts()

    def columns(self) -> dict[str, float]:
        """`read_mb_per_s` of clips; of datasets on a server `network_mb_per_s` and `cache_hits`.

        The latter is the share of shards that were found in the cache, since the run was started.
        """
        now, last = self._counts(), self._last
        self._last = now
        clips, network, seconds = (new - old for new, old in zip(now, last, strict=True))
        columns = {"read_mb_per_s": clips / MEGA / seconds}
        traffic = self._maker.traffic
        if traffic.hits + traffic.misses:
            columns["network_mb_per_s"] = network / MEGA / seconds
            columns["cache_hits"] = traffic.hits / (traffic.hits + traffic.misses)
        return columns

    def _counts(self) -> tuple[float, float, float]:
        """Bytes of clips, bytes over the network, seconds."""
        traffic = self._maker.traffic
        return self._maker.activity.bytes_read, traffic.bytes_read, perf_counter()


class Taken(NamedTuple):
    """What a step took and did.

    Attributes:
        seconds: of it, with the waiting.
        waited_s: for its data.
        samples, tokens: over all ranks.
        flops: of this rank.
    """

    seconds: float
    waited_s: float
    samples: int
    tokens: int
    flops: float


class Pace:
    """How fast the steps are, from one row of the log to the next: none of them goes unseen.

    Args:
        peak_flops: what this rank's device can do in a second.
    """

    def __init__(self, peak_flops: float) -> None:
        self._peak_flops = peak_flops
        self._taken: list[Taken] = []

    def count(self, step: Taken) -> None:
        """One more step."""
        self._taken.append(step)

    def columns(self) -> dict[str, float]:
        """Of all steps since this was last asked, of which there is at least one; means of them."""
        seconds, waited_s, samples, tokens, flops = map(sum, zip(*self._taken, strict=True))
        steps = len(self._taken)
        self._taken.clear()
        return {
            "samples_per_s": samples / seconds,
            "tokens_per_s": tokens / seconds,
            "mfu": flops / seconds / self._peak_flops,
            "data_wait": waited_s / seconds,
            "step_s": seconds / steps,
        }


def cut_back(path: Path, step: int, roll_backs: int) -> None:
    """Drop the rows of steps after `step`, of roll-backs after so many, and a torn last line."""
    if not path.exists():
        return
    kept = [
        line + "\n"
        for line, row in _whole_rows(path)
        if row["step"] <= step and row.get(ROLL_BACKS, 0) <= roll_backs
    ]
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf8") as file:
        file.write("".join(kept))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _append(path: Path, row: Mapping[str, object]) -> None:
    with _told(path), path.open("a", encoding="utf8") as file:
        file.write(json.dumps(row) + "\n")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """A file that cannot be written is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def lacks_validation(run: Path, step: int) -> bool:
    """Whether a run has no validation of this step in its log."""
    path = run / "metrics.jsonl"
    rows = [row for _, row in _whole_rows(path)] if path.exists() else []
    return not any(row["step"] == step and "valid/loss" in row for row in rows)


def _whole_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of a log with what they say, without a torn one."""
    for line in path.read_text("utf8").splitlines():
        with suppress(ValueError):
            yield line, json.loads(line)


def objective_columns(objectives: Mapping[str, ObjectiveResult]) -> dict[str, float]:
    """`loss/<name>` and `metric/<name>` of every objective that had a target."""
    present = {name: one for name, one in objectives.items() if one.count}
    losses = {f"loss/{name}": one.loss for name, one in present.items()}
    return losses | {f"metric/{name}": one.metric for name, one in present.items()}


def step_columns(result: StepResult) -> dict[str, float]:
    """The part of a row that the step itself knows."""
    return {
        "loss": result.loss,
        **objective_columns(result.objectives),
        "grad_norm": result.grad_norm,
    }
