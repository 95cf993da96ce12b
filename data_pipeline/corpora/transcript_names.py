"""What the name of a transcript says: of which media it is, in which language, and of what kind.

Behind the name of the media may stand, in any order, a language (`talk.en.srt`, `talk.pt-BR.srt`,
`talk.en-orig.srt`, `talk.eng.srt`, `talk.English.srt`) and marks (`talk.en.sdh.srt`): `sdh`, `hi`
and `cc` (for those who do not hear), `default`, and `forced` and `foreign` (of what is said in
another language alone). `hi` without a language is Hindi. Behind a dot every code of two or three
letters is a language; behind a blank, `_` or `-`, and in brackets, it must be a known one.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from data_pipeline.transcripts import PARSERS

_FORCED = ("forced", "foreign")
_MARKS = (*_FORCED, "sdh", "hi", "cc", "default")
_CODE = re.compile(r"[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*")
"""A language with the script and country, or yt-dlp's `orig`."""

_LANGUAGES = """
ar ara arabic
bg bul bulgarian
bn ben bengali
ca cat catalan català
cs cze ces czech čeština
da dan danish dansk
de ger deu german deutsch
el gre ell greek
en eng english
es spa spanish español castellano
et est estonian
fa per fas persian farsi
fi fin finnish suomi
fr fre fra french français
he heb hebrew
hi hin hindi
hr hrv scr croatian hrvatski
hu hun hungarian magyar
id ind indonesian
is ice isl icelandic
it ita italian italiano
ja jpn japanese 日本語
ko kor korean 한국어
lt lit lithuanian
lv lav latvian
ms may msa malay
nl dut nld dutch nederlands
no nor nb nob nn nno norwegian norsk
pl pol polish polski
pt por portuguese português
ro rum ron romanian română
ru rus russian русский
sk slo slk slovak slovenčina
sl slv slovenian slovenščina
sr srp scc serbian srpski
sv swe swedish svenska
ta tam tamil
te tel telugu
th tha thai
tl tgl fil tagalog filipino
tr tur turkish türkçe
uk ukr ukrainian українська
ur urd urdu
vi vie vietnamese
zh chi zho cmn yue chinese mandarin cantonese 中文
"""
_KNOWN = {name: line.split()[0] for line in _LANGUAGES.split("\n") for name in line.split()}
"""What a language is called, in lower case -> its code of two letters (ISO 639-1).

One of a group of languages that a file may name as a whole (Norwegian, Chinese) is the group.
"""


class Transcript(NamedTuple):
    """A transcript, and what its name says.

    Attributes:
        name: of the file.
        media: the path of its media, perhaps without suffix.
        language: as written, in lower case; "" if none is.
        marks: in lower case.
    """

    name: str
    media: str
    language: str = ""
    marks: frozenset[str] = frozenset()

    @property
    def forced(self) -> bool:
        """Whether it has only what is said in another language, and signs."""
        return not self.marks.isdisjoint(_FORCED)

    @property
    def code(self) -> str:
        """Two letters of the language, "" where they are not known."""
        code = language_code(self.language)
        return code if len(code) == 2 else ""


def language_code(language: str) -> str:
    """A language without script and country, by its code if it is a known one."""
    first = re.split("[-_]", language.strip().lower())[0]
    return _KNOWN.get(first, first)


def wanted_languages(given: str) -> tuple[str, ...]:
    """Languages as `--language` names them, the best first."""
    languages = given.lower().replace("_", "-").split(",")
    return tuple(one.strip() for one in languages if one.strip())


def readings(name: str) -> Iterator[Transcript]:
    """All that the name of a transcript can mean, the longest name of the media first."""
    path = PurePosixPath(name).with_suffix("")
    said: list[str] = []
    called = path.name
    yield Transcript(name, str(path))
    while (cut := _cut(called)) is not None:
        called, last = cut
        said.append(last)
        languages = [one for one in said if one not in _MARKS] or [
            one for one in said if one == "hi"
        ]
        if len(languages) > 1:
            return
        marks = frozenset(said).difference(languages)
        yield Transcript(name, str(path.with_name(called)), "".join(languages), marks)


def _cut(called: str) -> tuple[str, str] | None:
    """A name without the language or mark at its end, and this in lower case."""
    for between in "._ -":
        rest, _, last = called.rpartition(between)
        said = last.strip("[]()").lower()
        known = said in _MARKS or language_code(said) in _KNOWN
        if rest.strip("._ -") and (known or (between == "." and _CODE.fullmatch(said))):
            return rest.rstrip("._ -"), said
    return None


def choose(transcripts: Sequence[Transcript], wanted: Sequence[str]) -> list[Transcript]:
    """Of the transcripts of one recording those that may be taken, the best form first.

    They differ in more than their form if the choice is open; see `preferred`.
    """
    forms = list(PARSERS)
    return sorted(
        preferred(transcripts, wanted),
        key=lambda one: forms.index(PurePosixPath(one.name).suffix.lower()),
    )


def preferred(transcripts: Sequence[Transcript], wanted: Sequence[str]) -> list[Transcript]:
    """Of the transcripts of one recording those that may be taken, in their order.

    There are none if all are in another language than is wanted.

    Args:
        transcripts: of one recording, none of them forced.
        wanted: languages, the best first; `en` is every English, `en-us` that one alone. Nothing:
            what says no language is taken first.
    """
    unnamed = [one for one in transcripts if not one.language]
    groups = [[one for one in transcripts if _is_in(one, language)] for language in wanted]
    groups = [*groups, unnamed] if wanted else [unnamed, [*transcripts]]
    left = next((group for group in groups if group), [])
    plainest: dict[str, int] = {}
    for one in left:
        language = language_code(one.language)
        plainest[language] = min(plainest.get(language, sys.maxsize), _specials(one))
    return [one for one in left if _specials(one) == plainest[language_code(one.language)]]


def _is_in(transcript: Transcript, language: str) -> bool:
    written = transcript.language.replace("_", "-")
    return written == language or (
        bool(written) and "-" not in language and language_code(written) == language_code(language)
    )


def _specials(transcript: Transcript) -> int:
    """How much a name says beyond the language: of `en`, `en-orig` and `en.sdh` the first is it."""
    return len(transcript.marks) + len(re.findall("[-_]", transcript.language))
