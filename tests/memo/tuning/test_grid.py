"""Which settings and which folders every combination has."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.training.distributed import Ranks
from memo.tuning import run as run_module
from memo.tuning.grid import combinations, vary
from memo.tuning.run import finetune_each
from tests.memo.tuning.small_tuning import tuning_config

VARIED = ["sog.gate=none,sog", "sog.places=[convolution],[pooling,dense]"]


def test_every_combination_has_a_folder_and_its_settings() -> None:
    assert combinations(VARIED) == [
        (f"gate-{gate}_places-{label}", (f"sog.gate={gate}", f"sog.places=[{places}]"))
        for gate in ("none", "sog")
        for places, label in (("convolution", "convolution"), ("pooling,dense", "pooling+dense"))
    ]


def test_settings_of_all_runs_come_first() -> None:
    configs = vary(Path("runs/x"), None, ["task=sog", "backbone=original"], VARIED)
    assert [one.sog.gate for one in configs] == ["none", "none", "sog", "sog"]
    assert [one.sog.places for one in configs][1] == ("pooling", "dense")
    assert configs[0].folder == Path("runs/x/gate-none_places-convolution")


@pytest.mark.parametrize(
    ("varied", "message"),
    [
        ("sog.gate", "--vary sog.gate: it is not of the form KEY=A,B"),
        ("sog.gate=", "not of the form"),
        ("=a,b", "not of the form"),
        ("sog.gate=,", "not of the form"),
        ("sog.gate=none,,sog", "not of the form"),
        ("sog.places=[pooling],dense]", "not of the form"),
        ("threads=1,2", "all runs share it; give it once, as threads=VALUE"),
        ("optimizer.lr=1e-3,1e-3", "two combinations would both be lr-1e-3"),
    ],
)
def test_what_is_no_list_of_values_is_refused(varied: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        combinations([varied])


def test_a_setting_varies_once() -> None:
    with pytest.raises(UserError, match=r"--vary sog\.gate: it is given twice"):
        combinations(["sog.gate=none,sog", "sog.layer=1,2", "sog.gate=cag"])


def test_lists_and_mappings_are_values() -> None:
    (first, second) = combinations(["asp_mtl.weights={a: 1, b: 2},{a: 2}"])
    assert first == ("weights-a+1+b+2", ("asp_mtl.weights={a: 1, b: 2}",))
    assert second.settings == ("asp_mtl.weights={a: 2}",)


def test_every_run_that_is_opened_is_said(
    task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them are not taken for one thing that hangs."""
    said: list[str] = []

    @contextmanager
    def listening(ranks: Ranks, _: float) -> Iterator[Ranks]:
        yield replace(ranks, does=said.append)

    monkeypatch.setattr(run_module, "watched", listening)
    monkeypatch.setattr(run_module, "_finetune", lambda *_: None)
    configs = [tuning_config(task, backbone, tmp_path / one, "adapter") for one in "ab"]
    assert finetune_each(configs) == 0
    assert said == [f"opening {tmp_path / one}" for one in "ab"]
