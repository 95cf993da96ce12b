"""What the loop writes into the log of a whole, small run."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.stream import TrainStream
from memo.training import loop as loop_module
from memo.training.pretrain import pretrain
from tests.memo.training.small_run import (
    GLOBAL_BATCH,
    logged,
    small_config,
    timed,
    write_small_dataset,
)

WEIGHTS = {"wwmlm": 2.0, "span_mvfr": 0.25, "span_mvfc_kl": 1.0, "span_mafr": 0.5}


def clock() -> Iterator[float]:
    """Step n takes 2^n s, with a pause before it."""
    now = 0.0
    for step in range(5):
        yield (now := now + 100)
        yield (now := now + 2**step)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a mixture of which one has no validation split, with a row every other step."""
    place = tmp_path_factory.mktemp("loop")
    demo, more = write_small_dataset(place / "demo"), place / "more"
    shutil.copytree(demo, more)
    record = json.loads((more / "dataset.json").read_text("utf8"))
    train = [one for one in record["shards"] if one["split"] == "train"]
    (more / "dataset.json").write_text(json.dumps({**record, "name": "more", "shards": train}))
    sources = f"data.mixture=[{{dataset: {demo}, weight: 1}}, {{dataset: {more}, weight: 3}}]"
    times = clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMO_CACHE", str(place / "cache"))
        patch.setattr(loop_module, "perf_counter", lambda: next(times))
        patch.setattr(TrainStream, "wait_s", 1.0)
        weights = [f"objectives.{name}.weight={weight}" for name, weight in WEIGHTS.items()]
        changes = ("data.dataset=null", sources, "log_every=2", "valid_every=5", *weights)
        assert pretrain(small_config(demo, place / "run", *changes), "never") == 0
    return place / "run"


def test_a_row_tells_of_all_steps_since_the_one_before(run: Path) -> None:
    rows = [row for row in timed(run) if "step_s" in row]
    seconds = [(1 + 1) + (2 + 1), (4 + 1) + (8 + 1), 16 + 1]
    for row, time, steps in zip(rows, seconds, (2, 2, 1), strict=True):
        assert row["step_s"] == pytest.approx(time / steps)
        assert row["data_wait"] == pytest.approx(steps / time)
        assert row["samples_per_s"] == pytest.approx(steps * GLOBAL_BATCH / time)
    tokens = [0, *(row["tokens"] for row in rows)]
    for row, time, before in zip(rows, seconds, tokens, strict=False):
        assert row["tokens_per_s"] == pytest.approx((row["tokens"] - before) / time)
        assert row["mfu"] > 0


def test_the_loss_is_the_weighted_sum_of_the_objectives(run: Path) -> None:
    for row in logged(run):
        of = "valid/" if "valid/loss" in row else ""
        there = {name: row.get(f"{of}loss/{name}", 0.0) for name in WEIGHTS}
        expected = sum(WEIGHTS[name] * loss for name, loss in there.items())
        assert row[f"{of}loss"] == pytest.approx(expected)


def test_a_mixture_is_logged_dataset_by_dataset(run: Path) -> None:
    *rows, valid = logged(run)
    assert valid["valid/demo/loss"] == valid["valid/loss"]
    assert "valid/more/loss" not in valid
    for row in rows:
        assert (row["share_wanted/demo"], row["share_wanted/more"]) == (0.25, 0.75)
        assert row["share/demo"] + row["share/more"] == pytest.approx(1)
