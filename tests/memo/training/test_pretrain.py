"""Whole runs on a small demo corpus: stopped and resumed, on one rank and on two."""

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.corpora.demo import write_demo
from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch
from data_pipeline.shards.reader import open_dataset
from memo.config import PretrainConfig
from memo.evaluation.validate import validate
from memo.objectives.base import LossSum
from memo.settings import load_config
from memo.tokenizer import train_sentencepiece
from memo.training import loop as loop_module
from memo.training import pretrain as pretrain_module
from memo.training.checkpoint import Progress
from memo.training.distributed import Ranks
from memo.training.engine import StepResult
from memo.training.loop import Run, train
from memo.training.monitor import Monitor
from memo.training.pretrain import pretrain
from memo.training.progress import Display
from memo.training.saving import write_checkpoint
from memo.training.signals import REQUEUE
from memo.training.state import TrainingState
from tests.distributed import run_ranks

SAMPLES, BATCH, STEPS = 50, 20, 10
"""An epoch ends within step 3 and at the end of step 5."""

CUTS = (2, 3, 5)
"""Resumed from: inside an epoch, inside the next one, at an epoch's end."""

TIMES = ("samples_per_s", "tokens_per_s", "mfu", "data_wait", "step_s", "read_mb_per_s")
SETTINGS = (
    f"steps={STEPS}",
    f"batch.global_batch={BATCH}",
    "log_every=1",
    "valid_every=5",
    "checkpoint_every=1",
    "keep_checkpoints=null",
    "optimizer.lr=0.01",
    "optimizer.warmup_steps=2",
    "model.hidden=16",
    "model.layers=1",
    "model.heads=2",
    "model.ffn=32",
    "masking.drop_probability=0.2",
    "threads=1",
)
WITHOUT_DROPOUT = ("model.dropout=0", "model.attention_dropout=0")


def config(folder: Path, name: str, extra: Sequence[str] = ()) -> PretrainConfig:
    places = (f"name={name}", f"run_dir={folder / name}", f"data.dataset={folder / 'data'}")
    return load_config(PretrainConfig, None, [*SETTINGS, *places, *extra])


def take_over(folder: Path, source: str, name: str, step: int) -> None:
    """A run as it was when `source` had just saved this step, with later rows in its log."""
    saved = f"step-{step:08d}"
    checkpoints = folder / name / "checkpoints"
    shutil.copytree(folder / source / "checkpoints" / saved, checkpoints / saved)
    (checkpoints / "latest").write_text(f"{saved}\n")
    shutil.copy(folder / source / "metrics.jsonl", folder / name)


def runs(argument: str) -> None:
    """On every rank: a whole run, runs resumed from its cuts, and runs that must agree with it."""
    folder = Path(argument)
    ranks = os.environ["WORLD_SIZE"]
    pretrain(config(folder, f"whole-{ranks}"), "auto")
    for cut in CUTS:
        if os.environ["RANK"] == "0":
            take_over(folder, f"whole-{ranks}", f"from-{cut}-{ranks}", cut)
        while not (folder / f"from-{cut}-{ranks}" / "metrics.jsonl").exists():
            time.sleep(0.05)
        pretrain(config(folder, f"from-{cut}-{ranks}"), "auto")
    pretrain(config(folder, f"plain-{ranks}", WITHOUT_DROPOUT), "auto")
    sources = (
        f"{{dataset: {folder / 'data'}, weight: 1}}, {{dataset: {folder / 'more'}, weight: 2}}"
    )
    mixed = ("data.dataset=null", f"data.mixture=[{sources}]", "batch.micro_batches=2")
    pretrain(config(folder, f"mixed-{ranks}", (*WITHOUT_DROPOUT, *mixed)), "auto")
    if ranks == "1":
        small = (*WITHOUT_DROPOUT, "batch.token_budget=140")
        pretrain(config(folder, "small-batches", small), "auto")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pretrain")
    write_demo(place / "data", train=SAMPLES, valid=10)
    split = open_dataset(place / "data").split("train")
    texts = [split.read_text(sample) or "" for sample in range(SAMPLES)]
    train_sentencepiece(texts, place / "data" / "tokenizer", 100)
    shutil.copytree(place / "data", place / "more")
    record = (place / "more" / "dataset.json").read_text()
    (place / "more" / "dataset.json").write_text(record.replace('"demo"', '"more"', 1))
    return place


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """The folder when all runs have been made."""
    for ranks in (1, 2):
        run_ranks(runs, str(folder), ranks)
    return folder


