"""Processes of a build that are killed by what they read."""

import os
import signal
import time
from pathlib import Path

import pytest

from data_pipeline import build_pool
from data_pipeline.build_pool import BuildPool, open_pool
from data_pipeline.errors import UserError

pytestmark = pytest.mark.slow


def begin(folder: Path, *_: object) -> None:
    """A process starts: unless it is to be killed by that."""
    if (folder / "no memory").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def read(path: Path) -> str:
    """The content of a file; one of them crashes its decoder, another waits for that."""
    content = path.read_text()
    if content == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if content == "slow":
        time.sleep(2)
    return content


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildPool:
    monkeypatch.setattr(build_pool, "start_worker", begin)
    return BuildPool(2, (tmp_path,), tmp_path / "marks")


def write(folder: Path, contents: list[str]) -> list[Path]:
    paths = [folder / f"{number}.txt" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    return paths


def test_a_file_that_kills_its_process_leaves_the_others(pool: BuildPool, tmp_path: Path) -> None:
    """Also those that were being read when it did."""
    contents = ["slow", "crash", "a"]
    paths = write(tmp_path, contents)
    found = dict(pool.results(read, paths))
    pool.close()
    assert [found[path] for path in paths] == ["slow", None, "a"]
    assert not list((tmp_path / "marks").iterdir())


def test_a_pool_whose_processes_cannot_start_is_an_error(pool: BuildPool, tmp_path: Path) -> None:
    (tmp_path / "no memory").touch()
    with pytest.raises(UserError, match=r"was killed before it had begun.* fewer --workers"):
        list(pool.results(read, write(tmp_path, ["a", "b"])))
    pool.close()


def test_errors_are_those_of_the_file_and_end_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_pool, "start_worker", begin)
    paths = [*write(tmp_path, ["a"]), tmp_path / "missing"]
    with pytest.raises(FileNotFoundError), open_pool(1, (tmp_path,), tmp_path / "m") as pool:
        list(pool.results(read, paths))
