"""Lost and hanging ranks, with a store in this process and with processes that are killed."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import cast
from unittest.mock import patch

import pytest
import torch
from torch.distributed import HashStore, Store  # type: ignore[attr-defined]

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.packing import PackedBatch
from memo.config import PretrainConfig
from memo.training import heartbeat as module
from memo.training.distributed import join
from memo.training.engine import Engine, StepResult
from memo.training.heartbeat import Heartbeat, watched
from memo.training.pretrain import pretrain
from memo.training.rank import told_status
from memo.training.setup import Data, open_data
from memo.training.signals import REQUEUE, StopSignals
from memo.tuning.run import finetune
from tests.distributed import Rank, run_ranks, started
from tests.launch.command import TORCHRUN, launch
from tests.memo.training.small_run import small_config, write_small_dataset
from tests.memo.tuning.small_tuning import (
    tuning_config,
    write_backbone,
    write_corpus,
    write_task,
)


def test_an_error_without_a_loss_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    store = HashStore()
    with (
        Heartbeat(0, 2, 60, store) as one,
        Heartbeat(1, 2, 60, store),
        pytest.raises(RuntimeError, match="a defect"),
        one.explained(),
    ):
        raise RuntimeError("a defect")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ..."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_the_users_to_mend(error: Exception) -> None:
    heart = Heartbeat(0, 1, 60, HashStore())
    heart.does("step 7")
    with pytest.raises(AgreedError) as refused, heart, heart.explained():
        raise error
    said = str(error).partition("\n")[0] or "out of memory"
    assert str(refused.value) == f"step 7: {said}; a smaller batch.token_budget needs less memory"


def test_a_mistake_of_one_rank_is_told_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.0)
    store = HashStore()
    heart = Heartbeat(1, 2, 60, store)  # without its thread, which would end the process
    with pytest.raises(AgreedError, match=r"rank 1 on .*: no such file"), heart.explained():
        raise UserError("no such file")
    assert store.get(module.REFUSAL).decode().endswith(": no such file")


def test_a_mistake_that_all_ranks_know_of_is_told_to_none() -> None:
    store = HashStore()
    heart = Heartbeat(1, 2, 60, store)
    with pytest.raises(AgreedError, match=r"^no such file$"), heart.explained():
        raise AgreedError("no such file")
    assert not store.check([module.REFUSAL])


def test_who_is_lost_is_named_with_what_it_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    store = HashStore()
    store.set("rank-1", "6\tnode7\tstep 9")
    with (
        pytest.raises(SystemExit) as ended,
        Heartbeat(0, 3, 60, store) as heart,
        heart.explained(),
    ):
        raise RuntimeError("connection closed by peer")
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "rank 0 of 3 ends, for rank 1 on node7 is gone; the last that was heard of it: step 9 and "
        "rank 2 was never heard of\n"
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("a defect\nof two lines"), "a defect"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_rank_that_fails_says_why(
    error: BaseException, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    store, said, ended = HashStore(), list[str](), Event()

    def give_up(_: Heartbeat, why: str, stacks: bool = False) -> None:
        assert not stacks
        said.append(why)
        ended.set()

    monkeypatch.setattr(Heartbeat, "_give_up", give_up)
    with Heartbeat(1, 2, 60, store):
        with pytest.raises(type(error)), Heartbeat(0, 2, 60, store):
            raise error
        assert ended.wait(60)
    assert said[0].startswith("ends, for rank 0 on ")
    assert said[0].endswith(f"has failed: {told}")


def test_all_name_the_rank_that_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of three watches over the second alone, which watches over the lost one."""
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "LOST_S", 2.0)
    monkeypatch.setattr(module, "STOPPED_S", 0.05)
    ended = given_up(monkeypatch, 2)
    store = HashStore()
    store.set("rank-2", "6\tnode7\tstep 9")
    with Heartbeat(0, 3, 60, store), Heartbeat(1, 3, 60, store):
        ended.wait(60)
    lost = "ends, for rank 2 on node7 is gone; the last that was heard of it: step 9"
    said = set(capsys.readouterr().err.splitlines())
    assert said == {f"rank 0 of 3 {lost}", f"rank 1 of 3 {lost}"}