def rows(run: Path) -> list[dict[str, Any]]:
    """The log without what the clock decides."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_stopped_and_resumed_is_never_stopped(done: Path, ranks: int, cut: int) -> None:
    whole, resumed = done / f"whole-{ranks}", done / f"from-{cut}-{ranks}"
    assert rows(resumed) == rows(whole)
    last = f"checkpoints/step-{STEPS:08d}"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (resumed / last / name).read_bytes() == (whole / last / name).read_bytes()


@pytest.mark.slow
def test_ranks_and_micro_batches_do_not_change_the_losses(done: Path) -> None:
    one = losses(done / "plain-1")
    assert len(one) == STEPS
    np.testing.assert_allclose(losses(done / "plain-2"), one, rtol=1e-5)
    np.testing.assert_allclose(losses(done / "small-batches"), one, rtol=1e-5)


@pytest.mark.slow
def test_a_mixture_in_full_micro_batches_is_the_same_on_any_ranks(done: Path) -> None:
    one, two = (rows(done / f"mixed-{ranks}") for ranks in (1, 2))
    np.testing.assert_allclose(losses(done / "mixed-2"), losses(done / "mixed-1"), rtol=1e-5)
    samples = [row["samples"] for row in one if "samples" in row]
    assert len(set(np.diff([0, *samples]))) > 1  # as many as fill the micro-batches
    assert samples == [row["samples"] for row in two if "samples" in row]
    last = [row for row in one if "share/more" in row][-1]
    assert last["share/demo"] + last["share/more"] == pytest.approx(1)
    assert last["share/more"] == pytest.approx(2 / 3, abs=0.1)
    assert last["epochs/more"] == pytest.approx(last["share/more"] * last["samples"] / SAMPLES)
    (valid,) = [row for row in one if row["step"] == STEPS and "valid/loss" in row]
    assert valid["valid/demo/loss"] == pytest.approx(valid["valid/more/loss"])
    assert valid["valid/demo/loss"] == pytest.approx(valid["valid/loss"])


@pytest.mark.slow
def test_the_log_has_the_promised_columns_and_the_run_its_files(done: Path) -> None:
    first = json.loads((done / "whole-1" / "metrics.jsonl").read_text().splitlines()[0])
    names = ("wwmlm", "span_mvfr", "span_mvfc_kl", "span_mafr")
    expected = {"step", "epoch", "samples", "tokens", "lr", "loss", "grad_norm", *TIMES}
    per_objective = {f"{kind}/{name}" for kind in ("loss", "metric") for name in names}
    assert first.keys() <= expected | per_objective
    assert expected <= first.keys()
    for name in ("config.yaml", "report.html", "tensorboard", "checkpoints/latest"):
        assert (done / "whole-1" / name).exists()


@pytest.mark.slow
def test_a_signal_saves_the_step_and_asks_to_be_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Run, monitor: Monitor | None, display: Display) -> int | None:
        step = run.engine.step

        def step_and_signal(batches: Sequence[PackedBatch], number: int, lr: float) -> StepResult:
            if number == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
            return step(batches, number, lr)

        monkeypatch.setattr(run.engine, "step", step_and_signal)
        return train(run, monitor, display)

    monkeypatch.setattr(pretrain_module, "train", interrupted)
    assert pretrain(config(folder, "signalled"), "auto") == REQUEUE
    assert (folder / "signalled" / "checkpoints" / "latest").read_text() == "step-00000002\n"


@pytest.mark.slow
def test_a_second_request_does_not_end_a_rank_that_waits_for_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest, heard = Ranks.max, list[bool]()

    def last(ranks: Ranks, number: int) -> int:
        heard.append(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
        return largest(ranks, number)

    def stopped(run: Run, monitor: Monitor | None, display: Display) -> int | None:
        monkeypatch.setattr(Ranks, "max", last)
        return signal.SIGTERM

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.setattr(pretrain_module, "train", stopped)
    assert pretrain(config(folder, "asked-twice"), "auto") == REQUEUE
    assert heard == [True]


@pytest.mark.slow
@pytest.mark.parametrize(("step", "batch"), [(5, 2), (STEPS, 1)])
def test_a_signal_ends_a_validation_which_is_made_up_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, batch: int
) -> None:
    """Also if another signal comes while it is made up for."""
    name = f"interrupted-{step}-{batch}"
    before: list[None] = []
    left = folder / name

    def signalled(*arguments: Any, **named: Any) -> dict[str, LossSum]:  # noqa: ANN401
        next_batch = named["next_batch"]

        def next_and_signal() -> None:
            before.append(None)
            if len(before) == batch:
                os.kill(os.getpid(), signal.SIGTERM)
            next_batch()

        return validate(*arguments, **{**named, "next_batch": next_and_signal})

    steps = [f"valid_every={step}"]
    pretrain(config(folder, f"{name}-whole", steps), "auto")
    monkeypatch.setattr(loop_module, "validate", signalled)
    for _ in range(2):
        before.clear()
        assert pretrain(config(folder, name, steps), "auto") == REQUEUE
        assert len(before) == batch
        assert [row["step"] for row in rows(left)] == list(range(1, step + 1))
        assert (left / "checkpoints" / "latest").read_text() == f"step-{step:08d}\n"
        assert not (left / "report.html").exists()
    monkeypatch.undo()
    assert pretrain(config(folder, name, steps), "auto") == 0
    assert rows(left) == rows(folder / f"{name}-whole")
    assert (left / "report.html").exists()


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_report_makes_up_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(folder, "unreported", ["steps=2"])
    page = folder / "unreported" / "report.html"

    def killed(run: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain_module, "write_report", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, "auto")
    assert not page.exists()
    monkeypatch.undo()
    assert pretrain(settings, "auto") == 0
    written = page.read_bytes()
    page.write_text("mine")
    assert pretrain(settings, "auto") == 0
    assert page.read_text() == "mine"  # it is there, so nothing is owed
    os.utime(page, (0, 0))  # as one from before the run was told to take more steps
    assert pretrain(settings, "auto") == 0
    assert page.read_bytes() == written
    elsewhere = config(folder, "elsewhere", ["steps=2"])
    assert pretrain(elsewhere, str(folder / "unreported")) == 0
    assert not (folder / "elsewhere" / "report.html").exists()


@pytest.mark.slow
def test_the_log_is_on_disk_before_a_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder / "synced"
    on_disk: list[dict[str, Any]] = []

    def sync(monitor: Monitor) -> None:
        on_disk[:] = rows(run)

    def write(root: Path, state: TrainingState, progress: Progress, *about: Any) -> Path:  # noqa: ANN401
        assert [row["step"] for row in on_disk][: progress.step] == [1, 2, 3, 4][: progress.step]
        return write_checkpoint(root, state, progress, *about)

    monkeypatch.setattr(Monitor, "sync", sync)
    monkeypatch.setattr(loop_module, "write_checkpoint", write)
    assert pretrain(config(folder, "synced", ["steps=4", "checkpoint_every=2"]), "auto") == 0
    assert (run / "checkpoints" / "latest").read_text() == "step-00000004\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["data.face_dim=342"], r"data\.face_dim=342, but the rows of .* have 48"),
        (["data.tokenizer=/nowhere"], "/nowhere"),
        (["data.train_split=test"], "splits are: train, valid|test"),
        (["model.heads=3"], "hidden=16 is no multiple of heads=3"),
        (["batch.token_budget=50"], "longest sequence"),
        (["objectives.wwmml.ratio=1"], "did you mean 'wwmlm'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    folder: Path, extra: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pretrain(config(folder, "refused", extra), "auto")
    assert "\n" not in str(caught.value)
    assert not (folder / "refused").exists()


@pytest.mark.slow
def test_processes_that_make_the_batches_change_no_bit(folder: Path) -> None:
    for workers in (0, 2):
        run = config(folder, f"workers-{workers}", [f"data.workers={workers}", "steps=4"])
        pretrain(run, "auto")
    one, other = folder / "workers-0", folder / "workers-2"
    assert rows(one) == rows(other)
    for name in ("model.safetensors", "optimizer.safetensors"):
        last = Path("checkpoints", "step-00000004", name)
        assert (one / last).read_bytes() == (other / last).read_bytes()


@pytest.mark.slow
def test_a_run_in_the_way_is_not_overwritten(folder: Path) -> None:
    run = folder / "in-the-way"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has a run in it"):
        pretrain(config(folder, "in-the-way"), "never")
