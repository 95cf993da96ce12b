"""Runs that are stopped or killed inside a fold, and go on: the same bits as without."""

import errno
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from data_pipeline.errors import AgreedError, UserError
from memo.settings import load_config
from memo.training.distributed import Ranks
from memo.training.engine import Batch, Engine, StepResult
from memo.training.heartbeat import Heartbeat
from memo.tuning import course as course_module
from memo.tuning import run as run_module
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Course, StoppedError
from memo.tuning.results import fold_folder
from memo.tuning.run import finetune, finetune_each
from tests.distributed import run_ranks
from tests.memo.multitask.small_system import (
    system_config,
    write_asp,
    write_sog,
    write_trimodal,
)
from tests.memo.tuning.small_tuning import tuning_config, write_task

THREE = "training.epochs=3"


class KilledError(Exception):
    """Stands for SIGKILL."""


class Counting:
    """Counts the steps of an engine; after one of them something happens."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []
        self.after: int | None = None
        self.signal: int | None = None
        plain = Engine.step

        def step(engine: Engine, batches: Sequence[Batch], number: int, lr: float) -> StepResult:
            result = plain(engine, batches, number, lr)
            self.steps.append(number)
            if len(self.steps) == self.after:
                if self.signal is None:
                    raise KilledError
                os.kill(os.getpid(), self.signal)
            return result

        patch.setattr(Engine, "step", step)

    def run(self, config: FinetuneConfig, after: int | None, by: int | None) -> list[int]:
        """Run until so many steps are taken; the numbers of the steps."""
        self.steps, self.after, self.signal = [], after, by
        status = finetune(config)
        assert status == (0 if by is None else 130 if by == signal.SIGINT else 85)
        return self.steps


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def outcome(run: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A fold's record without its time, and its tensors' files."""
    folder = fold_folder(run, 0, 1)
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    found.pop("seconds", None)  # a sequence has none
    tensors = folder.rglob("*.safetensors")
    return found, {str(one.relative_to(folder)): one.read_bytes() for one in tensors}


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("sog", "asp", "posts")}
    return {
        "sog": write_sog(folders["sog"]),
        "asp": write_asp(folders["asp"]),
        "posts": write_trimodal(folders["posts"]),
    }


