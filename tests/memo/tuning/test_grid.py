"""Which settings and which folders every combination has."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.tuning.grid import combinations, vary

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
