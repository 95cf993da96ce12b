"""Lost and hanging ranks: noticed within a bounded time, and named.

Every rank has a thread that writes into the rendezvous' store, every second, that it lives and what
it does. So it can be told who is missing when a collective operation fails or never ends. Another
thread never waits for anyone: it keeps the time, in which the store must have answered as well.
"""

import faulthandler
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from threading import Event, Thread
from time import monotonic, sleep
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from data_pipeline.errors import AgreedError, UserError
from memo.training.distributed import Ranks, this_start
from memo.training.memory import is_shortage
from memo.training.signals import leave_in_peace

BEAT_S = 1.0
LOST_S = 60.0
"""A rank that has not beaten for so long is lost."""

SILENT_BEATS = 10
"""When an operation of all has failed, a rank that has not beaten for so many beats is gone; one
that computes may be late by some."""

STOPPED_S = 5.0
"""What is longer between two looks at the clock has been a time in which this process was stopped,
e.g. by a scheduler, and does not count."""

LINGER_S = 5.0
"""The others hang as well; the store must not end with the first rank before they have said so."""

FAREWELL_S = 20.0
"""Launchers kill 30 s after they have asked a rank to end."""

ENDED = "has ended"
SMALLER = "a smaller batch.token_budget needs less memory"
FAILURE = "failure"
"""Key in the store under which a rank says why it cannot go on."""

REFUSAL = "refusal"
"""Key in the store under which a rank says what the user has to mend."""

STATUS = 1
"""Exit status of a rank that gives up."""

REFUSED = 2
"""Exit status of all ranks if one of them has met a user's mistake."""


class Beat(NamedTuple):
    """What a rank has written last.

    Attributes:
        number: grows with every beat.
        host: where it runs.
        doing: what it says that it does.
    """

    number: int
    host: str
    doing: str


