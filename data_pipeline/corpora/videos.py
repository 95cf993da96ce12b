"""One's own videos: a folder of them, with their transcripts where there are any.

Layout: video and sound files in whatever folders, found by their suffixes, `VIDEOS` and `SOUNDS`;
files of others are counted.
A sound file of the same name beside a video is taken for the video's sound and quarantined. Without
a transcript, what is longer than 20 s is cut by its speech (`features/activity.py`).

Transcripts are `.srt`, `.vtt`, `.json` and `.tsv` files in the forms of `data_pipeline/
transcripts.py`, and make a clip of each cue; a cue that begins before its file, or is shorter than
`SHORTEST_S` or longer than `LONGEST_S`, is quarantined. `talk.srt`, `talk.mp4.srt` and
`talk.en.srt`, which is in English, are of `talk.mp4` in the same folder; subtitles also in another,
if no media lie where they do and one folder has the name. Of several forms the first of the four is
taken. A `.json` or `.tsv` file that is not called as a video beside it is none.

`--transcripts` names another folder or archive of them; then those beside the videos are not read,
and each of its transcripts must have its video. Or it names one table of all, a `.tsv` or `.csv`
file or a `.json` list of objects: `media` (or `file`: path or name, with or without suffix) and the
columns of the corpus `table`; a line without `begin_s` and `end_s` is about the whole file, which
is quarantined if it is longer than a cue may be.
`words` is as in transcripts, with times in the file. Media that it does not name are cut by their
speech. Transcripts and tables that are neither UTF-8 nor UTF-16 are in what `--encoding` says.

Labels: of a table for all every other column, as in the corpus `table`; else none.

Speakers, sessions and splits: who speaks, where a transcript says so; else the name of the file's
folder, unless all files lie in one. A speaker who has only a number, as `SPEAKER_00`, is another
one in every file. The session is the file. Everything is train, if a table does not say otherwise.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from data_pipeline.corpora.base import (
    DOUBLE,
    LONGEST_S,
    SOUNDS,
    Corpus,
    Recording,
    numbered,
    register,
)
from data_pipeline.corpora.source import Source, check_files, open_source, parse_table
from data_pipeline.corpora.table import KNOWN, check_columns, row_recording, words_inside
from data_pipeline.encoding import UTF_8, checked_text, decode_text, known_encoding
from data_pipeline.errors import UserError
from data_pipeline.transcripts import (
    PARSERS,
    SHORTEST_S,
    Cue,
    is_short,
    load_json,
    parse_transcript,
)

VIDEOS = (
    *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".flv", ".wmv"),
    *(".ogv", ".3gp", ".ts"),
    *(".mts", ".m2ts", ".m2t", ".vob", ".dv", ".mxf", ".asf", ".f4v", ".3g2", ".qt", ".divx"),
    *(".rm", ".rmvb"),
)
SUBTITLES = (".srt", ".vtt")
"""What can be nothing but a transcript."""
TABLES = (".tsv", ".csv", ".json")

KEY_BYTES = 200
"""Of a key without its number, so that its members can be unpacked as files."""

NO_SPEECH = "its transcript has no speech in it"
LANGUAGE = re.compile(r"(.+)\.([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{2,8})*")
"""A name and the code of a language, without the script and country."""
SUFFIX = re.compile(r"\.\w{1,10}")
"""One that says what a file is; others are but the end of a name with a dot in it."""
NUMBERED_SPEAKER = re.compile(r"(?:speaker|spk)?[ _-]*\d+", re.IGNORECASE)

Reach = Literal["path", "no media", "any"]
"""Where the media of a path may be: only there; elsewhere, if no media are in the path's folder;
or elsewhere if the path has no folder, too."""

Said = Mapping[str, Sequence[Recording]]
"""Media -> what is said in it."""


@register
class Videos(Corpus):
    """Videos and sound files, cut into utterances by their transcripts or by their speech."""

    name = "videos"
    licence = "not stated; see who has them"
    options = ("transcripts", "encoding", "licence")

    def recordings(self, source: Source) -> Sequence[Recording]:
        """The utterances of each file, by name and time; those to be cut by speech as one."""
        encoding = known_encoding(str(self.given.get("encoding", UTF_8)))
        media = _media(source)
        said = self._said(source, _Finder(media), encoding)
        return [part for one in media for part in said.get(one.media or "", [one])]

    def left_out(self, source: Source, recordings: Sequence[Recording]) -> Mapping[str, int]:
        """Files that are neither media nor transcripts nor a table's images; "" has no suffix."""
        images = {one.image for one in recordings}
        suffixes = [
            PurePosixPath(name).suffix.lower() for name in source.names() if name not in images
        ]
        count = Counter(one if SUFFIX.fullmatch(one) else "" for one in suffixes)
        taken = {*VIDEOS, *SOUNDS, *PARSERS, *TABLES}
        return {suffix: files for suffix, files in sorted(count.items()) if suffix not in taken}

    def _said(self, source: Source, finder: "_Finder", encoding: str) -> Said:
        """What the transcripts say."""
        if "transcripts" not in self.given:
            return _of_transcripts(source, finder, encoding, everything=False)
        given = Path(self.given["transcripts"])
        if not given.exists():
            raise UserError(
                f"--transcripts: there is no {given}; give a folder, an archive or a table"
            )
        if given.is_file() and given.suffix.lower() in TABLES:
            return _of_table(source, given, finder, encoding)
        if given.is_file() and given.suffix.lower() in PARSERS:
            raise UserError(f"--transcripts: {given} is of one recording; give its folder")
        transcripts = open_source(given, "--transcripts")
        return _of_transcripts(transcripts, finder, encoding, everything=True)


