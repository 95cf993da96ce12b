"""The contract of a tuning mode, and the registry: one file of this package a mode.

A mode says what it adds to the model and which parameters it trains. Modes that leave the backbone
as it is can be combined: `prompt+adapter`.
"""

import difflib
import importlib
import pkgutil
import re
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import memo.tuning
from data_pipeline.errors import UserError
from memo.heads.base import Head
from memo.model.memobert import MemoBert
from memo.objectives.wwmlm import WholeWordMLM
from memo.tokenizer import Tokenizer
from memo.tuning.config import SEQUENCE_MODES, FinetuneConfig
from memo.tuning.wording import Prompts


@dataclass(frozen=True)
class Parts:
    """What a mode may build upon.

    Attributes:
        config: the run's settings.
        backbone: with its pretrained weights.
        mlm: the pretrained MLM head; None if the checkpoint has none.
        tokenizer: the checkpoint's.
        classes: C.
        prompts: templates and label words, if the task has wording.
    """

    config: FinetuneConfig
    backbone: MemoBert
    mlm: WholeWordMLM | None
    tokenizer: Tokenizer
    classes: int
    prompts: Prompts | None


class TuningMode(ABC):
    """One way to tune.

    Args:
        alone: no other mode is combined with this one.
    """

    name: ClassVar[str]
    """Name on the command line."""

    partner: ClassVar[str | None] = None
    """The mode that this one can be combined with."""

    def __init__(self, alone: bool) -> None:
        self.alone = alone

    def head(self, parts: Parts) -> Head | None:
        """The head that this mode brings; None leaves it to the others.

        Raises:
            UserError: the checkpoint or the task lacks something that it needs.
        """
        del parts
        return None

    def extend(self, parts: Parts) -> None:
        """Add modules to the backbone, in place."""
        del parts

    def trains(self, name: str) -> bool:
        """Whether a parameter of the `TaskModel` is trained; the others are frozen."""
        del name
        return False


_LAYER = re.compile(r"backbone\.(?:text|face|speech|encoder\.layers\.(\d+))\.")


def stays_pretrained(name: str, frozen_layers: int) -> bool:
    """Whether a parameter of a backbone belongs to its embeddings or its lowest layers.

    Args:
        name: as in `TaskModel`.
        frozen_layers: that count as the lowest; with 0 the embeddings do not count either.
    """
    found = _LAYER.match(name)
    return frozen_layers > 0 and found is not None and int(found[1] or 0) < frozen_layers


_REGISTRY: dict[str, type[TuningMode]] = {}


def register(mode: type[TuningMode]) -> type[TuningMode]:
    """Class decorator: make a mode known under its name."""
    if mode.name in _REGISTRY:
        message = f"two modes are called {mode.name!r}"
        raise ValueError(message)
    _REGISTRY[mode.name] = mode
    return mode


def known_modes() -> dict[str, type[TuningMode]]:
    """All modes by name; imports every module of the package so that a new file is enough."""
    for module in pkgutil.iter_modules(memo.tuning.__path__, "memo.tuning."):
        importlib.import_module(module.name)
    return dict(sorted(_REGISTRY.items()))


def parse_mode(text: str) -> list[TuningMode]:
    """The modes of `adapter`, `prompt+adapter`, ...

    Raises:
        UserError: an unknown mode (names the nearest), or two that exclude each other.
    """
    known, names = known_modes(), text.split("+")
    for name in names:
        if name in SEQUENCE_MODES:
            raise UserError(f"--mode {name} learns several tasks: give --tasks A,B, not --task")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            listed = ", ".join([*known, *_pairs()])
            raise UserError(f"--mode: there is no {name!r}{meant} (known: {listed})")
    _check_combination(text, [known[name] for name in names])
    return [known[name](alone=len(names) == 1) for name in names]


def _check_combination(text: str, modes: Sequence[type[TuningMode]]) -> None:
    if len(modes) > 2 or (len(modes) == 2 and modes[0].partner != modes[1].name):
        pairs = ", ".join(_pairs())
        raise UserError(f"--mode: {text} makes no sense together; possible is {pairs}")


def _pairs() -> list[str]:
    return [f"{one.name}+{one.partner}" for one in known_modes().values() if one.partner]
