"""The processes of a build. A file that kills its process does not end the build.

A decoder that crashes, or too little memory, takes a process away, and with it the whole pool. What
was being worked on is marked, by an empty file each; those are tried again one by one, each in a
process of its own, and the rest goes on with new processes.
"""

import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from ctypes import c_bool
from pathlib import Path
from typing import Any, TypeVar

import torch

from data_pipeline.build_worker import start_worker
from data_pipeline.errors import UserError

KILLED = "it has killed its process: its decoder has crashed, or memory is short"

File = TypeVar("File")
Result = TypeVar("Result")


class BuildPool:
    """Processes that work on files.

    Args:
        workers: how many, each with one thread.
        arguments: of `start_worker`, without the last.
        marks: folder of the marks; emptied.
    """

    def __init__(self, workers: int, arguments: tuple[Any, ...], marks: Path) -> None:
        shutil.rmtree(marks, ignore_errors=True)  # of a build that was killed as a whole
        marks.mkdir()
        self._workers = workers
        self._context = multiprocessing.get_context("spawn")
        # Without a lock, which a killed process would keep.
        self._stopped = self._context.RawValue(c_bool, False)
        self._arguments = (*arguments, self._stopped)
        self._marks = marks
        self._pool = self._processes(workers)

    def results(
        self, do: Callable[[File], Result], files: Sequence[File]
    ) -> Iterator[tuple[File, Result | None]]:
        """What `do` makes of each file, as soon as it is there; None of one that kills.

        Raises:
            UserError: a process was killed before it had begun with a file.
        """
        left = dict(enumerate(files))
        while left:
            try:
                yield from self._together(do, left)
            except BrokenProcessPool:
                self._pool.shutdown()  # one that still works may take its mark away until it ends
                for number in self._suspects(left):
                    file = left.pop(number)
                    yield file, self._alone(do, number, file)
                self._renew(self._workers)

    def close(self) -> None:
        """End the processes; nothing is left to be done."""
        self._pool.shutdown()

    def stop(self) -> None:
        """What has begun is soon left off."""
        self._stopped.value = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _together(
        self, do: Callable[[File], Result], left: dict[int, File]
    ) -> Iterator[tuple[File, Result]]:
        """Take out of `left` what is done.

        Raises:
            BrokenProcessPool: a process was killed; what the others had done until then is told.
        """
        futures = {
            self._pool.submit(_marked, do, file, self._marks / str(number)): number
            for number, file in left.items()
        }
        broken = None
        for future in as_completed(futures):
            if isinstance(future.exception(), BrokenProcessPool):
                broken = future.exception()
            else:
                result = future.result()
                yield left.pop(futures[future]), result
        if broken is not None:
            raise broken

    def _alone(self, do: Callable[[File], Result], number: int, file: File) -> Result | None:
        """See `results`."""
        self._renew(1)
        mark = self._marks / str(number)
        mark.unlink()
        try:
            return self._pool.submit(_marked, do, file, mark).result()
        except BrokenProcessPool:
            self._suspects([number])
            mark.unlink()
            return None

    def _suspects(self, left: Sequence[int] | dict[int, File]) -> list[int]:
        """Numbers of the files that were being worked on when a process was killed.

        Raises:
            UserError: none was.
        """
        suspects = [number for number in left if (self._marks / str(number)).exists()]
        if not suspects:
            raise UserError(
                "a process of the build was killed before it had begun, most likely for want of "
                "memory; what is done is kept: run the same command with fewer --workers"
            )
        return suspects

    def _renew(self, workers: int) -> None:
        self._pool.shutdown()
        self._pool = self._processes(workers)

    def _processes(self, workers: int) -> Executor:
        return ProcessPoolExecutor(workers, self._context, start_worker, self._arguments)


@contextmanager
def open_pool(workers: int, arguments: tuple[Any, ...], marks: Path) -> Iterator[BuildPool]:
    """A pool that ends with the build; what has begun is soon left off when that is stopped.

    Args:
        workers: see `BuildPool`.
        arguments: likewise.
        marks: likewise.

    Raises:
        UserError: the GPU has not enough memory.
    """
    pool = BuildPool(workers, arguments, marks)
    try:
        yield pool
    except torch.OutOfMemoryError:
        pool.stop()
        raise UserError(
            "the GPU has not enough memory; what is done is kept: run the same command with fewer "
            "--workers"
        ) from None
    except BaseException:
        pool.stop()
        raise
    pool.close()


def _marked(do: Callable[[File], Result], file: File, mark: Path) -> Result:
    """What is made of a file, which is marked until then."""
    mark.touch()
    try:
        return do(file)
    finally:
        mark.unlink()
