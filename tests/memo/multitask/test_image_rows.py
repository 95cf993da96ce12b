"""Rows of a frozen image network: read once, and not again what was read before the run ended."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline.errors import AgreedError
from data_pipeline.shards.reader import Split, open_dataset
from memo.multitask import image_rows as module
from memo.multitask.config import ImageSettings
from memo.multitask.image_rows import image_rows
from memo.multitask.images import ImageNetwork
from memo.training.distributed import join
from memo.training.signals import StopSignals
from memo.tuning.course import StoppedError
from tests.distributed import run_ranks
from tests.memo.multitask.small_system import write_posts

SMALL = ImageSettings(model="test_resnet", size=32)


class KilledError(Exception):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 posts, and weights of a small network."""
    folder = tmp_path_factory.mktemp("images")
    write_posts(folder / "posts", broken=[3])
    torch.save(ImageNetwork(SMALL).body.state_dict(), folder / "weights.pt")
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "PART", 32)
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))


def posts(folder: Path) -> tuple[Split, ImageSettings]:
    frozen = {"frozen": True, "weights": folder / "weights.pt"}
    return open_dataset(folder / "posts").whole(), SMALL.model_copy(update=frozen)


class Reading:
    """Counts the batches that networks read; before one of them the run ends."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.batches = 0
        self.last: int | None = None
        plain = ImageNetwork.forward

        def forward(network: ImageNetwork, images: Tensor) -> Tensor:
            if self.batches == self.last:
                raise KilledError
            self.batches += 1
            return plain(network, images)

        patch.setattr(ImageNetwork, "forward", forward)


def test_every_part_is_said_so_that_none_is_taken_for_hanging(folder: Path) -> None:
    said: list[str] = []
    image_rows(*posts(folder), replace(join(1), does=said.append), StopSignals())
    assert sorted(set(said)) == [f"encoding images, {one} of 90" for one in (0, 32, 64)]


def test_what_was_read_before_the_end_is_not_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch)
    plain = image_rows(*posts(folder), join(1), StopSignals())
    whole, reading.batches = reading.batches, 0
    lost = np.isnan(plain).all(axis=1)
    assert np.flatnonzero(lost).tolist() == [3, *range(14, 90, 15)]
    assert not np.isnan(plain[~lost]).any()
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "other"))
    reading.last = 6  # in the second of three parts
    with pytest.raises(KilledError):
        image_rows(*posts(folder), join(1), StopSignals())
    reading.batches, reading.last = 0, None
    np.testing.assert_array_equal(image_rows(*posts(folder), join(1), StopSignals()), plain)
    assert reading.batches == whole - 4
    np.testing.assert_array_equal(image_rows(*posts(folder), join(1), StopSignals()), plain)
    assert reading.batches == whole - 4
    (left,) = (tmp_path / "other" / "images").iterdir()
    assert left.suffix == ".npy"


def test_a_request_to_stop_is_heard_between_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, signals = Reading(monkeypatch), StopSignals()

    def told(what: str) -> None:
        if what == "encoding images, 32 of 90":
            signals.received = signal.SIGUSR1

    with pytest.raises(StoppedError):
        image_rows(*posts(folder), replace(join(1), does=told), signals)
    first = reading.batches
    image_rows(*posts(folder), join(1), StopSignals())
    assert 4 < first < 9
    assert reading.batches == 12


def test_parts_that_another_run_has_finished_end_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, save = image_rows(*posts(folder), join(1), StopSignals()), module._save
    (whole,) = Path(os.environ["MEMO_CACHE"], "images").iterdir()
    content = whole.read_bytes()
    whole.unlink()

    def finished_by_another(path: Path, rows: NDArray[np.float32]) -> None:
        if path.stem == "00000064":
            whole.write_bytes(content)
            raise FileNotFoundError(path)
        save(path, rows)

    monkeypatch.setattr(module, "_save", finished_by_another)
    np.testing.assert_array_equal(image_rows(*posts(folder), join(1), StopSignals()), plain)


def test_a_cache_that_cannot_be_written_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "file"))
    with pytest.raises(AgreedError, match="Not a directory"):
        image_rows(*posts(folder), join(1), StopSignals())


def on_two_nodes(argument: str) -> None:
    """Each rank has a cache of its own; then both have that of the first."""
    folder = Path(argument)
    ranks = join(1)
    split, settings = posts(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        reading = Reading(patch)
        for cache, read in ((f"of-{ranks.rank}", True), ("of-0", False), ("both", ranks.first)):
            os.environ["MEMO_CACHE"] = str(folder / cache)
            reading.batches = 0
            rows = image_rows(split, settings, ranks, StopSignals())
            assert bool(reading.batches) == read, cache
            assert np.isnan(rows).all(axis=1).sum() == 7


def test_nodes_with_caches_of_their_own_read_for_themselves(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(folder)
    run_ranks(on_two_nodes, str(tmp_path), 2, limit_s=120)
