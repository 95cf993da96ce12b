"""The utterances of files, as `memo data build videos` makes them.

A file's transcript beside it is found by its name, else it is cut by the subtitles inside it, else,
if it is long, by its speech: by the build's own modules, so that a model sees texts and parts of
the kind that it was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Self

from data_pipeline.build_subtitles import CutBy, choose_all
from data_pipeline.corpora.assign import FORCED, OTHERS, SUBTITLES, check_one, match_names
from data_pipeline.corpora.base import LONGEST_S, SOUNDS, Recording
from data_pipeline.corpora.cues import utterances
from data_pipeline.corpora.finder import Finder
from data_pipeline.corpora.transcript_names import Transcript, choose, language_code, readings
from data_pipeline.corpora.videos import NO_SPEECH, VIDEOS
from data_pipeline.cutting import cut_parts, find_cuts
from data_pipeline.encoding import UTF_8
from data_pipeline.errors import UserError, in_one_line, say_without_path, some
from data_pipeline.features.extract import show_name
from data_pipeline.features.subtitles import Subtitles, find_subtitles
from data_pipeline.features.video import Media, MediaError
from data_pipeline.transcripts import PARSERS, parse_transcript

BESIDE = "lay others beside it"


@dataclass(frozen=True)
class Said:
    """What the command line knows of what is said in the files.

    Attributes:
        text: of the one file given, which is one utterance then.
        subtitles: of the one file given.
        encoding: of subtitles that are neither in UTF-8 nor in UTF-16.
        languages: of what is spoken, the best first; (): not known.
    """

    text: str | None = None
    subtitles: Path | None = None
    encoding: str = UTF_8
    languages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A file, and how its utterances are found.

    Attributes:
        video: the file.
        recordings: the utterances; none if it is to be cut.
        by: how it is to be cut.
        note: which texts are not taken, "" if all are.
    """

    video: Path
    recordings: Sequence[Recording]
    by: CutBy | None = None
    note: str = ""


def plan(videos: Sequence[Path], said: Said) -> list[Planned]:
    """How the utterances of some files are found; their heads alone are read for it.

    Args:
        videos: the files.
        said: what is known of what is said in them.

    Raises:
        UserError: the transcript of a file is not there, or several could be meant.
    """
    if said.text is not None or said.subtitles is not None:
        return [Planned(video, _given(video, said)) for video in videos]
    beside = {
        video: _Beside.of(video, texts, said) for video, texts in _beside(videos).items() if texts
    }
    chosen = {str(video): choose(one.spoken, said.languages) for video, one in beside.items()}
    check_one(chosen, {video: show_name(video) for video in chosen})
    taken = {
        Path(video): _of_transcript(Path(video), texts[0], said)
        for video, texts in chosen.items()
        if texts
    }
    cut = _to_be_cut([video for video in videos if video not in taken], said)
    return [
        Planned(video, taken[video])
        if video in taken
        else replace(cut[video], note=beside[video].note(video) if video in beside else "")
        for video in videos
    ]


class _Beside(NamedTuple):
    """What lies beside a file and is called as a transcript is.

    Attributes:
        spoken: transcripts.
        forced: subtitles of signs and foreign speech alone.
        others: no transcripts, which anything called `.json` or `.tsv` may be.
    """

    spoken: Sequence[Transcript]
    forced: Sequence[Transcript]
    others: Sequence[Transcript]

    @classmethod
    def of(cls, video: Path, texts: Sequence[Transcript], said: Said) -> Self:
        """By their names; of what may be anything, by its content."""
        possible = [one for one in texts if not one.forced]
        spoken = [
            one
            for one in possible
            if _suffix(one.name) in SUBTITLES or _of_transcript(video, one, said)
        ]
        others = [one for one in possible if one not in spoken]
        return cls(spoken, [one for one in texts if one.forced], others)

    def note(self, video: Path) -> str:
        """What is said of it where nothing of it is taken."""
        kinds = {"no transcripts": self.others, OTHERS: self.spoken, FORCED: self.forced}
        found = " and ".join(
            f"{kind} ({show_name(some([one.name for one in texts]))})"
            for kind, texts in kinds.items()
            if texts
        )
        return f"{show_name(str(video))}: beside it are {found}; {BESIDE}"


