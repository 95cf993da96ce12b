"""An iterator that is worked ahead in a thread."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """The items of an iterator, a bounded number of them made ahead in a thread.

    The thread ends when the items do, at `close`, and when this object is forgotten or the
    interpreter exits.

    Args:
        items: made in the thread; must not refer to this object.
        depth: most items that wait to be taken.
        patience_s: after so many seconds of waiting for an item, and after as many more,
        stalled: is told how many seconds it has been.

    Attributes:
        wait_s: how long the last item was waited for, in seconds.
    """

    def __init__(
        self,
        items: Iterator[T],
        depth: int,
        patience_s: float | None = None,
        stalled: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.wait_s = 0.0
        self._patience_s = patience_s
        self._stalled = stalled
        self._channel: _Channel[T] = _Channel(depth)
        # The thread holds the channel alone, so that forgetting this object can end it.
        thread = threading.Thread(
            target=_fill, args=(items, self._channel), name="prefetch", daemon=True
        )
        self._end = weakref.finalize(self, _end, self._channel, thread)
        thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """The next item.

        Raises:
            StopIteration: the items are at an end, or it was closed.
            BaseException: what the thread raised, with the thread's traceback.
        """
        start = perf_counter()
        try:
            return self._channel.take(self._patience_s, self._stalled)
        finally:
            self.wait_s = perf_counter() - start

    def close(self) -> None:
        """End the thread and wait for it; once is enough."""
        self._end()

    def abandon(self) -> None:
        """Let the thread end after the item that it is making, without waiting for it."""
        self._end.detach()
        self._channel.abandon()


class _Channel(Generic[T]):
    """What the thread and the consumer share.

    Args:
        depth: most items that wait.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._error: BaseException | None = None

    def offer(self, item: T) -> bool:
        """Wait for room and leave an item; False if nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or len(self._items) < self._depth)
            if not self._finished:
                self._items.append(item)
                self._changed.notify_all()
            return not self._finished

    def take(self, patience_s: float | None, stalled: Callable[[float], None]) -> T:
        """Wait for an item; after the last one, raise the error or StopIteration."""
        begin = perf_counter()
        with self._changed:
            while not self._changed.wait_for(lambda: self._items or self._finished, patience_s):
                stalled(perf_counter() - begin)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            raise self._error or StopIteration

    def finish(self, error: BaseException | None) -> None:
        """No more items come; those that wait can still be taken."""
        with self._changed:
            self._finished = True
            self._error = self._error or error
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody takes items any more."""
        with self._changed:
            self._items.clear()
            self._finished = True
            self._changed.notify_all()


def _fill(items: Iterator[T], channel: _Channel[T]) -> None:
    """In the thread."""
    error = None
    try:
        for item in items:
            if not channel.offer(item):
                break
    except BaseException as raised:  # raised again by the consumer
        error = raised
    channel.finish(error)


def _end(channel: _Channel[T], thread: threading.Thread) -> None:
    channel.abandon()
    if thread is not threading.current_thread():  # the garbage collector may run this in it
        thread.join()
