"""Who a process is under each launcher, and what two ranks decide together."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.shards.reader import open_dataset
from memo.config import Optimizer
from memo.training.distributed import (
    Ranks,
    choose_gpu,
    describe_process,
    join,
    refuse_shared_gpus,
    share_of_cores,
)
from memo.training.optimizer import learning_rate
from memo.training.pretrain import pretrain
from memo.training.signals import REQUEUE
from tests.distributed import run_ranks
from tests.memo.training.small_run import (
    GLOBAL_BATCH,
    checkpoint,
    logged,
    small_config,
    write_small_dataset,
)

SLURM = {
    "SLURM_JOB_ID": "70",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def described(**environment: str) -> Mapping[str, str]:
    describe_process(environment)
    return environment


def test_a_process_without_a_launcher_is_alone() -> None:
    alone = described(HOME="/")
    assert (alone["RANK"], alone["WORLD_SIZE"], alone["LOCAL_RANK"]) == ("0", "1", "0")
    assert alone["MASTER_ADDR"] == "127.0.0.1"
    assert 0 < int(alone["MASTER_PORT"]) < 65536


def test_what_torchrun_says_holds() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_PORT": "1", **SLURM}
    assert described(**said) == said


def test_srun_is_understood() -> None:
    task = described(**SLURM)
    assert (task["RANK"], task["WORLD_SIZE"], task["LOCAL_RANK"]) == ("5", "8", "1")
    assert (task["LOCAL_WORLD_SIZE"], task["MASTER_ADDR"]) == ("4", "gpu07")
    others = {**SLURM, "SLURM_PROCID": "6", "SLURM_LOCALID": "2"}
    assert described(**others)["MASTER_PORT"] == task["MASTER_PORT"]
    assert described(**SLURM | {"SLURM_JOB_ID": "71"})["MASTER_PORT"] != task["MASTER_PORT"]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("cpu1", "cpu1"),
        ("a,b", "a"),
        ("n[2,4-6],x9", "n2"),
        ("r[1-2]n[3-4],x", "r1n3"),
        ("rack-1-[010-012]", "rack-1-010"),
    ],
)
def test_the_first_node_leads(nodes: str, first: str) -> None:
    assert described(**SLURM | {"SLURM_STEP_NODELIST": nodes})["MASTER_ADDR"] == first


@pytest.mark.parametrize(("node", "tasks"), [("0", "4"), ("1", "4"), ("2", "12"), ("3", "1")])
def test_nodes_of_different_sizes_know_their_own(node: str, tasks: str) -> None:
    changes = {"SLURM_STEP_TASKS_PER_NODE": "4(x2),12,1", "SLURM_NODEID": node}
    assert described(**SLURM | changes)["LOCAL_WORLD_SIZE"] == tasks


def test_a_gpu_is_chosen_among_those_in_sight() -> None:
    second = {"LOCAL_RANK": "1"}
    assert choose_gpu(second, visible=4) == 1
    assert choose_gpu(second, visible=1) == 0, "each process is shown its own alone"
    assert second == {"LOCAL_RANK": "0"}
    with pytest.raises(UserError, match="process 2 of this node has no GPU: there are 2"):
        choose_gpu({"LOCAL_RANK": "2"}, visible=2)


def test_two_ranks_have_two_gpus() -> None:
    refuse_shared_gpus([("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-1")])
    with pytest.raises(AgreedError, match="ranks 1 and 3 on a have the same GPU"):
        refuse_shared_gpus([("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-2"), ("a", "GPU-2")])


@pytest.mark.parametrize(
    ("cores", "slurm", "threads"),
    [
        (32, {}, 8),  # nobody has bound anything
        (32, {"SLURM_CPUS_ON_NODE": "32"}, 8),
        (8, {"SLURM_CPUS_ON_NODE": "32"}, 8),  # bound to its own
        (8, {"SLURM_CPUS_PER_TASK": "8"}, 8),
        (32, {"SLURM_CPUS_PER_TASK": "6"}, 6),
    ],
)
def test_cores_that_are_a_tasks_own_are_not_divided_again(
    cores: int, slurm: dict[str, str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert share_of_cores(dict(described(**SLURM | slurm))) == threads


def test_cores_of_a_launcher_that_slurm_has_started_are_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    one = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_CPUS_PER_TASK": "16"}
    torchrun = {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert share_of_cores(one | torchrun) == 4


def test_ranks_wait_longer_for_one_another_than_one_may_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else those that wait for it would say that they have failed, and not the one that hangs."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "memo.training.distributed.deepspeed.init_distributed",
        lambda _, **settings: told.update(settings),
    )
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    join(1, hang_s=5000)
    assert told["timeout"].total_seconds() >= 5060


def test_a_batch_script_itself_is_alone() -> None:
    assert described(SLURM_JOB_ID="70", SLURM_NTASKS="8")["WORLD_SIZE"] == "1"


def decide(folder: str) -> None:
    """On both ranks."""
    ranks = join(1)
    assert ranks.count == 2
    assert ranks.sum(torch.tensor([1, ranks.rank])).tolist() == [2, 1]
    assert ranks.max(ranks.rank) == ranks.count - 1
    assert ranks.gather(ranks.rank) == list(range(ranks.count))
    with ranks.together():
        pass
    with pytest.raises(AgreedError, match="only here"):
        fail_on_the_second(ranks)
    stop_by_a_signal_to_one(Path(folder))
    stop_after_bad_steps(Path(folder))
    stop_after_bad_samples(Path(folder))


def fail_on_the_second(ranks: Ranks) -> None:
    with ranks.together():
        if not ranks.first:
            raise UserError("only here")


def stop_by_a_signal_to_one(folder: Path) -> None:
    """Only the first rank is told to stop, and only it says so to the scheduler."""
    first = os.environ["RANK"] == "0"

    def rate(step: int, settings: Optimizer, steps: int) -> float:
        if step == 1 and first:
            os.kill(os.getpid(), signal.SIGUSR1)
        return learning_rate(step, settings, steps)

    config = small_config(folder / "dataset", folder / "told", "distribution.zero_stage=2")
    with patch("memo.training.loop.learning_rate", rate):
        status = pretrain(config, "never")
    assert status == REQUEUE or not first


def stop_after_bad_steps(folder: Path) -> None:
    """A learning rate that drives the loss to infinity in the second step."""
    changes = ("optimizer.lr=1e30", "max_bad_steps=2", "log_every=100")
    with pytest.raises(AgreedError, match="2 non-finite steps in a row up to step 3") as caught:
        pretrain(small_config(folder / "dataset", folder / "wild", *changes), "never")
    assert "\n" not in str(caught.value)


def stop_after_bad_samples(folder: Path) -> None:
    """One bad sample, met by one rank: both end, with the same words."""
    changes = ("data.max_quarantined=0", f"run_dir={folder / 'bad-run'}")
    with pytest.raises(AgreedError, match="more than 0 bad samples; the last is train-00003"):
        pretrain(small_config(folder / "bad", folder / "bad-run", *changes), "never")


def spoil(dataset: Path) -> None:
    """Break one clip's record."""
    tar = next(
        one for one in dataset.glob("train-*.tar") if b"train-00003.json" in one.read_bytes()
    )
    content = bytearray(tar.read_bytes())
    at = content.index(b'"words"', content.index(b"train-00003.json"))
    content[at : at + 2] = b'"\xff'
    tar.write_bytes(content)


@pytest.mark.slow
def test_two_ranks_decide_alike(tmp_path: Path) -> None:
    write_small_dataset(tmp_path / "dataset")
    spoil(write_small_dataset(tmp_path / "bad"))
    run_ranks(decide, str(tmp_path), 2)
    assert checkpoint(tmp_path / "told", 2).exists()
    assert not checkpoint(tmp_path / "told", 3).exists()
    assert not checkpoint(tmp_path / "wild", 4).exists()
    assert logged(tmp_path / "wild") == [
        {"step": step, "skipped": 1, "skipped_in_a_row": step - 1} for step in (2, 3)
    ]
    split = open_dataset(tmp_path / "dataset").split("train")
    for line, step in zip(skipped(tmp_path / "wild"), (2, 3), strict=True):
        seen = np.arange(GLOBAL_BATCH) + (step - 1) * GLOBAL_BATCH
        samples = split.order(small_config(tmp_path, tmp_path).seed).visits(seen).samples
        assert line["step"] == step
        assert sorted(line["keys"]) == sorted(split.location(int(one))[1] for one in samples)


def skipped(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