def _given(video: Path, said: Said) -> list[Recording]:
    """The utterances of a file whose text or subtitles are given.

    Raises:
        UserError: the subtitles cannot be read, or nothing is said in them.
    """
    whole = replace(_whole(video, said), cut=False)
    if said.subtitles is None:
        return [replace(whole, text=said.text, longest_s=LONGEST_S)]
    path = said.subtitles
    if path.suffix.lower() not in PARSERS:
        raise UserError(f"{path}: no subtitles; give a file in {', '.join(PARSERS)}")
    called = [one for one in readings(path.name) if one.media in (video.name, video.stem)]
    code = whole.language or next((one.code for one in called), "")
    try:
        return _utterances(whole, path, code, said.encoding)
    except OSError as error:
        raise UserError(f"{path}: no subtitles can be read ({error.strerror})") from None


def _of_transcript(video: Path, transcript: Transcript, said: Said) -> list[Recording]:
    """The utterances of a transcript beside a file.

    One that cannot be used is the file's flaw, if it can be nothing but a transcript; else it is
    none, and there are no utterances: anything may lie beside a file as `.json`.
    """
    whole, path = replace(_whole(video, said), cut=False), video.parent / transcript.name
    try:
        return _utterances(whole, path, transcript.code or whole.language, said.encoding)
    except OSError as error:
        flaw = f"{show_name(transcript.name)} cannot be read ({say_without_path(error)})"
    except UserError as error:
        flaw = str(error)
    return [replace(whole, flaw=flaw)] if path.suffix.lower() in SUBTITLES else []


def _utterances(whole: Recording, path: Path, language: str, encoding: str) -> list[Recording]:
    """The utterances of a transcript.

    Raises:
        UserError: it is none, or nothing is said in it.
    """
    name = show_name(str(path))
    cues = parse_transcript(name, path.read_bytes(), encoding)
    if not cues:
        raise UserError(f"{name}: {NO_SPEECH}")
    return utterances(whole, cues, language)


def _whole(video: Path, said: Said) -> Recording:
    """A file as one recording, that is to be cut."""
    name = show_name(str(video))
    language = language_code(said.languages[0]) if said.languages else ""
    return Recording(key=name, split="", media=name, language=language, cut=True)


def _beside(videos: Sequence[Path]) -> dict[Path, list[Transcript]]:
    """The transcripts in the folders of some files, by the file."""
    found = dict[Path, list[Transcript]]()
    for folder in {one.parent for one in videos}:
        files = sorted(one.name for one in folder.iterdir() if one.is_file())
        own = {one.name for one in videos if one.parent == folder}
        media = [one for one in files if one in own or _suffix(one) in VIDEOS + SOUNDS]
        finder = Finder([Recording(key=one, split="", media=one) for one in media])
        texts = [one for one in files if _suffix(one) in PARSERS]
        matched, _ = match_names(texts, finder, everything=False)
        found |= {folder / one: matched.get(one, []) for one in own}
    return found


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _to_be_cut(videos: Sequence[Path], said: Said) -> dict[Path, Planned]:
    """How files without a transcript are cut.

    Raises:
        UserError: one has subtitles in several languages inside, and which cannot be told.
    """
    whole = {video: replace(_whole(video, said), subtitles=said.languages) for video in videos}
    heads = {video: _head(video) for video in videos}
    readable = {
        whole[video].key: head for video, head in heads.items() if isinstance(head, Subtitles)
    }
    ways = choose_all([one for one in whole.values() if one.key in readable], readable)
    by = {way.recording.key: way for way in ways}
    return {
        video: Planned(video, (), by[one.key])
        if one.key in by
        else Planned(video, [replace(one, cut=False, flaw=str(heads[video]))])
        for video, one in whole.items()
    }


def _head(video: Path) -> Subtitles | str:
    """The subtitles inside a file; or why it cannot be looked into."""
    try:
        with video.open("rb") as media:
            return find_subtitles(media)
    except OSError as error:
        return f"it cannot be read ({say_without_path(error)})"
    except (MediaError, MemoryError) as error:
        return in_one_line(error)


def find_parts(planned: Planned, media: Media) -> tuple[Sequence[Recording], str]:
    """The utterances of a file, by their begin; and which texts inside were not taken.

    Those with a flaw cannot be used.

    Args:
        planned: of it.
        media: its content.
    """
    if planned.by is None:
        return planned.recordings, ""
    whole = planned.by.recording
    try:
        cuts = find_cuts(media, planned.by)
    except (MediaError, MemoryError) as error:
        return [replace(whole, cut=False, flaw=in_one_line(error))], ""
    note = "" if cuts.cues or not cuts.outcome else f"subtitles inside are {cuts.outcome}; {BESIDE}"
    cuts = cuts._replace(language=cuts.language or whole.language)
    return cut_parts(whole, cuts, ""), note and f"{whole.media}: {note}"
