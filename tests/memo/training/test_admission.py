"""Two runs in one folder, and ranks that differ, are refused before anything is trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import data_pipeline
from data_pipeline.errors import AgreedError, UserError
from memo.config import PretrainConfig
from memo.training.admission import launch_facts, refuse_different, refuse_other_data, sole_run
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
    [
        ("steps", "17"),
        ("objectives.wwmlm.ratio", "9.0"),
        ("version of torch", "0.1"),
        ("a setting of another version", "7"),
    ],
)
def test_the_first_difference_is_named_with_both_values(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    facts = launch_facts(PretrainConfig())
    with pytest.raises(AgreedError, match="start all ranks with the same") as caught:
        check(monkeypatch, facts, facts, {**facts, name: value})
    assert f"rank 2 on node2 has {name}={value}, rank 0 on " in str(caught.value)
    assert f" {facts.get(name, 'nothing')};" in str(caught.value)


def test_other_code_of_the_same_version_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = launch_facts(PretrainConfig())
    (tmp_path / "order.py").write_text("changed")
    monkeypatch.setattr(data_pipeline, "__path__", [str(tmp_path)])
    after = launch_facts(PretrainConfig())
    assert {name for name in after if after[name] != before[name]} == {"code of data_pipeline"}


def test_a_setting_that_another_rank_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = launch_facts(PretrainConfig())
    with pytest.raises(AgreedError, match=r"rank 1 on node1 has seed=nothing, rank 0 on"):
        check(monkeypatch, facts, {name: one for name, one in facts.items() if name != "seed"})


@pytest.mark.parametrize("others", [[5, 5], [5, 6], [1, 9]])
def test_ranks_that_see_other_data_are_noticed(
    monkeypatch: pytest.MonkeyPatch, others: list[int]
) -> None:
    """Even where the mean of their digests is that of this one."""

    def total(_: Ranks, own: torch.Tensor) -> torch.Tensor:
        return own + torch.tensor([sum(others), sum(one**2 for one in others)])

    monkeypatch.setattr(Ranks, "sum", total)
    ranks = Ranks(0, 3, torch.device("cpu"))
    if others == [5, 5]:
        refuse_other_data(ranks, 5)
    else:
        with pytest.raises(AgreedError, match="their copies of it differ"):
            refuse_other_data(ranks, 5)


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
