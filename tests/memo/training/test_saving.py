from pathlib import Path
from threading import Event

import pytest

from data_pipeline.errors import UserError
from memo.training.saving import Saver, folders_by_step, go_back_to, point_latest


def full() -> Path:
    raise UserError("the disk is full")


def test_what_is_written_goes_on_beside_and_one_after_the_other() -> None:
    written: list[int] = []
    go = Event()

    def write(number: int) -> Path:
        assert go.wait(60)
        written.append(number)
        return Path(str(number))

    with Saver(print) as saver:
        saver.begin(lambda: write(1))
        assert written == []  # the caller was not kept waiting
        go.set()
        saver.begin(lambda: write(2))
        assert written[:1] == [1]
    assert written == [1, 2]


def test_a_failure_is_told_at_once_and_raised_if_it_was_the_last_word() -> None:
    told: list[str] = []
    with Saver(told.append) as saver:
        saver.begin(full)
        with pytest.raises(UserError, match="the disk is full"):
            saver.finish()
        assert told == ["no checkpoint: the disk is full; the run goes on"]
        saver.begin(Path)
        saver.finish()


def test_what_is_no_mistake_of_the_user_is_raised_where_it_trains() -> None:
    def broken() -> Path:
        raise RuntimeError("a defect")

    with Saver(print) as saver:
        saver.begin(broken)
        with pytest.raises(RuntimeError, match="a defect"):
            saver.begin(Path)
        with pytest.raises(RuntimeError, match="a defect"):
            saver.finish()


def test_the_folders_of_others_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("step-00000400", "step-00000020", "step-00000400.keep", "step-x", "step-1.tmp"):
        (tmp_path / name).mkdir()
    assert list(folders_by_step(tmp_path)) == [20, 400]


def test_going_back_leaves_no_later_checkpoint(tmp_path: Path) -> None:
    for step in (2, 4, 5, 6):
        (tmp_path / f"step-{step:08d}").mkdir()
    point_latest(tmp_path, "step-00000006")
    go_back_to(tmp_path, 4)
    assert list(folders_by_step(tmp_path)) == [2, 4]
    assert (tmp_path / "latest").read_text() == "step-00000004\n"