class Heartbeat:
    """Watches over the ranks of a run, from one of them; a context manager.

    If this rank does not get on for `hang_s`, the stacks of its threads are written to stderr and
    the process ends; all ranks do this when one hangs, for they wait for each other. If the next
    rank is lost, this one tells the others and ends; so does each if any says that it has failed,
    or if the first one, which keeps the store and is the last to end, does not answer.

    Args:
        rank: this one.
        ranks: how many there are.
        hang_s: how long a rank may be at one thing.
        store: of the beats; None opens the one of the rendezvous.
    """

    def __init__(self, rank: int, ranks: int, hang_s: float, store: Store | None = None) -> None:
        self._rank = rank
        self._ranks = ranks
        self._hang_s = hang_s
        self._store = store or _open_store()
        self._now = 0.0  # seconds that this process has run
        self._answered = 0.0
        self._doing = ("beginning", 0.0)
        self._count = 0
        self._mistake: str | None = None  # of the user's, for which all ranks end
        self._stop, self._over = Event(), Event()
        self._watcher = Thread(target=self._watch, name="heartbeat", daemon=True)
        self._clock = Thread(target=self._keep_time, name="clock", daemon=True)

    def __enter__(self) -> Self:
        self._clock.start()
        self._beat()
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._rank == 0:
            self._wait_for_the_others()
        if isinstance(error, AgreedError) and self._ranks > 1:
            self._mistake = str(error)
            leave_in_peace()  # a launcher ends all when the first leaves
        self._stop.set()
        self._watcher.join()
        self.does(ENDED)
        with suppress(DistError, OSError):
            if error is not None and not isinstance(error, AgreedError | SystemExit):
                who = f"rank {self._rank} on {socket.gethostname()}"
                self._tell(f"{who} has failed: {_first_line(error)}")
            self._beat()
            if self._mistake is not None:
                self._let_all_end()
        self._over.set()
        self._clock.join()

    def _wait_for_the_others(self) -> None:
        """The store ends with the first rank: one still at work would take it for lost.

        The rank that watches over a lost one may have ended, so this one looks at all of them.
        """
        self.does("waiting for the other ranks to end")
        heard: dict[int, tuple[Beat | None, float]]
        heard = dict.fromkeys(range(1, self._ranks), (None, self._now))
        with suppress(DistError, OSError):
            while heard and not self._store.check([FAILURE]):
                for rank, (last, seen) in list(heard.items()):
                    beat = self._read(rank)
                    if beat is not None and beat.doing == ENDED:
                        del heard[rank]
                    elif beat != last:
                        heard[rank] = beat, self._now
                    elif self._now - seen > LOST_S:
                        self._tell(_obituary(rank, beat))
                sleep(BEAT_S / 20)
            self._give_up_if_failed()

    def _let_all_end(self) -> None:
        """After a mistake that all know of, none leaves before the others have come to their end.

        One that has not is not waited for until a launcher kills this rank with its line unsaid.
        """
        until, missing = self._now + FAREWELL_S, set(range(self._ranks))
        while missing and self._now < until:
            beats = {rank: self._read(rank) for rank in missing}
            missing = {rank for rank, beat in beats.items() if beat is None or beat.doing != ENDED}
            sleep(BEAT_S / 20)

    def does(self, what: str) -> None:
        """Say what this rank does now."""
        self._doing = (what, self._now)

    def refuse(self, why: str) -> NoReturn:
        """End all ranks for a user's mistake that the others do not know of.

        They may wait for this one in a collective operation, so their threads end them.

        Args:
            why: one line, which the first rank says.

        Raises:
            AgreedError: on this rank.
        """
        if self._ranks > 1:
            why = f"rank {self._rank} on {socket.gethostname()}: {why}"
            self._store.set(REFUSAL, why)
            sleep(2 * LINGER_S)  # this rank's thread ends it before
        raise AgreedError(why)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What is no defect ends the process with a line: the loss of a rank, too little memory.

        Raises:
            SystemExit: with `STATUS`; a rank was lost.
            AgreedError: the user's mistake, which the other ranks may not have met; or memory ran
                out on this one.
        """
        try:
            yield
        except AgreedError:
            raise
        except UserError as error:
            self.refuse(str(error))
        except (RuntimeError, MemoryError) as error:
            if is_shortage(error):
                self.refuse(f"{self._doing[0]}: {_first_line(error)}; {SMALLER}")
            self._wait_if_refused()
            lost = self._lost() if self._ranks > 1 else []
            if not lost:
                raise
            self._say(f"ends, for {' and '.join(lost)}")
            raise SystemExit(STATUS) from None

    def _wait_if_refused(self) -> None:
        """Let the thread end this process if another one has said what the user must mend."""
        with suppress(DistError, OSError):
            if self._ranks > 1 and self._store.check([REFUSAL]):
                sleep(2 * LINGER_S)

    def _keep_time(self) -> None:
        """In the thread that waits for nobody: the clock, and what is too long by it."""
        before = monotonic()
        while not self._over.wait(BEAT_S):
            self._now += min(monotonic() - before, STOPPED_S)
            before = monotonic()
            what, since = self._doing
            if self._now - since > self._hang_s:
                self._give_up(f"has been at this for {self._hang_s:.0f} s: {what}", stacks=True)
            if self._now - self._answered > LOST_S:
                self._give_up(
                    "ends, for the first rank, which keeps the store of the rendezvous, has not "
                    f"answered for {LOST_S:.0f} s"
                )

    def _watch(self) -> None:
        """In the thread that talks to the store, which may keep it waiting for ever."""
        neighbour = (self._rank + 1) % self._ranks
        last, seen = None, self._now
        while not self._stop.wait(BEAT_S):
            try:
                self._beat()
                beat = self._read(neighbour)
                if beat != last or beat is None or beat.doing == ENDED:
                    last, seen = beat, self._now
                if self._store.check([REFUSAL]):
                    self._end_refused()
                if self._now - seen > LOST_S:
                    self._tell(_obituary(neighbour, beat))
                self._give_up_if_failed()
            except (DistError, OSError):
                self._give_up("ends, for the first rank is gone, with the store of the rendezvous")
                return
            self._answered = self._now

    def _beat(self) -> None:
        self._count += 1
        beat = f"{self._count}\t{socket.gethostname()}\t{self._doing[0]}"
        self._store.set(f"rank-{self._rank}", beat)

    def _read(self, rank: int) -> Beat | None:
        """The last beat of a rank; None before its first."""
        if not self._store.check([f"rank-{rank}"]):
            return None
        number, host, doing = self._store.get(f"rank-{rank}").decode().split("\t")
        return Beat(int(number), host, doing)

    def _lost(self) -> Sequence[str]:
        """What is to be said of each rank that does not beat."""
        try:
            silent = {rank: self._read(rank) for rank in range(self._ranks) if rank != self._rank}
            for _ in range(SILENT_BEATS * 20):
                sleep(BEAT_S / 20)
                silent = {rank: beat for rank, beat in silent.items() if self._read(rank) == beat}
                if not silent:
                    break
        except (DistError, OSError):
            return ["the first rank is gone, with the store of the rendezvous"]
        return [_obituary(rank, beat) for rank, beat in silent.items()]

    def _say(self, what: str) -> None:
        print(f"rank {self._rank} of {self._ranks} {what}", file=sys.stderr, flush=True)  # noqa: T201

    def _tell(self, why: str) -> None:
        """Let all ranks know why they cannot go on; the first to say so is heard."""
        self._store.compare_set(FAILURE, "", why)

    def _give_up_if_failed(self) -> None:
        if self._store.check([FAILURE]):
            self._give_up(f"ends, for {self._store.get(FAILURE).decode()}")

    def _end_refused(self) -> None:
        leave_in_peace()
        self._mistake = self._store.get(REFUSAL).decode()
        if self._rank == 0:
            self._say(f"ends, for {self._mistake}")
        self.does(ENDED)
        self._beat()
        with suppress(DistError, OSError):
            self._let_all_end()
        os._exit(REFUSED)

    def _give_up(self, why: str, stacks: bool = False) -> None:
        self._say(why if self._mistake is None else f"ends, for {self._mistake}")
        if stacks:
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            sleep(LINGER_S)
        os._exit(STATUS if self._mistake is None else REFUSED)


@contextmanager
def watched(ranks: Ranks, hang_s: float) -> Iterator[Ranks]:
    """The ranks with a heartbeat, which `Ranks.does` and `Ranks.refuse` talk to.

    Args:
        ranks: this process among the others.
        hang_s: how long one may be at one thing.

    Raises:
        SystemExit: a rank was lost, or hangs.
    """
    heart = Heartbeat(ranks.rank, ranks.count, hang_s)
    with heart, heart.explained():
        yield replace(ranks, does=heart.does, refuse=heart.refuse)


def _first_line(error: BaseException) -> str:
    """What an error says; its kind if it says nothing."""
    kind = "out of memory" if is_shortage(error) else type(error).__name__
    return str(error).partition("\n")[0] or kind


def _obituary(rank: int, beat: Beat | None) -> str:
    if beat is None:
        return f"rank {rank} was never heard of"
    return f"rank {rank} on {beat.host} is gone; the last that was heard of it: {beat.doing}"


_numbers = count()


def _open_store() -> Store:
    """A connection of its own to the store of the rendezvous, for the thread.

    All ranks watch over each other equally often, so the number is the same on all, and what one
    heartbeat has left there is not taken for another's; nor what is left of another start.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    wait = timedelta(seconds=LOST_S)
    own = f"{this_start(os.environ)}/heartbeat-{next(_numbers)}"
    return PrefixStore(own, TCPStore(address, port, timeout=wait))
