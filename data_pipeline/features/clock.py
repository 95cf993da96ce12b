"""One clock for all streams of a file, also where it was joined of files whose clocks begin anew.

Transport and program streams (.ts, .m2ts, .vob, .mpg) can be put one behind the other as bytes are.
Where the clock of one stream goes back, what follows is put behind what there was of all streams,
and the others follow in the same step: else faces would be seconds away from what is heard. A few
packets that jump to and fro are damage; they take the times that were due.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

SMALLEST_RESET_S = 1.0
"""A clock that goes back so far was set anew, as where files were joined."""
SMALLEST_LEAP_S = 60.0
"""A clock that goes forward so far may be damaged, or there is nothing for so long."""
LASTING_S = 1.0
"""A jump that lasts so long is one; of damage, a few packets jump, and those after them do not."""
LONGEST_STEP_S = 1.0
"""Of a packet whose length is not known, and that comes long after the last one."""


def timed_packets(container: Any, stream: Any) -> Iterator[Any]:  # noqa: ANN401
    """The packets of a stream, with times that go on where the file's own clock is set anew.

    Args:
        container: PyAV's, at its begin.
        stream: of it.
    """
    clock = _Clock()
    for packet in _packets(container):
        for timed in clock.add(packet):
            if timed.stream.index == stream.index:
                yield timed


def _packets(container: Any) -> Iterator[Any]:  # noqa: ANN401
    """Of all pictures and sound, as the file has them.

    Where streams have shown up later than at its begin, as damage makes them, PyAV fails after the
    very last packet.
    """
    with suppress(IndexError):
        yield from container.demux(container.streams.video + container.streams.audio)


@dataclass
class _Line:
    """What is known of the times of a stream, in seconds.

    Attributes:
        offset_s: from the file's clock to the one clock.
        last_s: of its last packet, on the file's clock; None before the first.
        length_s: of that packet.
        end_s: when all that there was has ended, on the one clock.
        joined: which packet of the file was the first after its latest join.
        held: packets after a jump, by number, of which it is not known whether it lasts.
    """

    offset_s: float = 0.0
    last_s: float | None = None
    length_s: float = 0.0
    end_s: float = 0.0
    joined: int = 0
    held: list[tuple[int, Any]] = field(default_factory=list)

    def jumps_to(self, time_s: float) -> bool:
        """Whether a packet of this time does not go on where the last one ended."""
        late_s = self.late_s(time_s)
        return late_s <= -SMALLEST_RESET_S or late_s >= SMALLEST_LEAP_S

    def late_s(self, time_s: float) -> float:
        """How much later than the end of the last packet a time is."""
        return 0.0 if self.last_s is None else time_s - self.last_s - self.length_s


class _Clock:
    """Gives each packet its time; they are handed in as the file has them, of all streams."""

    def __init__(self) -> None:
        self._lines: defaultdict[int, _Line] = defaultdict(_Line)
        self._count = 0

    def add(self, packet: Any) -> Iterator[Any]:  # noqa: ANN401
        """The packets whose times are known now: this one, or none, or with those held back."""
        self._count += 1
        line, time_s = self._lines[packet.stream.index], _time_s(packet)
        if not packet.size:  # the last one, which has the decoder hand out what it has left
            yield from self._believe(line)
            yield packet
        elif line.held:
            yield from self._add_held(line, packet, time_s)
        elif time_s is not None and line.jumps_to(time_s):
            line.held.append((self._count, packet))
        else:
            yield _stamp(line, packet)

    def _add_held(self, line: _Line, packet: Any, time_s: float | None) -> Iterator[Any]:  # noqa: ANN401
        """A packet after a jump: the clock has gone back to where it was, or the jump lasts."""
        times = [time for _, one in line.held if (time := _time_s(one)) is not None]
        if time_s is None:
            line.held.append((self._count, packet))
        elif not line.jumps_to(time_s) and abs(line.late_s(time_s)) < abs(time_s - times[-1]):
            yield from _put_right(line, times[0])
            yield _stamp(line, packet)
        else:
            line.held.append((self._count, packet))
            if abs(time_s - times[0]) >= LASTING_S:
                yield from self._believe(line)

    def _believe(self, line: _Line) -> Iterator[Any]:
        """The packets held back, with the times that they have."""
        held, line.held = line.held, []
        for number, packet in held:
            time_s = _time_s(packet)
            if time_s is not None and line.late_s(time_s) <= -SMALLEST_RESET_S:
                self._join(line, packet, number)
            yield _stamp(line, packet)

    def _join(self, line: _Line, packet: Any, number: int) -> None:  # noqa: ANN401
        """A stream's clock has begun anew with this packet; another's may have done so before."""
        begin_s = _shown_s(packet)
        newest = max(self._lines.values(), key=lambda one: one.joined)
        followed_s = begin_s + newest.offset_s
        if newest.joined > line.joined and followed_s > line.end_s - SMALLEST_RESET_S:
            line.offset_s = newest.offset_s
        else:
            line.offset_s = max(one.end_s for one in self._lines.values()) - begin_s
        line.joined, line.last_s = number, None


def _time_s(packet: Any) -> float | None:  # noqa: ANN401
    """When it is to be decoded, on the file's clock: pictures are not shown in their file's order.

    None if that is not known.
    """
    ticks = packet.dts
    if ticks is None and packet.stream.type == "audio":
        ticks = packet.pts
    return None if ticks is None else float(ticks * packet.time_base)


def _shown_s(packet: Any) -> float:  # noqa: ANN401
    """When what is in it is shown or heard, on the file's clock."""
    ticks = packet.dts if packet.pts is None else packet.pts
    return float(ticks * packet.time_base)


def _put_right(line: _Line, first_s: float) -> Iterator[Any]:
    """The packets held back, the first of which says this time, with the times that were due."""
    held, line.held = line.held, []
    shift_s = -line.late_s(first_s)
    for _, packet in held:
        _shift(packet, shift_s)
        yield _stamp(line, packet)


def _stamp(line: _Line, packet: Any) -> Any:  # noqa: ANN401
    """The packet with its time on the one clock, and noted as its stream's last one."""
    time_s = _time_s(packet)
    if time_s is not None:
        step_s = 0.0 if line.last_s is None else time_s - line.last_s
        known_s = float((packet.duration or 0) * packet.time_base)
        line.length_s = known_s or min(max(step_s, 0.0), LONGEST_STEP_S)
        line.last_s = time_s
        end_s = _shown_s(packet) + line.length_s + line.offset_s
        line.end_s = max(line.end_s, end_s)
    if line.offset_s:
        _shift(packet, line.offset_s)
    return packet


def _shift(packet: Any, seconds: float) -> None:  # noqa: ANN401
    """Make a packet later."""
    ticks = round(seconds / packet.time_base)
    packet.dts = None if packet.dts is None else packet.dts + ticks
    packet.pts = None if packet.pts is None else packet.pts + ticks
