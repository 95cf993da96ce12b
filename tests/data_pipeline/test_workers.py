"""Processes that work for this one: order, tensors, errors, and that none is left behind."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.workers import Workers

ROOT = Path(__file__).parents[2]
DTYPES = (torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.uint8)


def described(task: int, number: int) -> tuple[int, int]:
    """What no process other than the asked one can know."""
    return task * task, number


@pytest.fixture
def three() -> Iterator[Workers[int, tuple[int, int]]]:
    workers = Workers(described, 3)
    yield workers
    workers.close()


def test_results_come_in_the_order_of_the_tasks(three: Workers[int, tuple[int, int]]) -> None:
    assert list(three.map(iter(range(20)))) == [(task * task, task % 3) for task in range(20)]
    assert list(three.map(iter([7]))) == [(49, 0)]  # fewer tasks than processes
    assert list(three.map(iter([]))) == []


def test_tasks_are_taken_ahead_but_not_all(three: Workers[int, tuple[int, int]]) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(100):
            taken.append(task)
            yield task

    results = three.map(tasks())
    next(results)
    assert len(taken) == 6
    next(results)
    assert len(taken) == 7


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3)), max_size=6
    )
)
def test_tensors_come_as_they_are(kinds: list[tuple[torch.dtype, list[int]]]) -> None:
    def draw(task: int, number: int) -> dict[str, Tensor]:
        del number
        torch.manual_seed(task)
        return {
            str(at): torch.randint(0, 2, shape).to(dtype) for at, (dtype, shape) in enumerate(kinds)
        }

    workers = Workers(draw, 1)
    try:
        (found,) = workers.map(iter([3]))
    finally:
        workers.close()
    expected = draw(3, 0)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert found[name].dtype == one.dtype
        assert torch.equal(found[name], one)


def owner_of_large_tasks() -> None:
    """In a process of its own: what neither of two pipes has room for goes there and comes back."""
    workers = Workers(returned, 1)
    tasks = [bytes([number]) * 2_000_000 for number in range(5)]
    assert list(workers.map(iter(tasks))) == tasks
    workers.close()


def returned(task: bytes, number: int) -> bytes:
    del number
    return task


def test_large_tasks_and_answers_do_not_wait_for_each_other() -> None:
    code = "from tests.data_pipeline.test_workers import *; owner_of_large_tasks()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=240)


def test_large_tensors_leave_no_descriptor_open() -> None:
    def filled(task: int, number: int) -> Tensor:
        del number
        return torch.full((1_000_000,), task)

    workers = Workers(filled, 2)
    before = len(os.listdir("/proc/self/fd"))
    kept = list(workers.map(iter(range(40))))
    assert all(bool((found == task).all()) for task, found in enumerate(kept))
    assert len(os.listdir("/proc/self/fd")) == before
    workers.close()


def test_errors_are_raised_here() -> None:
    def fail(task: str, number: int) -> None:
        del number
        if task == "user":
            raise UserError("no such shard")
        raise ValueError("a defect")

    workers = Workers(fail, 1)
    with pytest.raises(UserError, match=r"^no such shard$"):
        list(workers.map(iter(["user"])))
    with pytest.raises(
        RuntimeError, match=r"^in a loader process: ValueError\('a defect'\)\n(.*\n)*.* in fail"
    ):
        list(workers.map(iter(["else"])))
    workers.close()


def test_a_process_that_was_killed_is_said_in_one_line() -> None:
    def die(task: int, number: int) -> int:
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    workers = Workers(die, 2)
    with pytest.raises(UserError, match=r"^loader process \d+ is gone \(status -9\).*workers$"):
        list(workers.map(iter(range(9))))
    workers.close()


def test_what_asks_a_run_to_stop_does_not_end_its_processes() -> None:
    def hear(task: int, number: int) -> int:
        del number
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), name)
        return task

    workers = Workers(hear, 1)
    assert list(workers.map(iter([1, 2]))) == [1, 2]
    workers.close()


def test_too_many_processes_are_refused_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = ForkProcess.start, list[ForkProcess]()

    def fails(process: ForkProcess) -> None:
        if len(started) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        start(process)
        started.append(process)

    monkeypatch.setattr(ForkProcess, "start", fails)
    with pytest.raises(UserError, match=r"only 2 of 3 .* \(Resource temp.*lower data\.workers"):
        Workers(described, 3)
    assert not any(one.is_alive() for one in started)


def test_closing_does_not_wait_for_what_hangs() -> None:
    def hang(task: int, number: int) -> None:
        time.sleep(task + number)

    workers = Workers(hang, 2)
    begin = time.monotonic()
    workers._send(0, 60)
    workers.close()
    assert time.monotonic() - begin < 30


def owner(place: Path) -> None:
    """In a process of its own: its workers' numbers, then it is killed while they are at work."""

    def who(task: int, number: int) -> int:
        if task >= 2:
            time.sleep(600 + number)
        return os.getpid()

    workers = Workers(who, 2)
    place.write_text(" ".join(map(str, islice(workers.map(iter(range(4))), 2))))
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_end_with_the_one_that_they_work_for(tmp_path: Path) -> None:
    place = tmp_path / "processes"
    code = f"from tests.data_pipeline.test_workers import *; owner(Path({str(place)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    numbers = [int(one) for one in place.read_text().split()]
    assert len(numbers) == 2
    until = time.monotonic() + 60
    while any(_lives(one) for one in numbers):
        assert time.monotonic() < until, "a process was left behind"
        time.sleep(0.05)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
