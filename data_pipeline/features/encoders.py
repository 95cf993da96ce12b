"""Encoders by name: what the registries of `speech.py` and `face_encoder.py` have in common.

A name is that of an encoder of this package (`whisper`), that of a family and one of its members
(`timm:resnet18`), or that of a class of one's own (`package.module:Class`, see `own.py`). It stands
in `dataset.json`, so that the same encoder can be found again.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import torch

import data_pipeline.features
from data_pipeline.errors import UserError
from data_pipeline.features.weights import find_weights

_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder, with which weights.

    Attributes:
        name: on the command line and in `dataset.json`.
        weights: file or folder; None: not found yet, or there are none.
    """

    name: str
    weights: Path | None = None


class Weights(Enum):
    """Of encoders whose weights are not looked for."""

    GIVEN = "the command line must name them"
    NONE = "there are none"
    OPTIONAL = "the command line may name them"


WeightPlace: TypeAlias = str | Path | Weights
"""Name of the folder in which weights are looked for, or the file that ships with the package."""

EncoderT = TypeVar("EncoderT")
LoaderT = TypeVar("LoaderT", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Entry(Generic[EncoderT]):
    """An encoder's class, or a function: weights (None if it has none), device -> the encoder."""

    load: Callable[[Path | None, torch.device], EncoderT]
    place: WeightPlace


@dataclass(frozen=True)
class _Family(Generic[EncoderT]):
    """The same for many: member, weights, device -> the encoder."""

    load: Callable[[str, Path | None, torch.device], EncoderT]
    place: WeightPlace


class EncoderRegistry(Generic[EncoderT]):
    """The encoders of one modality; each is one file of this package, or somebody's class.

    Args:
        kind: the modality; `--<kind>` and `--<kind>-weights` are its options.
        load_own: name, weights, device -> an encoder of one's own.
    """

    def __init__(
        self, kind: str, load_own: Callable[[str, Path | None, torch.device], EncoderT]
    ) -> None:
        self.kind = kind
        self._load_own = load_own
        self._encoders: dict[str, _Entry[EncoderT]] = {}
        self._families: dict[str, _Family[EncoderT]] = {}

    def register(self, name: str, place: WeightPlace) -> Callable[[LoaderT], LoaderT]:
        """Decorator: make a class or function known under an encoder's name.

        It is called with the weights, None if it has none, and the device.

        Args:
            name: of the encoder.
            place: of its weights.
        """

        def enter(load: LoaderT) -> LoaderT:
            self._refuse_twice(name)
            self._encoders[name] = _Entry(load, place)
            return load

        return enter

    def register_family(self, name: str, place: WeightPlace) -> Callable[[LoaderT], LoaderT]:
        """The same for `name:MEMBER`; it is called with the member, the weights and the device."""

        def enter(load: LoaderT) -> LoaderT:
            self._refuse_twice(name)
            self._families[name] = _Family(load, place)
            return load

        return enter

    def names(self) -> list[str]:
        """Names of all encoders and families; imports every module of the package."""
        for module in pkgutil.iter_modules(
            data_pipeline.features.__path__, "data_pipeline.features."
        ):
            importlib.import_module(module.name)
        return sorted([*self._encoders, *(f"{family}:MODEL" for family in self._families)])

    def is_own(self, name: str) -> bool:
        """Whether this is the name of a class that is no part of memo."""
        self.names()
        return name.partition(":")[0] not in self._families and _OWN.fullmatch(name) is not None

    def check(self, name: str) -> None:
        """Whether there may be an encoder of this name; a class of one's own is not imported.

        Raises:
            UserError: there is none; lists those there are.
        """
        self._entry(name)

    def find(self, choice: EncoderChoice, source: Path) -> EncoderChoice:
        """The choice with the place of its weights.

        Args:
            choice: an encoder, and its weights if the user names them.
            source: the corpus, near which weights are looked for.

        Raises:
            UserError: the encoder is unknown, or its weights cannot be found or cannot be.
        """
        name, place = choice.name, self._entry(choice.name).place
        option = f"--{self.kind}-weights"
        if choice.weights is not None:
            if place is Weights.NONE:
                raise UserError(f"{option}: {name} has no weights; leave it out")
            return choice
        if place is Weights.GIVEN:
            raise UserError(f"--{self.kind} {name} needs {option}, the file of its weights")
        if isinstance(place, Weights):
            return choice
        if isinstance(place, Path):
            return replace(choice, weights=place)
        return replace(choice, weights=find_weights(name, place, option, source))

    def load(self, choice: EncoderChoice, device: torch.device) -> EncoderT:
        """The encoder.

        Raises:
            UserError: there is none of this name, or its weights do not load.
        """
        entry, weights = self._entry(choice.name), choice.weights
        if weights is not None and not weights.exists():
            raise UserError(
                f"no weights of {choice.name} at {weights}; name them with --{self.kind}-weights"
            )
        return entry.load(weights, device)

    def _entry(self, name: str) -> _Entry[EncoderT]:
        known = self.names()
        if name in self._encoders:
            return self._encoders[name]
        first, _, member = name.partition(":")
        if member and first in self._families:
            family = self._families[first]
            return _Entry(partial(family.load, member), family.place)
        if self.is_own(name):
            return _Entry(partial(self._load_own, name), Weights.OPTIONAL)
        raise UserError(
            f"--{self.kind}: no encoder {name!r}; known are {', '.join(known)}, and one's own as "
            "package.module:Class"
        )

    def _refuse_twice(self, name: str) -> None:
        if name in self._encoders or name in self._families:
            raise ValueError(f"two {self.kind} encoders are called {name!r}")
