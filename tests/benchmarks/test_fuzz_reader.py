"""The fuzzer finds nothing in the code, and finds what is put into it."""

import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fuzz_reader
from benchmarks.fuzz_reader import Watch, run_cases
from benchmarks.mutations import mutate
from benchmarks.small_data import run_stream, write_small
from data_pipeline.clip import Clip
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.shard import MappedShard


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_reader, "WARM_UP", 25)
    monkeypatch.setenv("MEMO_CACHE", os.environ.get("MEMO_CACHE", "cache"))  # it is set anew


def test_nothing_fails(tmp_path: Path) -> None:
    tally, _ = run_cases(0, 0, tmp_path)
    assert tally.failures == []
    assert tally.cases == 26
    assert tally.repairs >= 3
    assert tally.samples > 100
    assert tally.raised


def test_wrong_content_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not look at checksums."""
    monkeypatch.setattr("data_pipeline.shards.shard.crc32", _AnyChecksum)
    tally, _ = run_cases(0, 0, tmp_path)
    assert tally.failures


class _AnyChecksum:
    """Equals every other."""

    def __init__(self, content: object) -> None:
        del content

    def __ne__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "deed",
    [
        {}.popitem,
        lambda: Path("written-outside").write_text("x"),
        lambda: pickle.loads(pickle.dumps(print)),
    ],
    ids=["exception", "file", "pickle"],
)
def test_what_must_not_happen_is_noticed(
    deed: Any,  # noqa: ANN401
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    read = MappedShard.read

    def misbehave(shard: MappedShard, row: int) -> Clip:
        deed()
        return read(shard, row)

    (tmp_path / "inside").mkdir()
    monkeypatch.setattr(fuzz_reader, "WARM_UP", 1)
    with monkeypatch.context() as patch:
        whole = write_small(tmp_path / "inside" / "other")
        patch.setattr(fuzz_reader, "write_small", lambda place: shutil.copytree(whole, place))
        original = run_stream(whole, Quarantine(tmp_path / "q", 0))
        patch.setattr(fuzz_reader, "run_stream", lambda *_: original)
        patch.setattr(MappedShard, "read", misbehave)
        tally, _ = run_cases(0, 1, tmp_path / "inside")
    assert tally.failures == [1, 2]


def test_files_inside_may_be_written(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("x")
    (tmp_path / "a" / "x").read_text()
    assert watch.seen == []
    (tmp_path / "y").write_text("x")
    watch.awake = False
    (tmp_path / "z").write_text("x")
    assert len(watch.seen) == 1


def test_a_seed_gives_the_same_damage(tmp_path: Path) -> None:
    whole = write_small(tmp_path / "whole")
    for seed in range(10):
        found = []
        for name in "ab":
            folder = shutil.copytree(whole, tmp_path / name)
            done = mutate(folder, random.Random(seed))
            found.append((done, {one.name: one.read_bytes() for one in folder.iterdir()}))
            shutil.rmtree(folder)
        assert found[0] == found[1], json.dumps(found[0][0])
