"""Small media files with subtitles inside."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.stream import Disposition

HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name
Style: Default

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
Line = tuple[int, int, bytes]
"""Begin and length in milliseconds, and what is in the packet."""


@dataclass(frozen=True)
class Track:
    """Subtitles to be put into a file."""

    lines: Sequence[Line]
    codec: str = "subrip"
    language: str = ""
    title: str = ""
    disposition: int = 0


def with_subtitles(
    media: bytes, tracks: Sequence[Track], form: str = "matroska", *, sound: str = ""
) -> bytes:
    """The pictures and sound of a file, whose language is `sound`, with subtitles, in this form."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(media)) as old, av.open(buffer, "w", format=form) as new:
        copies = {one.index: new.add_stream_from_template(one) for one in old.streams}
        for one in old.streams.audio:
            copies[one.index].metadata["language"] = sound or "und"
        streams = [_add(new, track) for track in tracks]
        packets = [packet for packet in old.demux() if packet.size]
        new.start_encoding()
        for packet in packets:
            packet.stream = copies[packet.stream.index]
        for track, stream in zip(tracks, streams, strict=True):
            for begin_ms, length_ms, content in track.lines:
                packet = av.Packet(content)
                packet.stream, packet.time_base = stream, Fraction(1, 1000)
                packet.pts = packet.dts = begin_ms
                packet.duration = length_ms
                packets.append(packet)
        packets.sort(key=lambda one: one.dts * one.time_base)
        for packet in packets:
            new.mux(packet)
    return buffer.getvalue()


def _add(container: av.container.OutputContainer, track: Track) -> av.stream.Stream:
    stream = container.add_stream(track.codec)
    stream.codec_context.subtitle_header = HEADER
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.metadata["language"] = track.language or "und"
    stream.metadata["title"] = track.title
    stream.disposition = Disposition(track.disposition)
    return stream


def mov_text(text: str) -> bytes:
    """What MP4 has of a subtitle."""
    content = text.encode()
    return len(content).to_bytes(2) + content
