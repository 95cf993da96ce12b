"""One's own videos: a folder of them, with their transcripts where there are any.

Layout: video and sound files in whatever folders, found by their suffixes, `VIDEOS` and `SOUNDS`;
files of others are counted.
A sound file of the same name beside a video is taken for the video's sound and quarantined. Without
a transcript it is cut by the subtitles inside it, else, what is longer than 20 s, by its speech
(`features/activity.py`).

Transcripts are `.srt`, `.vtt`, `.json`, `.tsv`, `.ass` and `.ssa` files in the forms of
`data_pipeline/transcripts.py`, and make a clip of each cue; a cue that begins before its file, or
is shorter than `SHORTEST_S` or longer than `LONGEST_S`, is quarantined. `talk.srt`, `talk.mp4.srt`
and `talk.en.srt`, which is in English (`transcript_names.py` has all such names), are of `talk.mp4`
in the same folder; subtitles also in another, if no media lie where they do and one folder has the
name. Of several one without a language is taken, else the plainest of one language; `--language`
chooses others. Of several forms the first of these is taken. Forced subtitles, and those of no
video, are left out and told (`assign.py`). A `.json` or `.tsv` file that is not called as a video
beside it is none.

Subtitles inside a file (`features/subtitles.py`) are taken where no transcript of it is, and become
the clips that they would as a file beside it. They are chosen as files are, by what the streams say
of themselves; of several languages without `--language`, that of the sound (`build_subtitles.py`).
The build opens the media for it, so that it is part of the cutting, and told when that is done.

`--transcripts` names another folder or archive of them; then those beside the videos, and inside,
are not read.
Or it names one table of all, a `.tsv` or `.csv`
file or a `.json` list of objects: `media` (or `file`: path or name, with or without suffix) and the
columns of the corpus `table`; a line without `begin_s` and `end_s` is about the whole file, which
is quarantined if it is longer than a cue may be.
`words` is as in transcripts, with times in the file. Media that it does not name are cut by their
speech. Transcripts and tables that are neither UTF-8 nor UTF-16 are in what `--encoding` says.

Labels: of a table for all every other column, as in the corpus `table`; else none.

Speakers, sessions and splits: who speaks, where a transcript says so; else the name of the topmost
of the file's folders that is not that of all files: of `kim/s1/1.mp4` and `lee/s1/1.mp4` kim and
lee. `--speaker-folder` names another level. A speaker who has only a number, as `SPEAKER_00`, is
another one in every file. The session is the file. Everything is train, if a table does not say
otherwise.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from data_pipeline.corpora.assign import Assigned, assign
from data_pipeline.corpora.base import (
    DOUBLE,
    SOUNDS,
    Corpus,
    Recording,
    numbered,
    register,
)
from data_pipeline.corpora.cues import checked, utterances
from data_pipeline.corpora.finder import Finder, composed
from data_pipeline.corpora.source import Source, check_files, open_source, parse_table
from data_pipeline.corpora.table import KNOWN, check_columns, row_recording
from data_pipeline.corpora.transcript_names import Transcript, wanted_languages
from data_pipeline.encoding import UTF_8, checked_text, decode_text, known_encoding
from data_pipeline.errors import UserError, some
from data_pipeline.transcripts import (
    PARSERS,
    load_json,
    parse_transcript,
)

VIDEOS = (
    *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".flv", ".wmv"),
    *(".ogv", ".3gp", ".ts"),
    *(".mts", ".m2ts", ".m2t", ".vob", ".dv", ".mxf", ".asf", ".f4v", ".3g2", ".qt", ".divx"),
    *(".rm", ".rmvb"),
)
TABLES = (".tsv", ".csv", ".json")

KEY_BYTES = 200
"""Of a key without its number, so that its members can be unpacked as files."""

NO_SPEECH = "its transcript has no speech in it"
SUFFIX = re.compile(r"\.\w{1,10}")
"""One that says what a file is; others are but the end of a name with a dot in it."""

Said = Mapping[str, Sequence[Recording]]
"""Media -> what is said in it."""


@register
class Videos(Corpus):
    """Videos and sound files, cut into utterances by their transcripts or by their speech."""

    name = "videos"
    licence = "not stated; see who has them"
    options = ("transcripts", "encoding", "licence", "language", "speaker_folder")

    def __init__(self, given: Mapping[str, Path | str] = MappingProxyType({})) -> None:
        super().__init__(given)
        self._passed_over: Mapping[str, Sequence[str]] = {}

    def recordings(self, source: Source) -> Sequence[Recording]:
        """The utterances of each file, by name and time; those to be cut by speech as one."""
        encoding = known_encoding(str(self.given.get("encoding", UTF_8)))
        folder = self.given.get("speaker_folder")
        inside = None if "transcripts" in self.given else self._languages()
        media = _media(source, None if folder is None else int(str(folder)), inside)
        said = self._said(source, Finder(media), encoding)
        return [part for one in media for part in said.get(one.media or "", [one])]

    def left_out(self, source: Source, recordings: Sequence[Recording]) -> Mapping[str, int]:
        """Files that are not taken, by suffix, "" has none; transcripts by why they are not."""
        images = {one.image for one in recordings}
        suffixes = [
            PurePosixPath(name).suffix.lower() for name in source.names() if name not in images
        ]
        count = Counter(one if SUFFIX.fullmatch(one) else "" for one in suffixes)
        taken = {*VIDEOS, *SOUNDS, *PARSERS, *TABLES}
        others = {suffix: files for suffix, files in sorted(count.items()) if suffix not in taken}
        return others | {why: len(names) for why, names in self._passed_over.items()}

    def remarks(self, recordings: Sequence[Recording]) -> Sequence[str]:
        """Which transcripts are not taken, and who is taken for the speakers."""
        speakers = sorted({one.speaker for one in recordings} - {""})
        found = {**self._passed_over, "speakers": speakers}
        return [f"{what}: {len(names):,} ({some(names)})" for what, names in found.items() if names]

    def _said(self, source: Source, finder: Finder, encoding: str) -> Said:
        """What the transcripts say."""
        given = self.given.get("transcripts")
        if given is not None and _is_table(Path(given)):
            if "language" in self.given:
                raise UserError(
                    f"--language: {given} is one table; leave lines of others out of it"
                )
            return _of_table(source, Path(given), finder, encoding)
        texts = source if given is None else open_source(Path(given), "--transcripts")
        assigned = assign(texts, finder, self._languages(), everything=given is not None)
        self._passed_over = assigned.passed_over
        return _of_transcripts(texts, assigned, finder, encoding)

    def _languages(self) -> tuple[str, ...]:
        """Those that are wanted, the best first."""
        return wanted_languages(str(self.given.get("language", "")))


def _is_table(given: Path) -> bool:
    """Whether `--transcripts` is one table of all; else it must be a folder or an archive.

    Raises:
        UserError: it is not there, or is the transcript of one recording.
    """
    if not given.exists():
        raise UserError(f"--transcripts: there is no {given}; give a folder, an archive or a table")
    table = given.is_file() and given.suffix.lower() in TABLES
    if given.is_file() and not table and given.suffix.lower() in PARSERS:
        raise UserError(f"--transcripts: {given} is of one recording; give its folder")
    return table


def _media(
    source: Source, speaker_folder: int | None, inside: tuple[str, ...] | None
) -> list[Recording]:
    """Each video and sound file as one recording, by name.

    Args:
        source: of the files.
        speaker_folder: see `_speakers`.
        inside: see `Recording.subtitles`.
    """
    kinds = {name: PurePosixPath(name).suffix.lower() for name in source.names()}
    names = [name for name, suffix in kinds.items() if suffix in VIDEOS + SOUNDS]
    if not names:
        raise UserError(f"videos: the source has no file in {' '.join(VIDEOS + SOUNDS)}")
    filmed = {_stem(name) for name in names if kinds[name] in VIDEOS}
    doubles = {name for name in names if kinds[name] in SOUNDS and _stem(name) in filmed}
    keys = _keys({name: composed(name) if name in doubles else _stem(name) for name in names})
    speakers = _speakers(names, speaker_folder)
    return [
        Recording(
            key=keys[name],
            split="train",
            media=name,
            speaker=_safe(speaker),
            session=keys[name],
            cut=name not in doubles,
            subtitles=None if name in doubles else inside,
            flaw=DOUBLE if name in doubles else "",
        )
        for name, speaker in zip(names, speakers, strict=True)
    ]


def _speakers(names: Sequence[str], folder: int | None) -> list[str]:
    """The name of each file's speaker, "" if there is no folder that says it.

    Args:
        names: of the files, with their folders.
        folder: which one of them is called as the speaker, 1 is the topmost, 0 is none; None is
            the topmost that is not that of all files.

    Raises:
        UserError: no file lies in so many.
    """
    folders = [PurePosixPath(composed(name)).parent.parts for name in names]
    shared = takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))
    at = len([*shared]) if folder is None else folder - 1
    if folder is not None and at >= max(map(len, folders)):
        raise UserError(f"--speaker-folder {folder}: no file of the source lies in so many folders")
    return [parts[at] if 0 <= at < len(parts) else "" for parts in folders]


def _keys(called: Mapping[str, str]) -> dict[str, str]:
    """A key for each file: what it is called, with a hash where several would have one key."""
    safe = {name: _safe(call) for name, call in called.items()}
    count = Counter(safe.values())
    return {name: key if count[key] == 1 else f"{key}-{_hash(name)}" for name, key in safe.items()}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf8", "surrogateescape")).hexdigest()[:8]


def _safe(name: str) -> str:
    """The name as a key may be."""
    shown = "".join(
        letter if letter.isprintable() and letter not in "./\\" else "-" for letter in name
    )
    return shown.encode()[:KEY_BYTES].decode("utf8", "ignore")


def _stem(name: str) -> str:
    return str(PurePosixPath(composed(name)).with_suffix(""))


def _of_transcripts(source: Source, assigned: Assigned, finder: Finder, encoding: str) -> Said:
    """What is said in the media that have a transcript each.

    Args:
        source: of the transcripts.
        assigned: which of them is of which media.
        finder: of the media.
        encoding: of transcripts that are not UTF-8.
    """
    found = ((finder.media[key], one) for key, one in assigned.transcripts.items())
    return {
        media.media or "": _utterances(source, media, transcript, encoding)
        for media, transcript in found
    }


def _utterances(
    source: Source, media: Recording, transcript: Transcript, encoding: str
) -> list[Recording]:
    """A recording for each cue; where there are none, the media with this flaw."""
    cues = parse_transcript(transcript.name, source.read(transcript.name), encoding)
    if not cues:
        whole = replace(media, key=numbered(media.key, 1), flaw=NO_SPEECH)
        return [replace(whole, cut=False, subtitles=None)]
    return utterances(media, cues, transcript.code)


def _of_table(source: Source, path: Path, finder: Finder, encoding: str) -> Said:
    """What one table says of all media.

    Args:
        source: of the media.
        path: of the table.
        finder: of the media.
        encoding: of the table, if it is not UTF-8.
    """
    lines: dict[str, list[tuple[Recording, str, dict[str, str]]]] = {}
    for where, row in _rows(path, encoding):
        check_columns(row, path.name)
        media = _named(where, row.get("media") or row.get("file") or "", finder)
        lines.setdefault(media.media or "", []).append((media, where, row))
    if not lines:
        raise UserError(f"{path.name}: it has no line; give one for each thing that is said")
    said = {name: _told(of_one) for name, of_one in lines.items()}
    images = [one.image for parts in said.values() for one in parts if one.image]
    check_files(source, images, "videos")
    return said


def _rows(path: Path, encoding: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each line of a table stands, and column -> value."""
    text = decode_text(path.name, path.read_bytes(), encoding)
    if path.suffix.lower() != ".json":
        rows = parse_table(text, path.name, "videos", ())
        yield from ((f"{path.name}: line {at}", row) for at, row in enumerate(rows, start=2))
        return
    items = load_json(path.name, text)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{path.name}: it should be a list of objects with media and text")
    for number, item in enumerate(items, start=1):
        where = f"{path.name}: object {number}"
        yield where, {name: _cell(where, value) for name, value in item.items()}


