"""Which runs an experiment starts, without running them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch import experiment
from tests.launch.command import ROOT


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []

    def note(command: list[str]) -> int:
        calls.append(command)
        return 0

    monkeypatch.setattr(experiment, "status_of", note)
    monkeypatch.setattr(
        experiment, "compare_runs", lambda runs, out: calls.append([*map(str, runs)])
    )
    return calls


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    task = [] if any(word.startswith("--task") for word in words) else ["--task=ravdess"]
    common = [*task, "--pretrained=runs/p", "--out=x", "--launcher=python"]
    monkeypatch.setattr(sys, "argv", ["experiment.py", *words, *common])
    experiment.main()


ASKED = """
import signal, subprocess, sys, time
from launch.experiment import status_of

program = '''
import signal, sys, time
def keep(number, frame):
    time.sleep(0.5)
    print("kept", flush=True)
    sys.exit(85)
for one in (signal.SIGINT, signal.SIGTERM):
    signal.signal(one, keep)
print("began", flush=True)
time.sleep(600)
'''
sys.exit(status_of([sys.executable, "-c", program]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_who_asks_an_experiment_to_stop_means_its_run(number: signal.Signals) -> None:
    """Ctrl-C goes to both of them, other signals to the experiment alone."""
    asked = subprocess.Popen(
        [sys.executable, "-c", ASKED], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    assert asked.stdout is not None
    with asked.stdout as told:
        assert told.readline() == b"began\n"
        (os.killpg if number == signal.SIGINT else os.kill)(asked.pid, number)
        assert asked.wait(60) == 85
        assert told.read() == b"kept\n"


def test_a_run_that_is_killed_has_a_shells_status() -> None:
    kill = "import os; os.kill(os.getpid(), 9)"
    assert experiment.status_of([sys.executable, "-c", kill]) == 137


def test_help_says_what_each_kind_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--help")
    told = capsys.readouterr().out
    for kind in (*experiment.OF_ONE, *experiment.OF_SEVERAL):
        assert f"- `{kind}`: " in told


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


def test_a_grid_is_one_command_and_compares_every_combination(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sog.yaml").write_text("training: {epochs: 3}")
    places = "sog.places=[convolution],[pooling,dense]"
    more = "--mode=linear", "--config=sog.yaml", "seeds=[1]"
    run(monkeypatch, "grid", "--vary=sog.gate=none,sog", f"--vary={places}", *more)
    tuned, compared = started
    assert compared == [
        str(Path("x") / f"gate-{g}_places-{p}")
        for g in ("none", "sog")
        for p in ("convolution", "pooling+dense")
    ]
    varied = "--vary=sog.gate=none,sog", f"--vary={places}"
    assert {*varied, *more, "run_dir=x"} <= {*tuned}


@pytest.mark.parametrize(
    ("done", "status", "tables"),
    [
        (["1"], 2, []),  # nothing to compare it with
        (["1", "3"], 85, []),  # stopped
        (["1", "3"], 2, [["x/lr-1", "x/lr-3"]]),
        ([], 2, []),  # refused: what lies there is of another command
    ],
)
def test_a_grid_with_a_run_that_fails_has_a_table_of_the_others(
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    done: list[str],
    status: int,
    tables: list[list[str]],
) -> None:
    """It is of those that this command has summed up, and what is missing is named."""
    monkeypatch.chdir(tmp_path)
    results = {rate: Path("x") / f"lr-{rate}" / "results.json" for rate in "123"}
    for path in results.values():
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (1, 1))

    def tune(command: list[str]) -> int:
        assert command
        for rate in done:
            results[rate].write_text("{}")
        return status

    monkeypatch.setattr(experiment, "status_of", tune)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "grid", "--vary=optimizer.lr=1,2,3")
    assert (ended.value.code, started) == (status, tables)
    told = "experiment: not in the table, for they have failed: x/lr-2\n"
    assert capsys.readouterr().err == (told if tables else "")


@pytest.mark.parametrize(
    ("task", "varied"),
    [
        ("asp_mtl", "asp_mtl.leave_out=books,dvd"),
        ("sog", "members=[essays],[essays,isear],null"),
        ("sog", "sog.training=joint,maml"),
    ],
)
def test_a_grid_whose_runs_have_a_task_in_common_is_begun(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, task: str, varied: str
) -> None:
    run(monkeypatch, "grid", f"--task={task}", f"--vary={varied}")
    assert len(started) == 2


@pytest.mark.parametrize(
    "words", [("grid",), ("grid", "--vary=sog.gate"), ("baselines", "--vary=a=b")]
)
def test_a_grid_needs_what_varies(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("grid", "--task=sog", "--vary=sog.gate=sog"),
            "--vary sog.gate=sog: that is one run; give two values or more, KEY=A,B",
        ),
        (
            ("grid", "--task=sog", "--vary=sog.gate=sog", "--vary=sog.layer=1"),
            "--vary sog.gate=sog: that is one run; give two values or more, KEY=A,B",
        ),
        (
            ("grid", "--task=asp_mtl", "--vary=asp_mtl.leave_out=null,books"),
            "asp_mtl.leave_out: a run that leaves no task out has none in common with one that "
            "does; name a task in each, or in none",
        ),
        (
            ("grid", "--task=sog", "--vary=members=[essays],[isear]"),
            "members: the runs have no task in common; name one in each",
        ),
        (
            ("baselines", "--task=sog"),
            "--task sog: baselines is for one task, not for a system of several",
        ),
        (
            ("baselines", "--task=essays"),
            "task essays has several labels a clip: make it a part of --task sog",
        ),
        (
            ("baselines", "--task=mvsa"),
            "--task mvsa: baselines tunes prompts, too, and it has no wording; add it",
        ),
        (
            ("fractions", "--task=sog"),
            "--task sog: fractions is for one task, not for a system of several",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *words)
    assert (ended.value.code, started) == (2, [])
    assert capsys.readouterr().err == f"experiment: {said}\n"


def test_every_strategy_runs_in_both_orders(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, "continual", "--tasks=a,b", "ewc:optimizer.lr=3")
    compared = [call for call in started if call[0].startswith("x")]
    assert [Path(call[0]).parent for call in compared] == [Path("x/a-b"), Path("x/b-a")]
    for order, runs in zip(("a,b", "b,a"), compared, strict=True):
        mine = [call for call in started if f"--tasks={order}" in call]
        assert [f"run_dir={one}" for one in runs] == [
            next(word for word in call if word.startswith("run_dir=")) for call in mine
        ]
        for call in mine:
            assert ("optimizer.lr=3" in call) == ("--mode=ewc" in call)
        assert "direct=true" in mine[-1]


def test_every_corpus_comes_first_once(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(experiment, "read_results", lambda run: run)
    monkeypatch.setattr(experiment, "compare_corpora", lambda runs, _: runs)
    monkeypatch.setattr(experiment, "show_comparison", lambda *words: shown.extend(words))
    run(monkeypatch, "cross_corpus", "--tasks=a,b,c")
    orders = [word for call in started for word in call if word.startswith("--tasks=")]
    assert orders == ["--tasks=a,b,c", "--tasks=b,c,a", "--tasks=c,a,b"]
    assert shown == [[Path("x/a-b-c/full"), Path("x/b-c-a/full"), Path("x/c-a-b/full")], Path("x")]


def test_one_task_or_several_as_the_kind_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "baselines", "--tasks=a,b")
    assert ended.value.code == 2
    assert "baselines needs --task\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "continual")
    assert "continual needs --tasks A,B\n" in capsys.readouterr().err


def test_a_failed_run_ends_the_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "status_of", lambda command: 2 if command else 0)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "baselines")
    assert ended.value.code == 2
