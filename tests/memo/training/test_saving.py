from pathlib import Path
from threading import Event

import pytest

from data_pipeline.errors import UserError
from memo.training.saving import Saver


def full() -> Path:
    raise UserError("the disk is full")


def test_what_is_written_goes_on_beside_and_one_after_the_other() -> None:
    written: list[int] = []
    go = Event()

    def write(number: int) -> Path:
        assert go.wait(10)
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
