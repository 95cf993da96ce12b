"""The contract of a corpus, and the registry: one file of this package a corpus."""

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import data_pipeline.corpora
from data_pipeline.clip import Label, Word
from data_pipeline.corpora.source import Source
from data_pipeline.errors import UserError

SOUNDS = (
    *(".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus"),
    *(".aac", ".wma", ".aiff", ".aif", ".amr", ".oga", ".mka", ".weba", ".caf", ".au", ".ac3"),
    *(".mp2", ".m4b"),
)
"""Suffixes of files in which there is nothing to see."""

DOUBLE = "a video of this name lies beside it; rename it if it is another recording"
"""The flaw of a file that is said to be nothing but part of another; nothing is broken."""

LONGEST_S = 60.0
"""Of an utterance in one's own files: what is longer is a recording that has not been cut."""

UNITS = 35
"""Action units of OpenFace: 17 intensities and 18 presences."""


@dataclass(frozen=True)
class Recording:
    """One utterance of a raw corpus, before anything is decoded.

    Attributes:
        key: name of the clip to be made; unique in the corpus, without a dot or a slash.
        split: the dataset split it belongs to.
        media: name of the video or sound file in the source; None for a text-only corpus.
        text, language, words, speaker, session, labels, tags: as in `Clip`.
        span: begin and end of the utterance in the media, in seconds; None: all of it. The times of
            `words` count from its begin.
        region: where the speaker's picture is, (left, top, right, bottom) as shares of the
            picture's width and height; None: anywhere.
        aligned_face: the media is the picture of one face, cut out and upright already.
        action_units: their means over the clip (UNITS,), if the corpus knows them;
            `--face action-units` takes them.
        image: name of a JPEG file in the source that belongs to the clip as it is.
        cut: the media may be long: the build makes one recording of each of its utterances, found
            by speech activity, and numbers the key; of what is short, one.
        subtitles: languages, the best first, of subtitles inside the media, which what is to be cut
            is cut by where there are some; (): any; None: they are not looked for.
        flaw: why it cannot be used, if the corpus knows; the build says it and leaves it out.
        longest_s: if what is decoded is longer, it is no utterance, and cannot be used: encoders
            take it in one piece. Published corpora are as their makers have cut them.
        stamp: of its files (`Source.stamp`); the build sets it, and makes a clip anew whose file
            has been replaced. Nothing that a corpus says.
        at: its number in the corpus's list, from 1, set by a part of a build whose recordings stand
            between those of others, else 0. Nothing that a corpus says.
    """

    key: str
    split: str
    media: str | None
    text: str | None = None
    language: str = ""
    words: tuple[Word, ...] = ()
    speaker: str = ""
    session: str = ""
    labels: dict[str, Label] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    span: tuple[float, float] | None = None
    region: tuple[float, float, float, float] | None = None
    aligned_face: bool = False
    action_units: tuple[float, ...] | None = None
    image: str | None = None
    cut: bool = False
    subtitles: tuple[str, ...] | None = None
    flaw: str = ""
    longest_s: float = field(default=math.inf, repr=False)
    stamp: str = field(default="", repr=False)
    at: int = field(default=0, repr=False, compare=False)


def numbered(key: str, number: int) -> str:
    """The key of an utterance of a longer recording."""
    return f"{key}-{number:04}"


class Corpus(ABC):
    """A raw corpus in its own directory layout.

    Args:
        given: the options that the user has given, by name.
    """

    name: ClassVar[str]
    """Name on the command line and in `dataset.json`."""

    licence: ClassVar[str]
    """Under which terms the raw corpus may be used."""

    options: ClassVar[tuple[str, ...]] = ()
    """The options of `memo data build`, beyond those of every corpus, that it takes."""

    def __init__(self, given: Mapping[str, Path | str] = MappingProxyType({})) -> None:
        self.given = given

    @property
    def terms(self) -> str:
        """The licence; the user's word for it, if the corpus takes one.

        Raises:
            UserError: it says nothing.
        """
        given = str(self.given.get("licence", self.licence)).strip()
        if not given:
            raise UserError("--licence: say under which terms the files may be used, e.g. CC0-1.0")
        return given

    @abstractmethod
    def recordings(self, source: Source) -> Sequence[Recording]:
        """All utterances of the corpus, in a fixed order.

        Raises:
            UserError: the source does not have the corpus's layout; says which file is missing.
        """

    def left_out(self, source: Source, recordings: Sequence[Recording]) -> Mapping[str, int]:
        """Suffix, or why -> files that the corpus does not take, where it looks at all files.

        Args:
            source: its raw files.
            recordings: of them.
        """
        return {}

    def remarks(self, recordings: Sequence[Recording]) -> Sequence[str]:
        """What whoever builds should know before hours are spent on it, a line each.

        Args:
            recordings: of its source.
        """
        return ()


_REGISTRY: dict[str, type[Corpus]] = {}


def register(corpus: type[Corpus]) -> type[Corpus]:
    """Class decorator: make a corpus known under its name."""
    if corpus.name in _REGISTRY:
        message = f"two corpora are called {corpus.name!r}"
        raise ValueError(message)
    _REGISTRY[corpus.name] = corpus
    return corpus


def corpora() -> dict[str, type[Corpus]]:
    """All corpora by name; imports every module of the package so that a new file is enough."""
    for module in pkgutil.iter_modules(data_pipeline.corpora.__path__, "data_pipeline.corpora."):
        importlib.import_module(module.name)
    return dict(sorted(_REGISTRY.items()))


def load_corpus(name: str, options: Mapping[str, Path | str] = MappingProxyType({})) -> Corpus:
    """The corpus of this name.

    Args:
        name: of the corpus.
        options: its own options, by name.

    Raises:
        UserError: there is none, or it does not take an option; lists those that there are, or do.
    """
    known = corpora()
    if name not in known:
        raise UserError(f"there is no corpus {name!r}; known are: {', '.join(known)}")
    for option in options:
        takers = [other for other, corpus in known.items() if option in corpus.options]
        if name not in takers:
            shown = option.replace("_", "-")
            raise UserError(f"--{shown}: not for corpus {name}, but for {', '.join(takers)}")
    return known[name](options)
