"""Frozen models by name: encoders, recognisers, aligners; and where their weights are looked for.

A name is that of a model of memo (`whisper`), that of a family and one of its members
(`timm:resnet18`), or, where there may be such, that of a class of one's own
(`package.module:Class`, see `features/own.py`). It stands in `dataset.json`, so that the same model
can be found again.
"""

import importlib
import os
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, TypeVarTuple

from data_pipeline.errors import UserError

_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True)
class ModelChoice:
    """Which model, with which weights.

    Attributes:
        name: on the command line and in `dataset.json`.
        weights: file or folder; None: not found yet, or there are none.
    """

    name: str
    weights: Path | None = None


class Weights(Enum):
    """Of models whose weights are not looked for."""

    GIVEN = "the command line must name them"
    NONE = "there are none"
    OPTIONAL = "the command line may name them"


WeightPlace: TypeAlias = str | Path | Weights
"""Name of the folder in which weights are looked for, or the file that ships with the package."""

ModelT = TypeVar("ModelT")
GivenT = TypeVarTuple("GivenT")
LoaderT = TypeVar("LoaderT", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Entry(Generic[ModelT]):
    load: Callable[..., ModelT]
    place: WeightPlace


class Registry(Generic[ModelT, *GivenT]):
    """The models of one kind; each is one file of a package, or somebody's class.

    Args:
        option: `--<option>` and `--<option>-weights` are its options.
        what: such a model is.
        package: that has them.
        load_own: name, weights and what `load` is given -> a model of one's own; None: none may be.
    """

    def __init__(
        self,
        option: str,
        what: str,
        package: str,
        load_own: Callable[[str, Path | None, *GivenT], ModelT] | None = None,
    ) -> None:
        self.option = option
        self._what = what
        self._package = package
        self._load_own: Callable[..., ModelT] | None = load_own
        self._entries: dict[str, _Entry[ModelT]] = {}
        self._families: dict[str, _Entry[ModelT]] = {}

    def register(self, name: str, place: WeightPlace) -> Callable[[LoaderT], LoaderT]:
        """Decorator: make a class or function known under a model's name.

        It is called with the weights, None if it has none, and what `load` is given.

        Args:
            name: of the model.
            place: of its weights.
        """
        return self._enter(self._entries, name, place)

    def register_family(self, name: str, place: WeightPlace) -> Callable[[LoaderT], LoaderT]:
        """The same for `name:MEMBER`; it is called with the member before the weights."""
        return self._enter(self._families, name, place)

    def _enter(
        self, entries: dict[str, _Entry[ModelT]], name: str, place: WeightPlace
    ) -> Callable[[LoaderT], LoaderT]:
        def enter(load: LoaderT) -> LoaderT:
            if name in self._entries or name in self._families:
                raise ValueError(f"two {self.option} {self._what}s are called {name!r}")
            entries[name] = _Entry(load, place)
            return load

        return enter

    def names(self) -> list[str]:
        """All names, of families as `name:MODEL`; imports every module of the package."""
        path = importlib.import_module(self._package).__path__
        for module in pkgutil.iter_modules(path, f"{self._package}."):
            importlib.import_module(module.name)
        return sorted([*self._entries, *(f"{family}:MODEL" for family in self._families)])

    def is_own(self, name: str) -> bool:
        """Whether this is the name of a class that is no part of memo."""
        self.names()
        return name.partition(":")[0] not in self._families and _OWN.fullmatch(name) is not None

    def check(self, name: str) -> None:
        """Whether there may be a model of this name; a class of one's own is not imported.

        Raises:
            UserError: there is none; lists those there are.
        """
        self._entry(name)

    def find(self, choice: ModelChoice, source: Path) -> ModelChoice:
        """The choice with the place of its weights; nothing is ever downloaded.

        They are looked for in `$MEMO_WEIGHTS` if it is set, else in a folder `weights` beside the
        one that the corpus is in, and in `~/.cache/memo/weights`.

        Args:
            choice: a model, and its weights if the user names them.
            source: the corpus.

        Raises:
            UserError: the model is unknown, or its weights cannot be found or cannot be.
        """
        name, place = choice.name, self._entry(choice.name).place
        option = f"--{self.option}-weights"
        if choice.weights is not None:
            if place is Weights.NONE:
                raise UserError(f"{option}: {name} has no weights; leave it out")
            return choice
        if place is Weights.GIVEN:
            raise UserError(f"--{self.option} {name} needs {option}, the file of its weights")
        if isinstance(place, Weights):
            return choice
        if isinstance(place, Path):
            return replace(choice, weights=place)
        folders = [one / place for one in _weight_places(source)]
        if found := next((one for one in folders if one.exists()), None):
            return replace(choice, weights=found)
        looked = " or ".join(map(str, folders))
        raise UserError(f"no weights of {name} at {looked}; give them with {option}")

    def load(self, choice: ModelChoice, *given: *GivenT) -> ModelT:
        """The model.

        Args:
            choice: which one, with its weights if it has some.
            given: what all models of this kind need, as the device of encoders.

        Raises:
            UserError: there is none of this name, or its weights do not load.
        """
        entry, weights = self._entry(choice.name), choice.weights
        if weights is not None and not weights.exists():
            raise UserError(
                f"no weights of {choice.name} at {weights}; name them with --{self.option}-weights"
            )
        return entry.load(weights, *given)

    def _entry(self, name: str) -> _Entry[ModelT]:
        known = self.names()
        if name in self._entries:
            return self._entries[name]
        first, _, member = name.partition(":")
        if member and first in self._families:
            family = self._families[first]
            return _Entry(partial(family.load, member), family.place)
        if self._load_own is not None and self.is_own(name):
            return _Entry(partial(self._load_own, name), Weights.OPTIONAL)
        own = "" if self._load_own is None else ", and one's own as package.module:Class"
        raise UserError(
            f"--{self.option}: no {self._what} {name!r}; known are {', '.join(known)}{own}"
        )


def _weight_places(source: Path) -> list[Path]:
    if "MEMO_WEIGHTS" in os.environ:
        return [Path(os.environ["MEMO_WEIGHTS"])]
    return [
        source.absolute().parent.parent / "weights",
        Path.home() / ".cache" / "memo" / "weights",
    ]