def test_the_first_rank_waits_for_no_lost_one_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three, which has watched over the third, has ended."""
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "LOST_S", 0.5)
    monkeypatch.setattr(module, "STOPPED_S", 0.05)
    said, store = list[str](), HashStore()
    monkeypatch.setattr(Heartbeat, "_give_up", lambda _, why: said.append(why))
    store.set("rank-2", "6\tnode7\tstep 9")
    with Heartbeat(1, 3, 60, store):
        pass

    def begin_and_end() -> None:
        with Heartbeat(0, 3, 60, store):
            pass

    first = Thread(target=begin_and_end, daemon=True)
    first.start()
    first.join(60)
    assert not first.is_alive()
    lost = "ends, for rank 2 on node7 is gone; the last that was heard of it: step 9"
    assert lost in said


def test_the_first_rank_does_not_leave_as_if_no_other_had_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 300.0)  # its thread looks too late
    said, store = list[str](), HashStore()
    monkeypatch.setattr(Heartbeat, "_give_up", lambda _, why: said.append(why))
    first, second = Heartbeat(0, 2, 60, store), Heartbeat(1, 2, 60, store)
    with first, pytest.raises(ValueError, match="a defect"), second:
        raise ValueError("a defect")
    (why,) = said
    assert why.endswith("has failed: a defect")


def test_a_first_rank_that_does_not_answer_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "LOST_S", 1.0)
    ended, answers = given_up(monkeypatch, 1), Event()

    class Frozen:
        def set(self, key: str, value: str) -> None:
            """As the first rank did before it was frozen."""

        def check(self, keys: list[str]) -> bool:
            answers.wait(60)
            return not keys

    with Heartbeat(1, 2, 60, cast("Store", Frozen())):
        ended.wait(60)
        answers.set()
    silent = "rank 1 of 2 ends, for the first rank, which keeps the store of the rendezvous, has "
    assert capsys.readouterr().err.startswith(f"{silent}not answered for 1 s")


def given_up(monkeypatch: pytest.MonkeyPatch, count: int) -> Barrier:
    """Let heartbeats say why they give up without ending this process; met by as many, and one."""
    ended = Barrier(count + 1)
    told = set[Heartbeat]()

    def give_up(heart: Heartbeat, why: str, stacks: bool = False) -> None:
        assert not stacks
        if heart not in told:
            told.add(heart)
            heart._say(why)
            ended.wait(60)

    monkeypatch.setattr(Heartbeat, "_give_up", give_up)
    return ended


def test_what_one_run_has_left_does_not_end_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    said = list[str]()

    def give_up(_: Heartbeat, why: str, stacks: bool = False) -> None:
        assert not stacks
        said.append(why)

    monkeypatch.setattr(Heartbeat, "_give_up", give_up)
    ranks = join(1)
    with pytest.raises(ValueError, match="a defect"), watched(ranks, 60):
        raise ValueError("a defect")
    with watched(ranks, 60):
        time.sleep(0.5)
    assert not said


def test_what_one_start_has_left_does_not_end_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes count from 0 again, and torchrun keeps the store."""
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    said, ranks = list[str](), join(1)
    monkeypatch.setattr(Heartbeat, "_give_up", lambda _, why: said.append(why))
    monkeypatch.setattr(module, "_numbers", count(1000))
    with pytest.raises(ValueError, match="a defect"), watched(ranks, 60):
        raise ValueError("a defect")
    monkeypatch.setattr(module, "_numbers", count(1000))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with watched(ranks, 60):
        time.sleep(0.5)
    assert not said


FAILS_ONCE = """
import os, time
from memo.training.distributed import join
from memo.training.heartbeat import watched
ranks = join(1)
with watched(ranks, 60):
    ranks.max(0)
    if ranks.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        raise ValueError("a defect")
    time.sleep(3)
"""


@pytest.mark.slow
def test_torchrun_starts_the_ranks_again(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(FAILS_ONCE)
    ended = launch(str(tmp_path / "ranks.py"), tmp_path, by=(*TORCHRUN, "--max-restarts=1"))
    assert "a defect" in ended.stderr
    assert ended.returncode == 0, ended.stderr


def end_late(rank_that_does: str) -> None:
    """As one rank, which has still something to do when the other is at its end, or has not."""
    ranks = join(1)
    with watched(ranks, 60):
        ranks.max(0)
        if str(ranks.rank) == rank_that_does:
            time.sleep(3)


@pytest.mark.parametrize("late", ["0", "1"])
def test_a_rank_may_end_later_than_another(late: str) -> None:
    run_ranks(end_late, late, 2)


def refuse_slowly(slow: str) -> None:
    """As one of three that have met the same mistake; one is slow to come to its end."""

    def run() -> int:
        ranks = join(1)
        with watched(ranks, 60):
            try:
                with ranks.together():
                    raise UserError("no such file")
            finally:
                time.sleep(3 if str(ranks.rank) == slow else 0)
        return 0

    sys.exit(told_status("program", run))


def stop_slowly(slow: str) -> None:
    """As one of three that have saved what they have; one is slow to come to its end."""

    def run() -> int:
        ranks = join(1)
        with StopSignals():
            ranks.end_together()
        time.sleep(3 if str(ranks.rank) == slow else 0)
        return REQUEUE

    sys.exit(told_status("program", run))


@contextmanager
def ended_with_the_first(function: Callable[[str], None], slow: str) -> Iterator[list[Rank]]:
    """Three ranks that a launcher ends as soon as one has left."""
    with started(function, [slow], 3) as ranks:
        wait([one.process.sentinel for one in ranks])
        for one in ranks:
            if one.process.is_alive():
                one.process.terminate()
        for one in ranks:
            one.process.join(60)
        yield ranks


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["0", "2"])
def test_a_mistake_is_told_though_a_launcher_ends_all_with_the_first(slow: str) -> None:
    with ended_with_the_first(refuse_slowly, slow) as ranks:
        assert [one.process.exitcode for one in ranks] == [2, 2, 2]
        assert ranks[0].output.read_text().splitlines()[-1] == "program: no such file"


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["0", "2"])
def test_a_run_that_was_stopped_says_so_though_a_launcher_ends_it(slow: str) -> None:
    with ended_with_the_first(stop_slowly, slow) as ranks:
        assert [one.process.exitcode for one in ranks] == [REQUEUE] * 3


