"""Which transcript is of which media, and which are of none."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from data_pipeline.corpora.finder import Finder, Reach
from data_pipeline.corpora.source import Source
from data_pipeline.corpora.transcript_names import Transcript, choose, readings
from data_pipeline.errors import UserError, some
from data_pipeline.transcripts import PARSERS

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa")
"""What can be nothing but a transcript."""

STRAY = "transcripts of no video"
FORCED = "forced subtitles"
OTHERS = "transcripts in other languages alone"


class Assigned(NamedTuple):
    """The transcripts of some media.

    Attributes:
        transcripts: by the key of their media.
        passed_over: why they are not taken -> names of files.
    """

    transcripts: Mapping[str, Transcript]
    passed_over: Mapping[str, Sequence[str]]


def assign(
    source: Source, finder: Finder, languages: Sequence[str], *, everything: bool
) -> Assigned:
    """Find the media of each transcript, and choose one for each.

    Args:
        source: of the transcripts.
        finder: of the media.
        languages: that are wanted, see `choose`.
        everything: every file that looks like a transcript must have its media.

    Raises:
        UserError: there are transcripts, but none has its media or is in the languages; or a
            recording has several.
    """
    names = [one for one in source.names() if PurePosixPath(one).suffix.lower() in PARSERS]
    if everything and not names:
        raise UserError(f"--transcripts: {source.name} has no file in {' '.join(PARSERS)}")
    matched, strays = match_names(names, finder, everything=everything)
    if strays and not matched:
        raise UserError(
            f"videos: no transcript is of a video of the source, {some(strays)}; each should be "
            "called as its video is"
        )
    usable = {key: [one for one in of if not one.forced] for key, of in matched.items()}
    chosen = {key: choose(of, languages) for key, of in usable.items()}
    check_one(chosen, {key: finder.media[key].media or "" for key in chosen})
    _check_languages(languages, usable, chosen)
    passed = {
        STRAY: strays,
        FORCED: sorted({one.name for of in matched.values() for one in of if one.forced}),
        OTHERS: sorted({one.name for key, of in usable.items() for one in of if not chosen[key]}),
    }
    return Assigned(
        {key: of[0] for key, of in chosen.items() if of},
        {why: files for why, files in passed.items() if files},
    )


def match_names(
    names: Sequence[str], finder: Finder, *, everything: bool
) -> tuple[dict[str, list[Transcript]], list[str]]:
    """Key of the media -> its transcripts; and the files that must be one, and are of no media.

    Args:
        names: of the transcripts.
        finder: of the media.
        everything: see `assign`.

    Raises:
        UserError: the name is that of media in several folders.
    """
    matched: dict[str, list[Transcript]] = {}
    strays = []
    for name in names:
        sure = everything or PurePosixPath(name).suffix.lower() in SUBTITLES
        reach: Reach = "any" if everything else "no media" if sure else "path"
        found = ((one, finder.find(one.media, f"videos: {name}", reach)) for one in readings(name))
        transcript, of = next(((one, of) for one, of in found if of), (None, []))
        if transcript is None and sure:
            strays.append(name)
        for media in of:
            assert transcript is not None, "it has media"
            matched.setdefault(media.key, []).append(transcript)
    return matched, strays


def check_one(chosen: Mapping[str, Sequence[Transcript]], media: Mapping[str, str]) -> None:
    """Every recording must have one transcript, perhaps in several forms.

    Args:
        chosen: by the key of their media.
        media: key -> name.

    Raises:
        UserError: one has several, and which one is meant cannot be told.
    """
    stems = {
        key: {PurePosixPath(one.name).with_suffix(""): one for one in of}
        for key, of in chosen.items()
    }
    several = {key: [*of.values()] for key, of in stems.items() if len(of) > 1}
    if not several:
        return
    key, (first, second, *_) = next(iter(several.items()))
    more = f" ({len(several) - 1:,} more have several)" if len(several) > 1 else ""
    by_language = first.language != second.language
    way = f"say which with --language {first.language}" if by_language else "keep one"
    raise UserError(
        f"videos: {first.name} and {second.name} would both be the transcript of "
        f"{media[key]}{more}; {way}, that of what is spoken"
    )


def _check_languages(
    languages: Sequence[str],
    transcripts: Mapping[str, Sequence[Transcript]],
    chosen: Mapping[str, Sequence[Transcript]],
) -> None:
    """A language that is asked for must be there.

    Raises:
        UserError: no transcript is in one, nor in none; says in which they are.
    """
    written = sorted({one.language for of in transcripts.values() for one in of})
    if languages and written and not any(chosen.values()):
        raise UserError(
            f"--language {','.join(languages)}: no transcript is in it, but in {some(written)}"
        )
