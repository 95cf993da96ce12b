"""Two runs in one folder, and ranks that differ, are refused before anything is trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_pipeline.errors import AgreedError, UserError
from memo.config import PretrainConfig
from memo.training.admission import launch_facts, refuse_different, sole_run
from memo.training.distributed import Ranks

HOLD = """
import sys, time
from pathlib import Path
from memo.training.admission import sole_run
with sole_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def check(monkeypatch: pytest.MonkeyPatch, *known: dict[str, object]) -> None:
    """On the first rank, the others of which know this."""
    others = [(f"node{rank}", facts) for rank, facts in enumerate(known) if rank]
    monkeypatch.setattr(Ranks, "gather", lambda _, value: [value, *others])
    refuse_different(Ranks(0, len(known), torch.device("cpu")), known[0])


def test_ranks_that_agree_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = launch_facts(PretrainConfig())
    check(monkeypatch, facts, dict(facts), dict(facts))
    assert facts["optimizer.lr"] == str(PretrainConfig().optimizer.lr)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", "17"), ("objectives.wwmlm.ratio", "9.0"), ("version of torch", "0.1")],
)
def test_the_first_difference_is_named_with_both_values(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    facts = launch_facts(PretrainConfig())
    with pytest.raises(AgreedError, match="start all ranks with the same") as caught:
        check(monkeypatch, facts, facts, {**facts, name: value})
    assert f"rank 2 on node2 has {name}={value}, rank 0 on " in str(caught.value)
    assert f" {facts[name]};" in str(caught.value)


def test_a_folder_is_of_one_run_at_a_time(tmp_path: Path) -> None:
    with sole_run(tmp_path):
        with pytest.raises(UserError) as caught, sole_run(tmp_path):
            pass
        assert f"is being trained into by process {os.getpid()} on " in str(caught.value)
        assert "set run_dir" in str(caught.value)
    with sole_run(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid} on"), sole_run(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with sole_run(tmp_path):
        pass
