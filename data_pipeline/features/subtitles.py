"""The subtitles inside a media file: which there are, and the cues of one.

Read are SubRip, WebVTT and SubStation as Matroska has them, and MP4's own (`mov_text`). What stands
in a packet is what stands in a file of that form between two lines of times, so that a cue is the
same in both. Its times are the packet's, counted from the file's time zero. Subtitles that are
pictures (PGS, VobSub, DVB) cannot be read.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from av.stream import Disposition

from data_pipeline.corpora.transcript_names import Transcript
from data_pipeline.encoding import decode_text
from data_pipeline.errors import UserError
from data_pipeline.features.clock import SMALLEST_RESET_S
from data_pipeline.features.streams import sound_streams, zero_s
from data_pipeline.features.video import Media, MediaError, opened
from data_pipeline.substation import Event, packet_event, spoken_once
from data_pipeline.transcripts import Block, Cue, block_cues, with_speech

FORMS = ("subrip", "text", "webvtt", "ass", "mov_text")
"""FFmpeg's names of the codecs that are read."""
MOST_DAMAGED = 0.1
"""Of the packets. Where more are, it is not a line that is damaged: all are in another encoding."""

_NOT_SPOKEN = (
    Disposition.forced | Disposition.comment | Disposition.lyrics | Disposition.karaoke
) | Disposition.descriptions
_NOT_HEARING = Disposition.hearing_impaired | Disposition.captions
_CALLED_NOT_SPOKEN = re.compile(
    r"\b(?:forced|foreign|signs?|songs?|lyrics|karaoke|commentary)\b", re.IGNORECASE
)
_CALLED_NOT_HEARING = re.compile(r"\b(?:sdh|cc|hearing)\b", re.IGNORECASE)
_NO_LANGUAGE = ("und", "mis", "mul", "zxx")
"""Codes of ISO 639-2 that say none; so do those for private use, `qaa` to `qtz`."""
_PRIVATE = re.compile(r"q[a-t][a-z]")

Read = TypeVar("Read")


class Subtitles(NamedTuple):
    """The subtitles inside a file.

    Attributes:
        texts: those that can be read, the file's default ones first, else in its order. The name of
            each is the number of its stream.
        pictures: whether there are some that are pictures.
        others: whether there are some in another form.
        sound: language of the sound that is heard, "" if unknown.
    """

    texts: tuple[Transcript, ...] = ()
    pictures: bool = False
    others: bool = False
    sound: str = ""


def find_subtitles(media: Media) -> Subtitles:
    """What a file's head says of its subtitles.

    Raises:
        MediaError: it cannot be read.
    """
    with opened(media, "file") as container:
        streams, sounds = container.streams.subtitles, sound_streams(container)
        texts = [one for one in streams if _form(one) in FORMS]
        texts.sort(key=lambda one: not one.disposition & Disposition.default)
        others = [one.codec_context for one in streams if _form(one) not in FORMS]
        pictures = [one is not None and one.codec.bitmap_sub for one in others]
        sound = _language(sounds[0]) if sounds else ""
        return Subtitles((*map(_described, texts),), any(pictures), not all(pictures), sound)


def read_cues(media: Media, stream: int) -> tuple[list[Cue], int]:
    """The cues with speech of one of a file's subtitles, by time, and how many are damaged.

    The whole file is read, and nothing decoded.

    Args:
        media: the file.
        stream: number of the subtitles' stream.

    Raises:
        MediaError: it cannot be read, or too many packets cannot.
    """
    cues: list[Cue]
    with opened(media, "subtitles") as container:
        subtitles = container.streams[stream]
        form = _form(subtitles)
        if form == "ass":
            events, damaged = _read(container, subtitles, _event)
            cues, count = [Cue(*one) for one in spoken_once(events)], len(events)
        else:
            blocks, damaged = _read(container, subtitles, _block)
            cues, count = block_cues(blocks, form == "webvtt"), len(blocks)
    if damaged > MOST_DAMAGED * (count + damaged):
        raise MediaError(f"{damaged:,} of its {count + damaged:,} subtitles cannot be read")
    return with_speech(cues), damaged


def _form(stream: Any) -> str:  # noqa: ANN401
    """The name of its codec; "" of one that FFmpeg does not know."""
    context = stream.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def _described(stream: Any) -> Transcript:  # noqa: ANN401
    """What a file says of a stream, as the name of a transcript would say it."""
    title = " ".join(stream.metadata.get(key, "") for key in ("title", "name"))
    forced = stream.disposition & _NOT_SPOKEN or _CALLED_NOT_SPOKEN.search(title)
    sdh = stream.disposition & _NOT_HEARING or _CALLED_NOT_HEARING.search(title)
    marks = {mark for mark, said in (("forced", forced), ("sdh", sdh)) if said}
    return Transcript(str(stream.index), "", _language(stream), frozenset(marks))


def _language(stream: Any) -> str:  # noqa: ANN401
    said = str(stream.metadata.get("language", "")).strip().lower().replace("_", "-")
    return "" if said in _NO_LANGUAGE or _PRIVATE.fullmatch(said) else said


def _read(
    container: Any,  # noqa: ANN401
    stream: Any,  # noqa: ANN401
    read: Callable[[float, float, str], Read],
) -> tuple[list[Read], int]:
    """What is read of each packet by its begin, end and text; and how many cannot be read.

    Raises:
        MediaError: the times begin anew, as where files were joined; those of what is heard go on.
    """
    zero, before, found, damaged = zero_s(container), -math.inf, list[Read](), 0
    for packet in _packets(container, stream):
        if packet.pts is None:
            damaged += 1
            continue
        begin_s = round(float(packet.pts * packet.time_base) - zero, 6)
        end_s = round(begin_s + float((packet.duration or 0) * packet.time_base), 6)
        if begin_s <= before - SMALLEST_RESET_S:
            raise MediaError("the times of its subtitles begin anew")
        before = begin_s
        try:
            text = decode_text("", _text(_form(stream), bytes(packet)))
            found += [read(begin_s, end_s, text)] if text else []
        except UserError:
            damaged += 1
    return found, damaged


def _packets(container: Any, stream: Any) -> Iterator[Any]:  # noqa: ANN401
    """Of this stream, without the empty one at its end; as to errors see `clock.py`."""
    with suppress(IndexError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _text(form: str, content: bytes) -> bytes:
    """The text in a packet; in MP4 its length stands before it, and how it looks behind it.

    Raises:
        UserError: it is cut off.
    """
    if form != "mov_text":
        return content.rstrip(b"\0")
    length = int.from_bytes(content[:2])
    if len(content) < 2 + length:
        raise UserError("a subtitle is cut off")
    return content[2 : 2 + length]


def _event(begin_s: float, end_s: float, text: str) -> Event:
    return packet_event("", begin_s, end_s, text)


def _block(begin_s: float, end_s: float, text: str) -> Block:
    return Block(begin_s, end_s, text.split("\n"))