def test_a_mistake_is_told_though_a_rank_is_lost_on_its_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    monkeypatch.setattr(module, "FAREWELL_S", 0.3)
    monkeypatch.setattr(module, "leave_in_peace", lambda: None)
    store = HashStore()
    store.set("rank-1", "6\tnode7\tstep 9")
    with pytest.raises(AgreedError, match="no such file"), Heartbeat(0, 2, 60, store):
        raise AgreedError("no such file")
    assert capsys.readouterr().err == ""


def train_until_something_happens(place: str, kind: str, happens: str, whom: str) -> None:
    """As one rank; one of the two meets with something in its third step, or when it opens data."""
    module.LOST_S = 60.0 if happens == "is refused" else 12.0
    module.STOPPED_S, module.LINGER_S = 1.0, 15.0
    folder, changes = Path(place), ["distribution.hang_s=20"] if happens == "hangs" else []
    step = Engine.step

    def hindered(
        self: Engine, batches: Sequence[PackedBatch], number: int, lr: float
    ) -> StepResult:
        if number == 2 and self.ranks.rank == int(whom):
            if happens == "hangs":
                time.sleep(100)
            if happens == "is refused":
                raise UserError("this disk is full")
            os.kill(os.getpid(), signal.SIGKILL if happens == "is killed" else signal.SIGSTOP)
        return step(self, batches, number, lr)

    def opened(config: PretrainConfig) -> Data:
        if kind == "starting" and os.environ["RANK"] == whom:
            os.kill(os.getpid(), signal.SIGKILL)
        return open_data(config)

    with (
        patch.object(Engine, "step", hindered),
        patch("memo.training.pretrain.open_data", opened),
    ):
        if kind == "tuning":
            task, backbone = folder / "task.yaml", folder / "backbone"
            finetune(tuning_config(task, backbone, folder / "run", "linear"))
        else:
            pretrain(small_config(folder / "data", folder / "run", *changes), "auto")


def prepare(folder: Path, kind: str) -> None:
    """What is trained on."""
    if kind == "tuning":
        write_task(folder / "task.yaml", write_corpus(folder / "data"))
        write_backbone(folder / "data", folder / "backbone")
    else:
        write_small_dataset(folder / "data")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "happens", "whom"),
    [
        ("pretraining", "is killed", 1),
        ("pretraining", "is stopped", 1),
        ("pretraining", "is stopped", 0),
        ("pretraining", "hangs", 1),
        ("tuning", "is killed", 1),
        ("starting", "is killed", 1),
    ],
)
def test_when_a_rank_is_lost_the_other_ends_and_says_so(
    tmp_path: Path, kind: str, happens: str, whom: int
) -> None:
    prepare(tmp_path, kind)
    with started(
        train_until_something_happens, [str(tmp_path), kind, happens, str(whom)], 2
    ) as ranks:
        other = ranks[1 - whom]
        other.process.join(120)
        assert other.process.exitcode == 1
        said = other.output.read_text()
        if happens == "hangs":
            ranks[1].process.join(120)
            also = ranks[1].output.read_text()
            assert "rank 0 of 2 has been at this for 20 s: step 3" in said
            assert "rank 1 of 2 has been at this for 20 s: step 3" in also
            assert "in hindered" in also
            assert "Traceback" not in said
        else:
            gone = "the first rank, which keeps the store" if whom == 0 else "rank 1 on "
            begin = f"rank {1 - whom} of 2 ends, for {gone}"
            (line,) = [one for one in said.splitlines() if one.startswith(begin)]
            assert whom == 0 or "is gone; the last that was heard of it: " in line


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pretraining", "tuning"])
def test_a_mistake_that_one_rank_meets_ends_all_as_one(tmp_path: Path, kind: str) -> None:
    prepare(tmp_path, kind)
    begun = started(train_until_something_happens, [str(tmp_path), kind, "is refused", "1"], 2)
    with begun as ranks:
        for one in ranks:
            one.process.join(120)
            assert one.process.exitcode == 2
        first, second = (one.output.read_text() for one in ranks)
        assert re.search(r"rank 0 of 2 ends, for rank 1 on .*: this disk is full", first)
        assert "Traceback" not in first + second