def _media(source: Source) -> list[Recording]:
    """Each video and sound file as one recording, by name."""
    kinds = {name: PurePosixPath(name).suffix.lower() for name in source.names()}
    names = [name for name, suffix in kinds.items() if suffix in VIDEOS + SOUNDS]
    if not names:
        raise UserError(f"videos: the source has no file in {' '.join(VIDEOS + SOUNDS)}")
    filmed = {_stem(name) for name in names if kinds[name] in VIDEOS}
    doubles = {name for name in names if kinds[name] in SOUNDS and _stem(name) in filmed}
    keys = _keys({name: _composed(name) if name in doubles else _stem(name) for name in names})
    folders = {PurePosixPath(name).parent for name in names}
    return [
        Recording(
            key=keys[name],
            split="train",
            media=name,
            speaker=_safe(_composed(PurePosixPath(name).parent.name)) if len(folders) > 1 else "",
            session=keys[name],
            cut=name not in doubles,
            flaw=DOUBLE if name in doubles else "",
        )
        for name in names
    ]


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
    return str(PurePosixPath(_composed(name)).with_suffix(""))


def _composed(name: str) -> str:
    """The name with each letter as one, as macOS does not spell it."""
    return unicodedata.normalize("NFC", name)


class _Finder:
    """Finds the media that a transcript or a table speaks of."""

    def __init__(self, media: Sequence[Recording]) -> None:
        self._by_path: dict[str, list[Recording]] = {}
        self._by_name: dict[str, list[Recording]] = {}
        self._folders = set()
        for one in media:
            path = PurePosixPath(_composed(one.media or ""))
            self._folders.add(path.parent)
            for called in {path} if one.flaw else {path, path.with_suffix("")}:
                self._by_path.setdefault(str(called), []).append(one)
                self._by_name.setdefault(called.name, []).append(one)

    def find(self, name: str, where: str, reach: Reach) -> list[Recording]:
        """The media of a path, or of this name in another folder; with or without suffix.

        Args:
            name: the path or name.
            where: it is written, for messages.
            reach: how far from the path they may be.

        Raises:
            UserError: several folders have it.
        """
        path = PurePosixPath(_composed(name))
        found = self._by_path.get(str(path), [])
        alone = path.parent not in self._folders or (reach == "any" and not path.parent.name)
        if not found and reach != "path" and alone:
            found = self._by_name.get(path.name, [])
        folders = {PurePosixPath(one.media or "").parent: one.media for one in found}
        if len(folders) > 1:
            first, second, *_ = folders.values()
            raise UserError(f"{where} could be of {first} or {second}; give its folder, too")
        return found


class _Transcript(NamedTuple):
    name: str
    language: str


