"""A task's templates and label words, checked and cut into pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from memo.tokenizer import Tokenizer
from memo.tuning.task import TaskSettings, Wording

MASK = "[MASK]"
SENTENCE_ENDS = tuple(".?!。？！…")


@dataclass(frozen=True)
class Prompts:
    """How each language of a task asks for the class.

    Attributes:
        languages: in the order of their numbers.
        before, after: language -> pieces of the template before and after [MASK].
        words: language -> class -> label words.
        soft: learned vectors before the template; they have the numbers -1, -2, ...
    """

    languages: tuple[str, ...]
    before: Mapping[str, NDArray[np.int64]]
    after: Mapping[str, NDArray[np.int64]]
    words: Sequence[Sequence[Sequence[str]]]
    soft: int

    @property
    def longest(self) -> int:
        """Pieces that the longest prompt adds to a sequence, a full stop and the ends included."""
        hard = max(len(self.before[one]) + len(self.after[one]) for one in self.languages)
        return hard + self.soft + 4

    def pieces(self, language: str, mask_id: int) -> tuple[NDArray[np.int64], int]:
        """The pieces of a prompt (P,), and the place of [MASK] among them."""
        soft = -1 - np.arange(self.soft)
        before = np.concatenate([soft, self.before[language]])
        ids = np.concatenate([before, [mask_id], self.after[language]])
        return ids.astype(np.int64), len(before)


def read_prompts(
    task: TaskSettings, tokenizer: Tokenizer, template: str | None, soft: int
) -> Prompts | None:
    """The task's prompts; None if it has no wording.

    Args:
        task: the settings.
        tokenizer: cuts the templates.
        template: instead of that of the task's own language.
        soft: learned vectors.

    Raises:
        UserError: a template without [MASK], or a class without label words.
    """
    wording = dict(task.wording)
    if not wording:
        return None
    if task.language not in wording:
        raise UserError(
            f"task {task.name} is in language {task.language!r}, its wording in "
            f"{', '.join(wording)}; add wording.{task.language}, or set language"
        )
    if template is not None:
        own = wording[task.language]
        wording[task.language] = own.model_copy(update={"template": template})
    for language, one in wording.items():
        _check(task, language, one)
    halves = {language: one.template.split(MASK) for language, one in wording.items()}
    return Prompts(
        languages=tuple(wording),
        before={language: tokenizer.encode(half[0]).ids for language, half in halves.items()},
        after={language: tokenizer.encode(half[1]).ids for language, half in halves.items()},
        words=[[one.words[name] for name in task.classes] for one in wording.values()],
        soft=soft,
    )


def _check(task: TaskSettings, language: str, wording: Wording) -> None:
    if wording.template.count(MASK) != 1:
        raise UserError(f"the template {wording.template!r} must have {MASK} exactly once")
    for name in task.classes:
        if not wording.words.get(name):
            raise UserError(f"task {task.name}: no label word for {name!r} in wording.{language}")


def close_sentence(text: str) -> str:
    """The utterance with a full stop if it has no end of its own (MEmoBERT's public code)."""
    text = text.strip()
    return text if not text or text.endswith(SENTENCE_ENDS) else f"{text}."
