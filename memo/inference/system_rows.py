"""Predictions of trained systems on texts and posts: a table, and JSON lines where asked for."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from data_pipeline.errors import UserError
from data_pipeline.whole_file import write_atomically
from memo.inference.rows import TEXT, Row, read_posts, read_texts
from memo.multitask.posts import POST
from memo.multitask.trained import TrainedTexts, TrainedTrimodal

BATCH = 32
"""Texts or posts that are answered at a time."""
SHOWN = 100
"""Characters of a text in the table."""

Ask = Callable[[Sequence[Row]], Sequence[Mapping[str, float]]]
"""Rows -> probabilities of each."""


@dataclass(frozen=True)
class Asked:
    """How a kind of system is asked.

    Attributes:
        modalities: that a row may have.
        several: a row may have several answers, or none: traits.
        ask: for probabilities of rows that have something.
    """

    modalities: tuple[str, ...]
    several: bool
    ask: Ask


@dataclass(frozen=True)
class Answered:
    """What was predicted of a row.

    Attributes:
        row: the text or post.
        used: modalities that it has, and by which it was answered.
        missing: the others of the system.
        answers: the most probable class, or the traits of more than 0.5; () without `used`.
        probabilities: class or trait -> probability; empty without `used`.
    """

    row: Row
    used: tuple[str, ...]
    missing: tuple[str, ...]
    answers: tuple[str, ...]
    probabilities: Mapping[str, float]

    def to_json(self, several: bool) -> dict[str, object]:
        """As `Prediction` of a video has it, with a line for its times; `traits` if several."""
        has = {
            "image": self.row.image or None,
            "text": self.row.text or None,
            "tags": self.row.tags,
        }
        answer = {"traits": list(self.answers)} if several else {"emotion": self._one()}
        return {
            "file": str(self.row.file),
            "line": self.row.line,
            **{name: one for name, one in has.items() if name in (*self.used, *self.missing)},
            "used": self.used,
            "missing": self.missing,
            **answer,
            "probabilities": {name: round(one, 4) for name, one in self.probabilities.items()},
        }

    def _one(self) -> str | None:
        return self.answers[0] if self.answers else None


def of_texts(system: TrainedTexts, task: str | None) -> Asked:
    """How a system of texts is asked.

    Args:
        system: opened.
        task: which of its tasks; None: the only one.

    Raises:
        UserError: there is no such task, or there are several and none is named.
    """
    names = list(system.answers)
    known = f"the system knows {', '.join(names)}"
    if task is None and len(names) > 1:
        raise UserError(f"--task: which one? {known}")
    if task is not None and task not in names:
        raise UserError(f"--task: there is no {task!r}; {known}")
    chosen = task or names[0]

    def ask(rows: Sequence[Row]) -> list[dict[str, float]]:
        return system.predict([row.text for row in rows], chosen)

    return Asked(TEXT, chosen in system.several, ask)


def of_posts(system: TrainedTrimodal) -> Asked:
    """How a system of posts is asked."""

    def ask(rows: Sequence[Row]) -> list[dict[str, float]]:
        return system.predict([row.clip() for row in rows])

    return Asked(POST, several=False, ask=ask)


def answer_rows(asked: Asked, rows: Sequence[Row]) -> Iterator[Answered]:
    """Predict on every row, in order; nothing of one that has nothing."""
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        used = [tuple(one for one in asked.modalities if getattr(row, one)) for row in part]
        having = [row for row, there in zip(part, used, strict=True) if there]
        told = iter(asked.ask(having) if having else ())
        for row, there in zip(part, used, strict=True):
            found = next(told) if there else {}
            missing = tuple(one for one in asked.modalities if one not in there)
            yield Answered(row, there, missing, _answers(found, asked.several), found)


def _answers(found: Mapping[str, float], several: bool) -> tuple[str, ...]:
    if several:
        return tuple(name for name, one in found.items() if one > 0.5)
    return (max(found, key=found.__getitem__),) if found else ()


def run_rows(asked: Asked, files: Sequence[Path], encoding: str, json_out: Path | None) -> None:
    """Predict on the rows of some files: a table, and JSON lines where asked for.

    Args:
        asked: of the system.
        files: of texts or posts; see `rows.py`.
        encoding: of what is neither in UTF-8 nor in UTF-16.
        json_out: file for the JSON lines.

    Raises:
        UserError: a file cannot be read so, or an image is not there or does not decode.
    """
    read = read_posts if "image" in asked.modalities else read_texts
    rows = [row for path in files for row in read(path, encoding)]
    found = list(answer_rows(asked, rows))
    Console().print(_table(found, asked.several))
    if json_out is not None:
        lines = [json.dumps(one.to_json(asked.several), ensure_ascii=False) for one in found]
        write_atomically(json_out, "".join(f"{line}\n" for line in lines).encode())


def _table(found: Sequence[Answered], several: bool) -> Table:
    answer, text = "traits" if several else "emotion", Column("text", overflow="fold")
    table = Table("file", "line", answer, "probability", "not there", text)
    for one in found:
        nothing = "none" if one.used else "nothing to use"
        cells = [
            one.row.file.name,
            str(one.row.line),
            ", ".join(one.answers) or nothing,
            ", ".join(f"{one.probabilities[name]:.3f}" for name in one.answers),
            ", ".join(one.missing),
            _shown(one.row.text),
        ]
        table.add_row(*map(escape, cells))
    return table


def _shown(text: str) -> str:
    """The beginning of a text, in one line; of one in a script without blanks as well."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