def _cell(where: str, value: object) -> str:
    """A value of JSON as a table has it."""
    if value is None:
        return ""
    return checked_text(where, value if isinstance(value, str) else json.dumps(value))


def _named(where: str, name: str, finder: Finder) -> Recording:
    """The media that a line names.

    Raises:
        UserError: none, or two.
    """
    found = finder.find(name, f"{where}: media {name!r}", "any") if name else []
    if not found:
        raise UserError(f"{where}: media {name!r}; it should name a video or sound of the source")
    if len(found) > 1:
        raise UserError(f"{where}: media {name!r} names {len(found)} files; give the suffix, too")
    return found[0]


def _told(lines: Sequence[tuple[Recording, str, Mapping[str, str]]]) -> list[Recording]:
    """The utterances that a table has of one file, by time."""
    found = []
    for media, where, row in lines:
        labels = [name for name in row if name not in (*KNOWN, "file")]
        line = row_recording({**row, "media": media.media or ""}, "", where, labels)
        named = replace(
            line, speaker=line.speaker or media.speaker, session=line.session or media.session
        )
        found.append(checked(named))
    found.sort(key=lambda one: one.span or (0.0, math.inf))
    key = lines[0][0].key
    return [replace(one, key=one.key or numbered(key, at)) for at, one in enumerate(found, start=1)]