def _of_transcripts(source: Source, finder: _Finder, encoding: str, *, everything: bool) -> Said:
    """What is said in the media that have a transcript each.

    Args:
        source: of the transcripts.
        finder: of the media.
        encoding: of transcripts that are not UTF-8.
        everything: every file that looks like a transcript must have its media.
    """
    found: dict[str, list[_Transcript]] = {}
    media: dict[str, Recording] = {}
    names = [one for one in source.names() if PurePosixPath(one).suffix.lower() in PARSERS]
    if everything and not names:
        raise UserError(f"--transcripts: {source.name} has no file in {' '.join(PARSERS)}")
    for name in names:
        sure = everything or PurePosixPath(name).suffix.lower() in SUBTITLES
        reach: Reach = "any" if everything else "no media" if sure else "path"
        transcript, of = _matched(name, finder, reach)
        for one in of:
            media[one.key] = one
            found.setdefault(one.key, []).append(transcript)
        if sure and not of:
            raise UserError(
                f"videos: {name} is a transcript of nothing; it should be called as its video is"
            )
    return {
        one.media or "": _utterances(source, one, _chosen(one, found[key]), encoding)
        for key, one in media.items()
    }


def _matched(name: str, finder: _Finder, reach: Reach) -> tuple[_Transcript, list[Recording]]:
    """A transcript and its media."""
    path = str(PurePosixPath(name).with_suffix(""))
    found = finder.find(path, f"videos: {name}", reach)
    match = LANGUAGE.fullmatch(path)
    if found or match is None:
        return _Transcript(name, ""), found
    return _Transcript(name, match[2].lower()), finder.find(match[1], f"videos: {name}", reach)


def _chosen(media: Recording, transcripts: Sequence[_Transcript]) -> _Transcript:
    """The transcript of one recording.

    Raises:
        UserError: there are several that differ in more than their form.
    """
    of_no_language = [one for one in transcripts if not one.language]
    left = of_no_language or transcripts
    by_stem = {PurePosixPath(one.name).with_suffix(""): one.name for one in left}
    if len(by_stem) > 1:
        first, second, *_ = by_stem.values()
        raise UserError(
            f"videos: {first} and {second} would both be the transcript of {media.media}; keep the "
            "one of what is spoken"
        )
    forms = list(PARSERS)
    return min(left, key=lambda one: forms.index(PurePosixPath(one.name).suffix.lower()))


def _utterances(
    source: Source, media: Recording, transcript: _Transcript, encoding: str
) -> list[Recording]:
    """A recording for each cue; where there are none, the media with this flaw."""
    cues = parse_transcript(transcript.name, source.read(transcript.name), encoding)
    language = transcript.language if len(transcript.language) == 2 else ""
    if not cues:
        return [replace(media, key=numbered(media.key, 1), cut=False, flaw=NO_SPEECH)]
    return [
        _checked(
            replace(
                media,
                key=numbered(media.key, number),
                text=cue.text,
                language=language,
                words=words_inside(cue.words, (cue.begin_s, cue.end_s)),
                speaker=_speaker(cue, media),
                span=(cue.begin_s, cue.end_s),
            )
        )
        for number, cue in enumerate(cues, start=1)
    ]


def _speaker(cue: Cue, media: Recording) -> str:
    if NUMBERED_SPEAKER.fullmatch(cue.speaker):
        return f"{media.session}-{cue.speaker}"
    return cue.speaker or media.speaker


def _checked(utterance: Recording) -> Recording:
    """The utterance, that is not to be cut further; with a flaw, if it has one."""
    flaw = "" if utterance.span is None else _flaw(*utterance.span)
    return replace(utterance, cut=False, flaw=flaw)


def _flaw(begin_s: float, end_s: float) -> str:
    """Why nobody can have said something from here to there; "" if somebody can."""
    if end_s <= begin_s:
        return f"it has no length: from {begin_s:.3f} to {end_s:.3f} s"
    if begin_s < 0:
        return f"it begins before its file: at {begin_s:.3f} s"
    if is_short(begin_s, end_s):
        return f"it is {end_s - begin_s:.3f} s long; an utterance has {SHORTEST_S} at least"
    if end_s - begin_s > LONGEST_S:
        return f"it is {end_s - begin_s:.0f} s long; an utterance has {LONGEST_S:.0f} at most"
    return ""


def _of_table(source: Source, path: Path, finder: _Finder, encoding: str) -> Said:
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


def _named(where: str, name: str, finder: _Finder) -> Recording:
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
        found.append(_checked(named))
    found.sort(key=lambda one: one.span or (0.0, math.inf))
    key = lines[0][0].key
    return [replace(one, key=one.key or numbered(key, at)) for at, one in enumerate(found, start=1)]
