"""Which runs an experiment starts, without running them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch import experiment


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []

    def note(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
        calls.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(
        experiment, "compare_runs", lambda runs, out: calls.append([*map(str, runs)])
    )
    return calls


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    common = ["--task=ravdess", "--pretrained=runs/p", "--out=x", "--launcher=python"]
    monkeypatch.setattr(sys, "argv", ["experiment.py", *words, *common])
    experiment.main()


def test_baselines_are_direct_and_every_mode(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, "baselines", "optimizer.lr=1", "linear:optimizer.lr=2")
    *tuned, compared = started
    assert compared == [
        str(Path("x") / one) for one in ("direct", "text", "full", "linear", "prompt", "adapter")
    ]
    assert ["direct=true" in command for command in tuned] == [True, True, *[False] * 4]
    assert [command for command in tuned if "modalities=[text]" in command] == [tuned[1]]
    for command in tuned:
        assert "optimizer.lr=1" in command
        assert ("optimizer.lr=2" in command) == ("--mode=linear" in command)


def test_without_an_objective_means_pretraining_without_it(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, "objectives")
    assert len(started) == 2 * 5 + 1
    for name in experiment.OBJECTIVES:
        pretrain, tune = next(
            pair
            for pair in zip(started[::2], started[1::2], strict=False)
            if f"objectives.{name}=null" in pair[0]
        )
        folder = next(word for word in pretrain if word.startswith("run_dir=")).removeprefix(
            "run_dir="
        )
        assert f"--pretrained={folder}" in tune


def test_fractions_grow_to_the_whole(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, "fractions")
    assert sum("training.fraction=0.1" in command for command in started) == 3
    assert sum("training.fraction=1.0" in command for command in started) == 3
    assert sum("direct=true" in command for command in started) == len(experiment.FRACTIONS)


def test_a_failed_run_ends_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 2)
    )
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "baselines")
    assert ended.value.code == 2