DIVIDED = ("distribution.zero_stage=3", "distribution.precision=fp32")
RUNS = {
    "adapter": ("adapter", THREE, "training.patterns=seven"),
    "bf16": ("full", THREE, "distribution.zero_stage=1", "distribution.precision=bf16"),
    "divided": ("full", THREE, *DIVIDED),
    "divided, prompt": ("prompt", THREE, *DIVIDED),
    "maml": ("sog", THREE, "sog.training=maml", "sog.maml.batches=2"),
    "unlabelled": ("asp", THREE, "asp_mtl.unlabelled=true", "asp_mtl.sampling=proportional"),
    "left out": ("asp", THREE, "asp_mtl.leave_out=books"),
    "batch norm, means": ("posts", THREE, "trimodal.image.frozen=false", "trimodal.fusion=mean"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_fold_goes_on_where_it_was_to_the_same_bits(
    name: str,
    task: Path,
    backbone: Path,
    systems: dict[str, Path],
    tmp_path: Path,
    counting: Counting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def config(run: str) -> FinetuneConfig:
        kind, *changes = RUNS[name]
        if kind in systems:
            return system_config(systems[kind], tmp_path / run, *changes)
        return tuning_config(task, backbone, tmp_path / run, kind, "folds=[0]", *changes)

    def goes_on(run: str, at: int) -> None:
        assert not (tmp_path / run / "folds").exists()
        assert counting.run(config(run), third, signal.SIGTERM) == plain[at : at + third]
        assert counting.run(config(run), None, None) == plain[at + third :]
        assert outcome(tmp_path / run) == outcome(tmp_path / "plain")
        assert not (tmp_path / run / "partial").exists()

    monkeypatch.setattr("memo.training.engine.supports_bf16", lambda: True)  # slowly, if need be
    plain = counting.run(config("plain"), None, None)
    third = len(plain) // 3
    assert counting.run(config("stopped"), third, signal.SIGUSR1) == plain[:third]
    goes_on("stopped", third)
    monkeypatch.setattr(course_module, "KEEP_S", 0.0)
    with pytest.raises(KilledError):
        counting.run(config("killed"), third, None)
    goes_on("killed", third - 1)  # the last step was not kept any more


def test_a_sequence_goes_on_in_the_stage_where_it_was(
    corpus: Path, backbone: Path, tmp_path: Path, counting: Counting
) -> None:
    tasks = [write_task(tmp_path / f"{name}.yaml", corpus) for name in "ab"]
    few = "continual.fisher_clips=9"

    def config(run: str) -> FinetuneConfig:
        one = tuning_config(tasks[0], backbone, tmp_path / run, "ewc", "folds=[0]", few)
        values = one.model_dump(mode="json") | {"task": None, "tasks": [str(x) for x in tasks]}
        return FinetuneConfig.model_validate(values)

    plain = counting.run(config("plain"), None, None)
    late = 3 * len(plain) // 4
    assert counting.run(config("run"), late, signal.SIGINT) == plain[:late]
    assert counting.run(config("run"), None, None) == plain[late:]
    assert outcome(tmp_path / "run") == outcome(tmp_path / "plain")


def test_what_is_done_is_not_trained_again(
    task: Path, backbone: Path, tmp_path: Path, counting: Counting
) -> None:
    """Stopped after the last step: the epoch is judged, and kept, before all leave."""
    config, plain = (
        tuning_config(task, backbone, tmp_path / run, "adapter", "folds=[0]")
        for run in ("run", "plain")
    )
    last = len(counting.run(plain, None, None))
    counting.run(config, last, signal.SIGTERM)
    assert counting.run(config, None, None) == []
    assert outcome(tmp_path / "run") == outcome(tmp_path / "plain")


@pytest.mark.parametrize("folds", ["[0]", "[0,1]"])
def test_a_request_that_comes_while_a_fold_is_saved_is_heard(
    folds: str, task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the next fold nor the next combination is begun."""
    save = run_module._save_fold

    def asked(*about: Any) -> None:  # noqa: ANN401
        save(*about)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_module, "_save_fold", asked)
    changes = [f"folds={folds}", "training.epochs=1"]
    first, second = (
        tuning_config(task, backbone, tmp_path / run, "linear", *changes) for run in "ab"
    )
    assert finetune_each([first, second]) == 85
    assert fold_folder(first.folder, 0, 1).exists()
    assert (first.folder / "results.json").exists() == (folds == "[0]")
    assert not (first.folder / "partial").exists()
    assert not second.folder.exists()


def test_a_second_request_does_not_end_a_rank_that_waits_for_the_others(
    task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither inside of the watch over the ranks nor after it."""
    heard, largest, wait = list[tuple[str, bool]](), Ranks.max, Heartbeat._wait_for_the_others

    def note(where: str) -> None:
        heard.append((where, signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL))

    def last(ranks: Ranks, number: int) -> int:
        note("all")
        return largest(ranks, number)

    def waiting(heart: Heartbeat) -> None:
        note("watched")
        wait(heart)

    def stopped(*_: object) -> None:
        monkeypatch.setattr(Ranks, "max", last)
        raise StoppedError(signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.setattr(run_module, "_finetune", stopped)
    monkeypatch.setattr(Heartbeat, "_wait_for_the_others", waiting)
    assert finetune(tuning_config(task, backbone, tmp_path / "run", "linear")) == 85
    assert heard == [("watched", True), ("all", True)]


def test_what_was_altered_is_refused(
    task: Path, backbone: Path, tmp_path: Path, counting: Counting
) -> None:
    config = tuning_config(task, backbone, tmp_path / "run", "adapter", "folds=[0]")
    counting.run(config, 3, signal.SIGTERM)
    (kept,) = (tmp_path / "run" / "partial" / "fold-0-seed-1").glob("step-*")
    content = (kept / "optimizer.safetensors").read_bytes()
    (kept / "optimizer.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"optimizer.safetensors was altered.*remove .*step-0"):
        finetune(config)


@pytest.mark.parametrize("asked", [False, True])
def test_a_full_disk_is_told_of(
    asked: bool,
    task: Path,
    backbone: Path,
    tmp_path: Path,
    counting: Counting,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Unless somebody has asked to stop, training goes on."""

    def full(*_: object) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(course_module, "write_whole", full)
    monkeypatch.setattr(course_module, "KEEP_S", 300.0 if asked else 0.0)
    config = tuning_config(task, backbone, tmp_path / "run", "adapter", "folds=[0]")
    if asked:
        with pytest.raises(AgreedError, match="no space left"):
            counting.run(config, 3, signal.SIGTERM)
    else:
        counting.run(config, None, None)
        assert "fold 0, seed 1: not kept at step 1: no space left" in capsys.readouterr().out


def test_what_was_taken_up_lets_go_of_its_files(
    task: Path,
    backbone: Path,
    tmp_path: Path,
    counting: Counting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NFS does not remove a folder as long as a file in it is mapped."""
    config = tuning_config(task, backbone, tmp_path / "run", "adapter", "folds=[0]")
    plain = tuning_config(task, backbone, tmp_path / "plain", "adapter", "folds=[0]")
    all_steps = len(counting.run(plain, None, None))
    counting.run(config, all_steps // 2 + 1, signal.SIGTERM)  # an epoch is done
    mapped: list[str] = []
    take_up = Course._take_up

    def look(course: Course) -> None:
        take_up(course)
        assert course.best.number == 1
        maps = Path("/proc/self/maps").read_text().splitlines()
        mapped.extend(line for line in maps if "best.safetensors" in line)

    monkeypatch.setattr(Course, "_take_up", look)
    counting.run(config, None, None)
    assert mapped == []
    assert outcome(tmp_path / "run") == outcome(tmp_path / "plain")


def test_an_older_keep_that_stays_does_not_end_the_fold(
    task: Path,
    backbone: Path,
    tmp_path: Path,
    counting: Counting,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def busy(path: Path) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

    monkeypatch.setattr(course_module, "shutil", SimpleNamespace(rmtree=busy))
    monkeypatch.setattr(course_module, "KEEP_S", 0.0)
    config = tuning_config(task, backbone, tmp_path / "run", "adapter", "folds=[0]")
    steps = counting.run(config, None, None)
    assert len(steps) > 2
    assert re.search(r"step-00000001 cannot be removed: .*not empty", capsys.readouterr().out)


def one_is_told(folder: str) -> None:
    """On each of two ranks: the second alone gets a signal; then both go on."""
    config, plain = (
        load_config(FinetuneConfig, Path(folder) / name, []) for name in ("run.yaml", "plain.yaml")
    )
    with pytest.MonkeyPatch.context() as patch:
        counting = Counting(patch)
        counting.after = 5 if os.environ["RANK"] == "1" else None
        counting.signal = signal.SIGUSR1
        assert finetune(config) == 85
        assert counting.steps == [0, 1, 2, 3, 4]
        assert counting.run(config, None, None)[0] == 5
        assert counting.run(plain, None, None)[0] == 0


def test_two_ranks_stop_together_and_go_on(task: Path, backbone: Path, tmp_path: Path) -> None:
    changes = ["folds=[0]", *DIVIDED]
    for run in ("run", "plain"):
        config = tuning_config(task, backbone, tmp_path / run, "full", *changes)
        values = yaml.safe_dump(config.model_dump(mode="json"))
        (tmp_path / f"{run}.yaml").write_text(values)
    run_ranks(one_is_told, str(tmp_path), 2)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "plain")
