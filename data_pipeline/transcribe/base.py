"""The contracts of a recogniser and an aligner; the registries: one file a model."""

import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

import data_pipeline.transcribe
from data_pipeline.errors import UserError
from data_pipeline.features.weights import find_weights
from data_pipeline.shards.index import file_sha256

Span: TypeAlias = tuple[float, float]
"""Begin and end in seconds from the first sample on."""


class Miss(StrEnum):
    """Why a clip gets no text, or no word times; build_report.json counts them."""

    NO_SOUND = "there is no sound"
    NO_TEXT = "there is no text"
    SILENT = "nobody speaks"
    LANGUAGE = "it is in another language"
    NOTHING = "nothing was recognised"
    TOO_LONG = "the sound is too long"
    UNKNOWN_WORD = "a word cannot be spelled out"
    MISFIT = "the text does not fit the sound"


class Recognised(NamedTuple):
    """What was said, and its language as an ISO 639-1 code."""

    text: str
    language: str


class Recogniser(Protocol):
    """A frozen model that turns speech into text.

    Attributes:
        name: its name on the command line and in `dataset.json`.
        sha256: hash of the model's files.
        language: the one that it knows; "" if it knows several.
    """

    name: str
    sha256: str
    language: str

    def recognise(self, sound: NDArray[np.float32], language: str) -> Recognised | Miss:
        """The text of speech of up to 30 s.

        Args:
            sound: (samples,) at 16 kHz in [-1, 1].
            language: ISO 639-1 code; "" is unknown.
        """
        ...


class Aligner(Protocol):
    """A frozen model that finds given words in speech.

    Attributes:
        name: its name on the command line and in `dataset.json`.
        sha256: hash of the model's files.
        language: the one that it knows; "" if it is whatever its letters can spell.
    """

    name: str
    sha256: str
    language: str

    def align(self, sound: NDArray[np.float32], words: Sequence[str]) -> list[Span] | Miss:
        """When each word is said, ascending and without overlap.

        Args:
            sound: (samples,) at 16 kHz in [-1, 1].
            words: as they are written, with case and punctuation; at least one, each with a letter
                or digit.
        """
        ...


PluginT = TypeVar("PluginT")
LoaderT = TypeVar("LoaderT", bound=Callable[..., object])


@dataclass(frozen=True)
class _Entry(Generic[PluginT]):
    load: Callable[[Path | None], PluginT]
    folder: str


class Registry(Generic[PluginT]):
    """Models of one task by name.

    Args:
        task: `--<task>` and `--<task>-weights` are its options.
    """

    def __init__(self, task: str) -> None:
        self.task = task
        self._entries: dict[str, _Entry[PluginT]] = {}

    def register(self, name: str, folder: str) -> Callable[[LoaderT], LoaderT]:
        """Decorator: make a class or function, weights -> model, known under a name.

        Args:
            name: of the model.
            folder: name of the folder in which its weights are looked for; "" if a package brings
                some along: weights may be None, then.
        """

        def enter(load: LoaderT) -> LoaderT:
            if name in self._entries:
                raise ValueError(f"two models for --{self.task} are called {name!r}")
            self._entries[name] = _Entry(load, folder)  # type: ignore[arg-type]
            return load

        return enter

    def names(self) -> list[str]:
        """All names; imports every module of the package so that a new file is enough."""
        package = data_pipeline.transcribe
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
        return sorted(self._entries)

    def find(self, name: str, weights: Path | None, source: Path) -> Path | None:
        """Where a model's weights are; None if a package brings them along.

        Args:
            name: of the model.
            weights: where the user says they are.
            source: the corpus, near which they are looked for.

        Raises:
            UserError: there is no model of this name, or its weights are not found.
        """
        folder = self._entry(name).folder
        if weights is None and folder:
            return find_weights(name, folder, f"--{self.task}-weights", source)
        return weights

    def load(self, name: str, weights: Path | None) -> PluginT:
        """The model.

        Raises:
            UserError: there is none of this name (lists those there are), or it does not load.
        """
        entry = self._entry(name)
        if weights is not None and not weights.exists():
            raise UserError(
                f"no weights of {name} at {weights}; name them with --{self.task}-weights"
            )
        return entry.load(weights)

    def _entry(self, name: str) -> _Entry[PluginT]:
        known = self.names()
        if name not in known:
            raise UserError(f"--{self.task}: no model {name!r}; known are {', '.join(known)}")
        return self._entries[name]


RECOGNISERS: Registry[Recogniser] = Registry("recognise")
ALIGNERS: Registry[Aligner] = Registry("align")


def files_sha256(files: Iterable[Path]) -> str:
    """Hash of the names and contents of the files that a model is made of."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()
