"""What is spoken of the text of a cue: without what stands there for those who do not hear.

Left out are: sounds in brackets, [music] or (laughs), at most three in one another; those in
asterisks, *laughs*, that are a line of their own or of a known word; lines of a song, which have a
♪, begin with a # and a blank, end with a blank and a #, or stand between two # or *; marks of who
speaks next, a dash or >> at the begin of a line; who speaks, `JOHN:` (see `_without_name`); and
credits, a cue that begins as `Subtitles by ...` or names a site of subtitles, as
opensubtitles.org. What could be speech as well stays.
"""

import re

_SONG = re.compile(r".*[♩♪♫♬🎵🎶].*|\s*(?:#\s.*|#.*#|.*\s#|\*[^*]*\*)\s*")
_WHOLE_SONG = re.compile(r"\s*#\s.*#\s*", re.DOTALL)
_BRACKETS = re.compile(r"\[[^][]*\]|\([^()]*\)|［[^［］]*］|（[^（）]*）|【[^【】]*】")
_STARS = re.compile(
    r"(?<![\w*])\*[^*\n]*\b(?:laugh(?:s|ing|ter)?|chuckl(?:es?|ing)|giggl(?:es?|ing)|snickers?"
    r"|sigh(?:s|ing)?|gasp(?:s|ing)?|cough(?:s|ing)?|sneez(?:es?|ing)|sniff(?:s|les?|ing|ling)?"
    r"|sobs|sobbing|cries|crying|groan(?:s|ing)?|moan(?:s|ing)?|grunt(?:s|ing)?|scoff(?:s|ing)?"
    r"|scream(?:s|ing)?|yawn(?:s|ing)?|snor(?:es?|ing)|whistl(?:es|ing)|hums|humming|sings|singing"
    r"|inhales?|exhales?|breath(?:es|ing)|clears|applau(?:se|ds)|clap(?:s|ping)|cheer(?:s|ing)"
    r"|music|silence|pause|inaudible|unintelligible|beep(?:s|ing)?|knock(?:s|ing)?)\b"
    r"[^*\n]*\*(?![\w*])",
    re.IGNORECASE,
)
_NEXT = re.compile(r"^\s*(?:[-–—‐:]\s*(?!\d)|>>+)\s*")
"""Who speaks next in a dialogue; a colon is left of `[Ann]: ...`."""
_NAME = re.compile(r"\s*([^\W\d_][\w .,'’&#/-]{1,29}?)\s*:(?:\s+|$)")
_CREDIT = re.compile(
    r"\W*(?:"
    r"(?:(?:closed )?caption(?:s|ed|ing)|subtitl(?:es?|ed|ing)|subs)"
    r" (?:(?:made|created|provided|edited|corrected|translated) )?by (?!(?:default|hand)\b)"
    r"|(?:captions|subtitles|subs) downloaded from "
    r"|(?:re-?)?sync(?:ed|hronized|s)?(?: (?:&|and) correct(?:ed|ions?))? by "
    r"|untertitel(?:ung)? (?:im auftrag )?(?:des zdf|des wdr|des ndr|des swr|der ard)\b"
    r"|sous-titr(?:age st|age mfp|es (?:réalisés |faits )?par )"
    r"|subtítulos (?:realizados |creados )?por "
    r"|sottotitoli (?:creati dalla|e revisione|a cura di) "
    r"|субтитры (?:сделал|делал|создавал|подогнал))"
    r"|.*\b(?:opensubtitles\.(?:org|com)|osdb\.link|amara\.org|addic7ed\.com|subscene\.com"
    r"|podnapisi\.net|tvsubtitles\.net|yts\.(?:mx|am|lt|ag))\b",
    re.IGNORECASE,
)


def speech_of(text: str) -> str:
    """What is spoken of a cue's text, in one line; "" if nothing is."""
    if _CREDIT.match(" ".join(text.split())) or _WHOLE_SONG.fullmatch(text):
        return ""
    spoken = "\n".join(line for line in text.split("\n") if not _SONG.fullmatch(line))
    for _ in range(3):  # one may stand in another
        spoken = _BRACKETS.sub(" ", spoken)
    spoken = _STARS.sub(" ", spoken)
    spoken = "\n".join(_without_name(_NEXT.sub("", line)) for line in spoken.split("\n"))
    return " ".join(spoken.split()) if any(map(str.isalnum, spoken)) else ""


def _without_name(line: str) -> str:
    """A line without the name of who speaks at its begin, as `DR. LEE: Hello`.

    That is of three capitals at least, 30 letters at most, and before a colon and a blank or
    nothing. It stays if all that follows is in capitals, too: those may be the way the line is
    written.
    """
    match = _NAME.match(line)
    if match is None or not match[1].isupper() or sum(map(str.isalpha, match[1])) < 3:
        return line
    rest = line[match.end() :]
    return line if rest.isupper() else rest
