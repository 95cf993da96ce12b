"""A rehearsal changes nothing; what does not fit is refused by all; `auto` finds what fits."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data_pipeline.errors import UserError
from memo.training import rehearsal
from memo.training.engine import Engine
from memo.training.memory import ROOT, entry_bytes
from memo.training.optimizer import learning_rate
from memo.training.pretrain import pretrain
from tests.distributed import run_ranks
from tests.memo.training.small_run import checkpoint, logged, small_config, write_small_dataset
from tests.memo.training.test_engine import BAD_STEP, SETTINGS, STEPS, batches, engine
from tests.ports import free_ports

MIB = 2**20
LARGER = ("model.hidden=64", "model.layers=2", "model.ffn=256", "batch.global_batch=160", "steps=1")
"""A model and a global batch whose micro-batches take some 100 MiB."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("rehearsal") / "dataset")


def trained(made: Engine, rehearsing: bool) -> list[Any]:
    """All that a few steps leave behind: losses, norms, weights, moments, the generator."""
    found: list[Any] = []
    for step in range(BAD_STEP - 1):
        mine = batches(step, made.ranks.rank, made.ranks.count, 2)
        if rehearsing:
            made.rehearse(batches(STEPS, made.ranks.rank, made.ranks.count, 3))
        result = made.step(mine, step, learning_rate(step, SETTINGS, STEPS))
        found += [result.loss, result.grad_norm, torch.get_rng_state()]
    state = made.collect()
    if state is not None:
        found += [*state.model.values(), *state.moments.values(), state.updates]
    return found


def compare(argument: str) -> None:
    """On every rank."""
    del argument
    for stage in range(4):
        plain, rehearsed = (trained(engine(stage), rehearsing) for rehearsing in (False, True))
        assert len(plain) == len(rehearsed)
        for one, other in zip(plain, rehearsed, strict=True):
            same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
            assert same, stage


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_rehearsal_changes_no_bit(ranks: int) -> None:
    run_ranks(compare, "", ranks)


@pytest.mark.slow
def test_a_run_with_a_rehearsal_is_the_run_without(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(small_config(dataset, tmp_path / "with"), "auto")
    monkeypatch.setattr(rehearsal, "step", lambda *_: None)
    pretrain(small_config(dataset, tmp_path / "without"), "auto")
    assert logged(tmp_path / "with") == logged(tmp_path / "without")
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (checkpoint(tmp_path / run, 5) / name for run in ("with", "without"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_a_number_that_does(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "free_bytes", lambda _: 96 * MIB)
    config = small_config(dataset, tmp_path / "run", *LARGER, "batch.token_budget=20000")
    with pytest.raises(UserError, match=r"of 20,000 tokens .* 0\.09 GiB are free; set") as caught:
        pretrain(config, "auto")
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    number = int(str(caught.value).split("batch.token_budget=")[1].split()[0])
    fitting = small_config(dataset, tmp_path / "run", *LARGER, f"batch.token_budget={number}")
    assert pretrain(fitting, "auto") == 0


@pytest.mark.slow
def test_auto_finds_what_fits_and_a_resumed_run_keeps_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = (*LARGER, "batch.token_budget=auto")
    config = small_config(dataset, tmp_path / "run", *auto)
    monkeypatch.setattr(rehearsal, "free_bytes", lambda _: 2 * MIB)
    with pytest.raises(UserError, match="not even one sequence of 132 tokens fits"):
        pretrain(config, "auto")
    monkeypatch.setattr(rehearsal, "free_bytes", lambda _: 128 * MIB)
    assert pretrain(config, "auto") == 0
    batch = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["batch"]
    assert 132 < batch["token_budget"] < 160 * 132
    assert batch["global_batch"] == 160
    assert [row["samples"] for row in logged(tmp_path / "run") if "samples" in row] == [160]
    monkeypatch.undo()
    more = small_config(dataset, tmp_path / "run", *auto, "steps=2")
    assert pretrain(more, "auto") == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["batch"]
    assert kept == batch
    plenty = small_config(dataset, tmp_path / "plenty", *auto, "batch.global_batch=8")
    assert pretrain(plenty, "auto") == 0
    found = yaml.safe_load((tmp_path / "plenty" / "config.yaml").read_text())["batch"]
    assert found["token_budget"] == 8 * 132  # the global batch needs no more


def short_rank(folder: Path) -> int:
    """One of two ranks, of which the second may map 950 MiB more than when it began."""
    if os.environ["RANK"] == "1":
        most = entry_bytes(ROOT / "proc/self/status", "VmSize") + 950 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    settings = (*LARGER, "batch.token_budget=30000", "batch.global_batch=4000")
    try:
        return pretrain(small_config(folder / "dataset", folder / "run", *settings), "auto")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


@pytest.mark.slow
def test_all_ranks_end_with_one_line_if_one_has_too_little_memory(
    dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "dataset").symlink_to(dataset)
    module = "tests.memo.training.test_rehearsal"
    code = f"from {module} import *; sys.exit(short_rank(Path({str(tmp_path)!r})))"
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [one.communicate(timeout=200)[1] for one in processes]
    finally:
        for one in processes:
            one.kill()
    assert [one.returncode for one in processes] == [2, 2], said
    assert "rank 0 of 2 ends, for rank 1 on" in said[0]
    assert "of 30,000 tokens (batch.token_budget) do not fit into memory" in said[0]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
