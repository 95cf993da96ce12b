"""Processes that work for this one, so that its interpreter is free for the training.

They are forked, so they know all that this process knows when they begin; memory that it writes to
later, as a CPU's weights, is there twice from then on. What they make comes back without passing
through a pipe: it is laid into shared memory, of which the pipe carries the descriptor. So no
answer fills a pipe: a process would wait for room there, and this one for room for its next task.
"""

import ctypes
import gc
import io
import mmap
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from data_pipeline.errors import UserError

Task = TypeVar("Task")
Made = TypeVar("Made")

DEPTH = 2
"""Tasks that a process has at a time: one that it works at, one that waits."""

ALIGNED = 64
"""Bytes that a tensor begins at a multiple of."""

PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when the one that forked it is gone."""

DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that a scheduler sends to every process of a run; this one decides when the run ends."""


class Workers(Generic[Task, Made]):
    """Some processes that do the same work on one task after the other.

    A process ends when this object is closed, and when the thread that made it is gone, however it
    ended.

    Args:
        work: task -> what is made of it; told which of the processes it is done in, from 0.
        count: of processes.

    Raises:
        UserError: so many cannot be started.
    """

    def __init__(self, work: Callable[[Task, int], Made], count: int) -> None:
        self._pipes: list[Connection[Any, Any]] = []
        self._processes: list[ForkProcess] = []
        try:
            for number in range(count):
                self._start(work, number)
        except OSError as error:
            self.close()
            raise UserError(
                f"only {len(self._processes)} of {count} loader processes can be started "
                f"({error.strerror}); lower data.workers"
            ) from None

    def _start(self, work: Callable[[Task, int], Made], number: int) -> None:
        context = get_context("fork")
        ours, theirs = context.Pipe()
        self._pipes.append(ours)
        arguments = (work, number, os.getpid(), theirs, tuple(self._pipes))
        process = context.Process(target=_serve, args=arguments, name=f"loader-{number}")
        process.daemon = True
        process.start()
        theirs.close()
        self._processes.append(process)

    def map(self, tasks: Iterator[Task]) -> Iterator[Made]:
        """What is made of each task, in their order; some tasks are taken ahead.

        Raises:
            Exception: what was raised at the work; a UserError if a process was killed.
        """
        count, sent = len(self._pipes), deque[int]()
        for number, task in enumerate(islice(tasks, DEPTH * count)):
            self._send(number % count, task)
            sent.append(number % count)
        while sent:
            number = sent.popleft()
            yield self._receive(number)
            for task in islice(tasks, 1):
                self._send(number, task)
                sent.append(number)

    def end(self) -> None:
        """End the processes, whatever they are at; who is at `map` is told that one is gone."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()

    def close(self) -> None:
        """End the processes and close their pipes; no thread may be at `map` any more."""
        self.end()
        for pipe in self._pipes:
            pipe.close()

    def _send(self, number: int, task: Task) -> None:
        try:
            self._pipes[number].send(task)
        except OSError:
            raise self._lost(number) from None

    def _receive(self, number: int) -> Made:
        try:
            answer: _Answer = self._pipes[number].recv()
            handle = recv_handle(self._pipes[number]) if answer.error is None else None
        except (EOFError, OSError):
            raise self._lost(number) from None
        if answer.error is not None:
            raise answer.error
        assert handle is not None, "it comes with what was made"
        made: Made = _unpacked(answer, handle)
        return made

    def _lost(self, number: int) -> UserError:
        process = self._processes[number]
        process.join(1)
        return UserError(
            f"loader process {process.pid} is gone (status {process.exitcode}); if it was killed "
            "for want of memory, lower data.workers"
        )


class _Answer(NamedTuple):
    """What a process sends.

    Attributes:
        error: that was raised at the work, so that nothing was made; None if there was none.
        tensors: dtype, shape and first byte of each in the shared memory.
        content: first byte there of a pickle of what was made, with numbers for its tensors; it
            goes on to the end.
        size: bytes of the shared memory.
    """

    error: Exception | None = None
    tensors: tuple[tuple[torch.dtype, torch.Size, int], ...] = ()
    content: int = 0
    size: int = 0


def _serve(
    work: Callable[[Any, int], Any],
    number: int,
    parent: int,
    pipe: "Connection[Any, Any]",
    not_ours: "tuple[Connection[Any, Any], ...]",
) -> None:
    """In a process: tasks in, answers out, until the other side of the pipe is closed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # also when the work hangs
    if os.getppid() != parent:
        return
    gc.freeze()
    for one in not_ours:  # else no process would see the others' pipes end
        one.close()
    for name in DEAF_TO:
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)  # the threads of the other process were not forked
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        handle = None
        try:
            answer, handle = _packed(work(task, number))
        except Exception as error:
            answer = _Answer(_portable(error))
        try:
            _send_answer(pipe, answer, handle)
        except OSError:  # nobody is there to take it
            return


def _portable(error: Exception) -> Exception:
    """What can be raised in another process: a defect comes with its traceback as text."""
    if isinstance(error, UserError):
        return error
    return RuntimeError(f"in a loader process: {error!r}\n{traceback.format_exc()}")


class _Pickler(pickle.Pickler):
    """Leaves tensors out, and keeps them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []

    def persistent_id(self, obj: object) -> int | None:
        """The number of a tensor."""
        if not isinstance(obj, Tensor):
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    """Puts tensors in again; the pickle is of a process of our own."""

    def __init__(self, content: bytes, tensors: list[Tensor]) -> None:
        super().__init__(io.BytesIO(content))
        self._tensors = tensors

    def persistent_load(self, pid: int) -> Tensor:
        """The tensor of a number."""
        return self._tensors[pid]


def _packed(made: object) -> tuple[_Answer, int]:
    """The answer, and the descriptor of the shared memory that it is about."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(made)
    content = file.getvalue()
    places, begin = [], 0
    for one in pickler.tensors:
        places.append((one.dtype, one.shape, begin))
        begin += -(-one.nbytes // ALIGNED) * ALIGNED
    answer = _Answer(None, tuple(places), begin, begin + len(content))
    return answer, _share(answer, pickler.tensors, content)


def _share(answer: _Answer, tensors: list[Tensor], content: bytes) -> int:
    """Lay tensors and their pickle into shared memory; its descriptor."""
    handle = os.memfd_create("memo-batch")
    os.ftruncate(handle, answer.size)
    with mmap.mmap(handle, answer.size) as memory:
        for one, (_, _, begin) in zip(tensors, answer.tensors, strict=True):
            memory[begin : begin + one.nbytes] = _bytes_of(one)
        memory[answer.content :] = content
    return handle


def _send_answer(pipe: "Connection[Any, Any]", answer: _Answer, handle: int | None) -> None:
    pipe.send(answer)
    if handle is not None:
        send_handle(pipe, handle, os.getppid())
        os.close(handle)


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _unpacked(answer: _Answer, handle: int) -> Any:  # noqa: ANN401
    """What was made; its tensors keep the shared memory as long as they are there."""
    # Unlike Python's mmap this keeps no descriptor, of which a process may have few.
    name, size = f"/proc/self/fd/{handle}", answer.size
    memory = torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
    os.close(handle)
    tensors = [_view(memory, *place) for place in answer.tensors]
    return _Unpickler(memory[answer.content :].numpy().tobytes(), tensors).load()


def _view(memory: Tensor, dtype: torch.dtype, shape: torch.Size, begin: int) -> Tensor:
    size = shape.numel() * dtype.itemsize
    return memory[begin : begin + size].view(dtype).view(shape)
