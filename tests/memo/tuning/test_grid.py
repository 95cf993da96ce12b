"""Which settings and which folders every combination has."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from data_pipeline.errors import AgreedError, UserError
from memo.multitask.idle import check_settings as check_in_system
from memo.multitask.members import load_system
from memo.training.distributed import Ranks
from memo.training.signals import REQUEUE
from memo.tuning import run as run_module
from memo.tuning.config import FinetuneConfig
from memo.tuning.grid import combinations, vary
from memo.tuning.idle import check_settings
from memo.tuning.run import finetune_each
from tests.distributed import run_ranks
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


SOG, ASP = ["task=sog", "backbone=original"], ["task=asp_mtl", "backbone=original"]
SOG_MEMO = ["task=sog", "pretrained=x"]
ONE, SEVERAL = ["task=ravdess", "pretrained=x"], ["tasks=[a,b]", "pretrained=x"]
HEEDED_BY_SOME = [
    (SOG, ["sog.training=joint,maml"], "sog.maml.first_order=true", [1]),
    (SOG, ["sog.gate=none,sog", "sog.published_dense=false,true"], "", [3]),
    (SOG, ["sog.places=[dense],[pooling]"], "sog.published_dense=true", [0]),
    (SOG_MEMO, ["mode=full,linear"], "sog.layer=1", [1]),
    (SOG_MEMO, ["mode=full,adapter"], "adapter.size=9", [1]),
    (["task=sog"], ["backbone=original,memo"], "pretrained=x", [1]),
    (ASP, ["asp_mtl.sharing=fs,sp,asp"], "asp_mtl.adversary=0.1", [2]),
    (ASP, ["asp_mtl.sharing=sp,asp"], "asp_mtl.unlabelled=true", [1]),
    (ASP, ["asp_mtl.sharing=alone,fs"], "asp_mtl.one_output=true", [1]),
    (ONE, ["mode=full,prompt"], "prompt.soft=3", [1]),
    (SEVERAL, ["mode=full,ewc,replay"], "continual.strength=9", [1]),
]


@pytest.mark.parametrize(("settings", "varied", "also", "heeding"), HEEDED_BY_SOME)
def test_a_setting_is_in_effect_where_it_is_heeded(
    settings: list[str], varied: list[str], also: str, heeding: list[int]
) -> None:
    """A run that does not heed it is as without it, and is not refused."""
    given = [*settings, also] if also else settings
    without = [*settings, "pretrained=y"] if also == "pretrained=x" else settings
    found = vary(Path("x"), None, given, varied)
    plain = vary(Path("x"), None, without, [one.replace("false,true", "false") for one in varied])
    for at, config in enumerate(found):
        check(config)
        values = config.model_dump(exclude={"run_dir"})
        as_without = any(values == one.model_dump(exclude={"run_dir"}) for one in plain)
        assert as_without == (at not in heeding)


def check(config: FinetuneConfig) -> None:
    """As a run does it."""
    if config.task in ("sog", "asp_mtl"):
        check_in_system(config, load_system(config.task))
    else:
        check_settings(config)


@pytest.mark.parametrize(
    ("settings", "varied", "message"),
    [
        (SOG, "sog.training=joint,alternating", "sog.maml is for sog.training=maml"),
        (ASP, "asp_mtl.sharing=fs,sp", "sog is not for asp_mtl"),
        (ONE, "mode=full,adapter", "sog is for systems of several tasks"),
    ],
)
def test_what_no_combination_heeds_is_refused(
    settings: list[str], varied: str, message: str
) -> None:
    for config in vary(Path("x"), None, [*settings, "sog.maml.rate=9"], [varied]):
        with pytest.raises(UserError, match=message):
            check(config)


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


RATES = ("1e-2", "1e30", "1e-3")
DIVERGED = r"1 of 3 runs have failed: .*/lr-1e30: fold 0, seed 1: 5 non-finite steps in a row"


def diverging(folder: str) -> None:
    """On each rank: runs of which the second diverges."""
    varied = ["optimizer.lr=" + ",".join(RATES)]
    configs = vary(Path(folder), Path(folder) / "all.yaml", [], varied)
    with pytest.raises(AgreedError, match=DIVERGED):
        finetune_each(configs)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_diverges_does_not_end_the_others(
    task: Path, backbone: Path, tmp_path: Path, ranks: int
) -> None:
    """The same on all ranks, which stay in step; and when it is tried again."""
    changes = "folds=[0]", "training.epochs=1"
    config = tuning_config(task, backbone, tmp_path, "linear", *changes)
    content = yaml.safe_dump(config.model_dump(mode="json"))
    (tmp_path / "all.yaml").write_text(content)
    if ranks == 1:
        diverging(str(tmp_path))
        diverging(str(tmp_path))
    else:
        run_ranks(diverging, str(tmp_path), ranks)
    done = [(tmp_path / f"lr-{rate}" / "results.json").is_file() for rate in RATES]
    assert done == [True, False, True]


def test_a_signal_ends_the_grid_after_a_run_that_failed(
    task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    def failing(config: FinetuneConfig, *_: object) -> None:
        begun.append(config.folder)
        signal.raise_signal(signal.SIGTERM)
        raise AgreedError("it diverges")

    monkeypatch.setattr(run_module, "_finetune", failing)
    configs = [tuning_config(task, backbone, tmp_path / one, "adapter") for one in "ab"]
    assert finetune_each(configs) == REQUEUE
    assert begun == [tmp_path / "a"]
