"""What is submitted, and what the batch scripts do; Slurm's commands are stand-ins here."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.errors import UserError
from memo.cli import main
from memo.slurm import CODE, ROOT, Resources, Submission, render, submit
from memo.tuning.config import FinetuneConfig

CONFIG = "name: mine\nsteps: 7\n"


class Stubs:
    """Programs of Slurm and others that note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, body: str) -> None:
        """A shell script; `$@` is noted first."""
        path = self.folder / name
        note = f"printf '%s\\n' {name} \"$@\" >> '{self.folder}/calls'"
        path.write_text(f"#!/bin/bash\n{note}\n{body}\n")
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Every word."""
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubs:
    made = Stubs(tmp_path / "stubs")
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    return made


def resources(**changes: object) -> Resources:
    asked = {"nodes": "2", "gpus_per_node": "8", "ntasks_per_node": None, "more": ()}
    return Resources(**asked | changes)  # type: ignore[arg-type]


def submission(**changes: object) -> Submission:
    asked = {
        "script": "pretrain",
        "config": Path("mine.yaml"),
        "settings": ["run_dir=a run"],
        "resources": resources(),
        "container": None,
        "array": None,
    }
    return Submission(**asked | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (resources(), ["--nodes=2", "--gpus-per-node=8", "--ntasks-per-node=8"]),
        (
            resources(nodes="1-4", gpus_per_node="a100:4"),
            ["--nodes=1-4", "--gpus-per-node=a100:4", "--ntasks-per-node=4"],
        ),
        (resources(gpus_per_node="0"), ["--nodes=2", "--ntasks-per-node=1"]),
        (
            resources(gpus_per_node="0", ntasks_per_node=3, more=["--qos=low"]),
            ["--nodes=2", "--ntasks-per-node=3", "--qos=low"],
        ),
        (
            resources(gpus_per_node="a100:12").single,
            ["--nodes=1", "--gpus-per-node=a100:1", "--ntasks-per-node=1"],
        ),
        (resources(gpus_per_node="0").single, ["--nodes=1", "--ntasks-per-node=1"]),
    ],
)
def test_one_task_a_gpu(asked: Resources, options: list[str]) -> None:
    assert list(asked.options()) == options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"script": "train"}, "there is no script 'train', but pretrain, finetune, build"),
        ({"config": None}, "needs --config"),
        ({"array": "folds"}, "has no --array of folds"),
        ({"settings": ["step=3"]}, "did you mean 'steps'"),
        ({"settings": ["run_dir=a\\b"]}, "has a backslash"),
        ({"container": Path("none.sif")}, "--container: there is no none.sif"),
        ({"resources": resources(gpus_per_node="many")}, "--gpus-per-node many: write 8"),
        ({"resources": resources(more=["account=a"])}, "--sbatch account=a: write an option"),
        ({}, "Invalid partition"),
    ],
)
def test_a_mistake_leaves_nothing(changes: dict[str, object], message: str, stubs: Stubs) -> None:
    stubs.add("sbatch", "echo 'sbatch: error: Invalid partition' >&2; exit 1")
    before = sorted(Path().iterdir())
    with pytest.raises(UserError, match=message):
        submit(submission(**changes))
    assert sorted(Path().iterdir()) == before


def test_without_slurm_it_is_said(stubs: Stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(stubs.folder))
    with pytest.raises(UserError, match="there is no sbatch here"):
        submit(submission())
    assert not Path("a run").exists()


def test_every_submission_has_its_own_code_and_settings(stubs: Stubs) -> None:
    stubs.add("sbatch", "echo 12")
    said = submit(submission())
    Path("mine.yaml").write_text("name: mine\nsteps: 8\n")
    submit(submission())
    first, second = (Path("a run", "slurm", number).absolute() for number in "12")
    assert str(first) in said
    assert (first / "config.yaml").read_text() == CONFIG
    assert (second / "config.yaml").read_text() != CONFIG
    assert {path.name for path in (first / "code").iterdir()} == set(CODE)
    assert stubs.calls == [
        word
        for folder in (first, second)
        for word in ("sbatch", "--parsable", str(folder / "pretrain.sbatch"))
    ]


def test_options_come_before_the_first_command(stubs: Stubs) -> None:
    """Slurm reads no further than that."""
    lines = render(submission()).splitlines()
    command = next(at for at, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert [line for line in lines[:command] if line.startswith("#SBATCH")] == directives
    assert {"#SBATCH --requeue", "#SBATCH --signal=USR1@120", "#SBATCH --nodes=2"} <= {*directives}
    assert not Path("a run").exists()
    assert not (stubs.folder / "calls").exists()


def test_the_folder_of_the_output_is_taken_as_it_is(stubs: Stubs) -> None:
    """Slurm would write into the folder `lr` and the job's name, which is not there."""
    text = render(submission(settings=["run_dir=lr%5x"]))
    folder = Path("lr%%5x", "slurm", "1").absolute()
    assert f"#SBATCH --output={folder}/%j.out\n" in text
    assert f"export MEMO_CODE={Path('lr%5x', 'slurm', '1', 'code').absolute()}\n" in text


def test_a_job_that_another_one_submits_is_no_task_of_its_array(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would requeue the other, of which Slurm leaves the variables in its environment."""
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.setenv(name, "3")
    stubs.add("sbatch", "env | grep ^SLURM_ >&2; exit 1")
    monkeypatch.setenv("SLURM_CONF", "mine")
    with pytest.raises(UserError, match=r"^SLURM_CONF=mine$"):
        submit(submission())


class TwoFolds:
    folds = (0, 3)


@pytest.fixture
def tuning(stubs: Stubs, monkeypatch: pytest.MonkeyPatch) -> Submission:
    monkeypatch.setattr("memo.tuning.run.open_job", lambda config, states: TwoFolds)
    settings = ["task=demo", "pretrained=x", "run_dir=a run"]
    return submission(script="finetune", config=None, settings=settings, array="folds%1")


def test_an_array_is_followed_by_its_summary(stubs: Stubs, tuning: Submission) -> None:
    stubs.add("sbatch", f"wc -l < '{stubs.folder}/calls'")
    submit(tuning)
    folder = Path("a run", "slurm", "1").absolute()
    ours = ["--parsable", str(folder / "folds.sbatch")]
    after = ["--parsable", "--dependency=afterok:3", str(folder / "summary.sbatch")]
    assert stubs.calls == ["sbatch", *ours, "sbatch", *after]
    folds, summary = ((folder / f"{name}.sbatch").read_text() for name in ("folds", "summary"))
    assert "#SBATCH --array=0,3%1\n" in folds
    assert "#SBATCH --array" not in summary
    assert "#SBATCH --nodes=1\n" in summary
    assert not (folder / "config.yaml").exists()


def test_an_array_whose_summary_is_refused_is_taken_back(stubs: Stubs, tuning: Submission) -> None:
    stubs.add("sbatch", '[[ "$*" == *summary.sbatch ]] && exit 1; echo 12')
    stubs.add("scancel", "")
    with pytest.raises(UserError, match="sbatch ended with status 1"):
        submit(tuning)
    assert stubs.calls[-2:] == ["scancel", "12"]
    assert not Path("a run").exists()


def test_an_array_is_of_folds(tuning: Submission) -> None:
    with pytest.raises(UserError, match="--array 0-4: write folds, or folds%2"):
        render(submission(script="finetune", config=None, settings=tuning.settings, array="0-4"))


def run_script(stubs: Stubs, text: str, **slurm: str) -> int:
    """Exit status of a batch script."""
    environment = os.environ | {"SLURM_JOB_ID": "12"} | slurm
    # As in a job, in which PATH does not begin with the stand-ins' folder.
    text = text.replace(f"PATH={Path(sys.executable).parent}:", f"PATH={stubs.folder}:")
    ended = subprocess.run(["bash", "-s"], input=text, env=environment, text=True, check=False)
    return ended.returncode


def requeued(stubs: Stubs, job: str = "12") -> bool:
    return stubs.calls[-3:] == ["scontrol", "requeue", job]


@pytest.mark.parametrize(
    ("script", "status", "preempted", "again"),
    [
        ("pretrain", 0, "None", False),
        ("pretrain", 0, "2026-01-01", False),
        ("pretrain", 85, "None", True),
        ("pretrain", 1, "None", False),
        ("pretrain", 138, "None", True),
        ("finetune", 138, "None", True),
        ("pretrain", 143, "None", False),
        ("pretrain", 143, "2026-01-01", True),
        ("finetune", 0, "2026-01-01", False),
        ("finetune", 85, "None", True),
        ("finetune", 143, "None", False),
        ("finetune", 143, "2026-01-01", True),
        ("pretrain", 1, "2026-01-01 StartTime=2026-01-02", False),
        ("finetune", 1, "2026-01-01 StartTime=2026-01-02", False),
        ("pretrain", 1, "2026-01-02T03:04:05 StartTime=2026-01-02T03:04:04", True),
    ],
)
def test_what_goes_back_to_the_queue(
    script: str, status: int, preempted: str, again: bool, stubs: Stubs, tuning: Submission
) -> None:
    stubs.add("srun", f"exit {status}")
    stubs.add("scontrol", f"echo '   PreemptTime={preempted}'")
    text = render(submission() if script == "pretrain" else tuning)
    text = text.split("#!/usr/bin/env bash")[1]  # of the two jobs the first
    assert run_script(stubs, text) == (0 if again else status)
    assert requeued(stubs) == again


def test_a_rank_that_never_gets_to_listen_is_given_up(stubs: Stubs) -> None:
    stubs.add("srun", "exit 138")
    stubs.add("scontrol", "echo PreemptTime=None")
    assert run_script(stubs, render(submission()), SLURM_RESTART_COUNT="20") == 138
    assert not requeued(stubs)


def test_a_task_of_an_array_is_requeued_alone(stubs: Stubs, tuning: Submission) -> None:
    """The last one has the number of the whole array."""
    stubs.add("srun", "exit 85")
    stubs.add("scontrol", "")
    task = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "4"}
    assert run_script(stubs, render(tuning).split("#!/usr/bin/env bash")[1], **task) == 0
    assert requeued(stubs, "12_4")
    (stubs.folder / "calls").unlink()
    stubs.add("srun", "kill -USR1 $PPID; sleep 5")
    assert run_build(stubs, "8 grid --source grid --out out", **task) == 0
    assert requeued(stubs, "12_4")


@pytest.mark.parametrize("script", ["pretrain", "finetune", "build_shards"])
@pytest.mark.parametrize("cores", ["", "6"])
def test_cores_are_those_that_were_asked_for(script: str, cores: str, stubs: Stubs) -> None:
    """Without a number Slurm decides: it may know better, e.g. by --cpus-per-gpu."""
    stubs.add("srun", 'echo "cores ${SRUN_CPUS_PER_TASK-unset}" >> "$(dirname "$0")/calls"')
    text = (ROOT / "launch" / "slurm" / f"{script}.sbatch").read_text()
    asked = {"SLURM_CPUS_PER_TASK": cores} if cores else {}
    words = "merge a --out b" if script == "build_shards" else ""
    assert run_script(stubs, f"set -- {words}\n{text}", MEMO_CODE=str(ROOT), **asked) == 0
    assert stubs.calls[-1] == f"cores {cores or 'unset'}"


def word_after(words: Sequence[str], first: str) -> list[str]:
    return list(words[words.index(first) + 1 :])


def test_a_fold_is_a_task_of_the_array(stubs: Stubs, tuning: Submission) -> None:
    stubs.add("srun", "")
    text = render(tuning).split("#!/usr/bin/env bash")
    assert run_script(stubs, text[1], SLURM_ARRAY_TASK_ID="3") == 0
    assert word_after(stubs.calls, "python")[-4:] == [*tuning.settings, "folds=[3]"]
    (stubs.folder / "calls").unlink()
    assert run_script(stubs, text[2]) == 0
    assert word_after(stubs.calls, "python")[-3:] == [*tuning.settings]


def test_a_task_of_the_array_has_its_fold_of_every_combination(
    stubs: Stubs, tuning: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs.add("srun", "")
    opened: list[str] = []

    def open_job(config: FinetuneConfig, states: object) -> type[TwoFolds]:
        opened.append(f"{config.folder} {config.sog.gate}")
        return TwoFolds

    monkeypatch.setattr("memo.tuning.run.open_job", open_job)
    varied = replace(tuning, vary=["sog.gate=sig,cag"])
    text = render(varied).split("#!/usr/bin/env bash")
    assert opened == ["a run/gate-sig sig", "a run/gate-cag cag"]
    assert run_script(stubs, text[1], SLURM_ARRAY_TASK_ID="3") == 0
    given = ["--vary=sog.gate=sig,cag", *tuning.settings]
    assert word_after(stubs.calls, "python")[-5:] == [*given, "folds=[3]"]
    with pytest.raises(UserError, match="--vary is for finetune"):
        render(replace(varied, script="pretrain"))


def test_an_array_of_folds_needs_runs_with_the_same_folds(
    tuning: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OneFold:
        folds = (0,)

    jobs = iter([TwoFolds, OneFold])
    monkeypatch.setattr("memo.tuning.run.open_job", lambda config, states: next(jobs))
    with pytest.raises(UserError, match=r"--array folds: the runs of --vary have different folds"):
        render(replace(tuning, vary=["task=demo,ravdess"]))


def run_build(stubs: Stubs, arguments: str, **slurm: str) -> int:
    """Exit status of the script that builds shards."""
    text = (ROOT / "launch" / "slurm" / "build_shards.sbatch").read_text()
    return run_script(stubs, f"set -- {arguments}\n{text}", MEMO_CODE=str(ROOT), **slurm)


def test_a_part_is_a_task_of_the_array(stubs: Stubs, capfd: pytest.CaptureFixture[str]) -> None:
    stubs.add("srun", 'shift; exec "$@"')
    arguments = "8 grid --source 'my grid' --out out --workers 3"
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_CPUS_PER_TASK": "16"}
    stubs.add("scontrol", "echo PreemptTime=None")
    assert run_build(stubs, arguments, **task) == 2
    assert "my grid" in capfd.readouterr().err  # the command itself has looked for the source
    build = ["python", "-c", "from memo.cli import main; main()", "data", "build"]
    build += ["--workers", "16", "grid", "--source", "my grid", "--out", "out"]
    build += ["--workers", "3", "--part", "2/8"]
    assert stubs.calls[2 : 2 + len(build)] == build


@pytest.mark.parametrize(("arguments", "task"), [("8 grid", ""), ("grid", "2"), ("", "2")])
def test_a_build_without_an_array_or_a_number_of_parts_is_refused(
    arguments: str, task: str, stubs: Stubs, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_build(stubs, arguments, SLURM_ARRAY_TASK_ID=task) == 2
    assert "write: sbatch --array=1-8" in capfd.readouterr().err
    assert not (stubs.folder / "calls").exists()


@pytest.mark.parametrize(("preempted", "again"), [("None", False), ("2026-01-01", True)])
def test_a_part_that_was_preempted_goes_back_to_the_queue(
    preempted: str, again: bool, stubs: Stubs
) -> None:
    stubs.add("srun", "exit 143")
    stubs.add("scontrol", f"echo '   PreemptTime={preempted}'")
    assert run_build(stubs, "8 grid", SLURM_ARRAY_TASK_ID="2") == (0 if again else 143)
    assert requeued(stubs) == again


@pytest.fixture
def building(stubs: Stubs) -> Submission:
    """Of a table of three texts, in four parts."""
    for folder in ("my texts", "made"):
        Path(folder).mkdir()
    Path("my texts", "clips.csv").write_text("text\none\ntwo\nthree\n")
    Path("videos").mkdir()
    Path("videos", "clips.csv").write_text("media\none.mp4\n")
    Path("videos", "one.mp4").touch()
    arguments = ["table", "--source", "my texts", "--out=made/out", "--min-words", "1"]
    asked = resources(nodes="1", gpus_per_node="0", more=["--cpus-per-task=4"])
    changes = {"script": "build", "config": None, "settings": arguments, "array": "4%2"}
    return submission(**changes, resources=asked)


def test_the_parts_of_a_build_are_followed_by_their_merge(
    stubs: Stubs, building: Submission
) -> None:
    stubs.add("sbatch", f"wc -l < '{stubs.folder}/calls'")
    submit(building)
    folder = Path("made", "out.parts", "slurm", "1").absolute()
    ours = ["--parsable", str(folder / "parts.sbatch")]
    after = ["--parsable", "--dependency=afterok:3", str(folder / "merge.sbatch")]
    assert stubs.calls == ["sbatch", *ours, "sbatch", *after]
    parts, merge = ((folder / f"{name}.sbatch").read_text() for name in ("parts", "merge"))
    assert "#SBATCH --array=1,2,3,4%2\n" in parts
    assert "#SBATCH --gpus-per-node" not in parts
    assert "#SBATCH --array" not in merge
    assert "#SBATCH --kill-on-invalid-dep=yes\n" in merge
    (stubs.folder / "calls").unlink()
    stubs.add("srun", "")
    assert run_script(stubs, parts, SLURM_ARRAY_TASK_ID="3", SLURM_CPUS_PER_TASK="4") == 0
    build = ["data", "build", "--workers", "4", *building.settings, "--part", "3/4"]
    assert word_after(stubs.calls, "from memo.cli import main; main()") == build
    (stubs.folder / "calls").unlink()
    assert run_script(stubs, merge) == 0
    made = [f"made/out.parts/{number}-of-4" for number in (1, 2, 3, 4)]
    words = ["data", "merge", *made, "--out=made/out"]
    assert word_after(stubs.calls, "from memo.cli import main; main()") == words


def test_only_the_parts_that_are_missing_are_built(building: Submission) -> None:
    for number in (1, 2, 4):
        Path("made", "out.parts", f"{number}-of-4").mkdir(parents=True)
    assert "#SBATCH --array=3%2\n" in render(building)
    Path("made", "out.parts", "3-of-4").mkdir()
    alone = render(building)
    assert alone.count("#!/usr/bin/env bash") == 1
    assert "set -- merge made/out.parts/1-of-4 made/out.parts/2-of-4" in alone


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"array": None}, [], "--array is missing: write the number of parts"),
        ({"array": "folds"}, [], "--array folds: write the number of parts"),
        ({"config": Path("mine.yaml")}, [], "--config: a build has none"),
        ({}, ["--part=1/4"], "--part 1/4: every task has its own"),
        ({}, ["--out", "."], "--out: . exists already"),
        ({}, ["--face", "nobody"], "--face: no encoder 'nobody'; known are"),
        ({}, ["--speech", "nobody"], "--speech: no encoder 'nobody'; known are"),
        ({}, ["--align", "nobody"], "--align: no model 'nobody'; known are"),
        ({}, ["--recognise-weights", "w"], "--recognise-weights is given without --recognise"),
        ({}, ["--source", "none"], "none"),
        ({}, ["--name", "two words"], "--name: 'two words'"),
        ({}, ["--min-face-share", "7"], "--min-face-share 7.0: give a number from 0 to 1"),
        ({}, ["--align", "ear"], "--align: no model 'ear'"),
        (
            {},
            ["--device=tpu", "--source=videos", "--speech=log-mel"],
            "--device: there is no 'tpu'",
        ),
        ({}, ["--face", "mask", "--source", "videos"], "--face: no encoder 'mask'"),
        ({}, [], "Invalid partition"),
    ],
)
def test_a_mistake_in_a_build_leaves_nothing(
    changes: dict[str, Any], more: list[str], message: str, stubs: Stubs, building: Submission
) -> None:
    stubs.add("sbatch", "echo 'sbatch: error: Invalid partition' >&2; exit 1")
    before = sorted(Path().iterdir())
    with pytest.raises(UserError, match=message):
        submit(replace(building, settings=[*building.settings, *more], **changes))
    assert sorted(Path().iterdir()) == before


def test_a_gpu_need_not_be_where_a_build_is_submitted(building: Submission) -> None:
    asked = ["--source=videos", "--device=cuda", "--speech=log-mel"]
    assert "--device=cuda" in render(replace(building, settings=[*building.settings, *asked]))


def test_what_a_build_does_not_take_is_said_as_the_build_says_it(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--array=2", "--", "table", "--source=."]
    monkeypatch.setattr(sys, "argv", ["memo", "slurm", "submit", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "Missing option '--out'" in capsys.readouterr().err


def test_a_container_runs_the_same_command(stubs: Stubs) -> None:
    Path("memo.sif").touch()
    stubs.add("srun", 'shift; exec "$@"')
    stubs.add("apptainer", "")
    assert run_script(stubs, render(submission(container=Path("memo.sif")))) == 0
    code = Path("a run", "slurm", "1", "code").absolute()
    folders = f"{code},{code.parents[2]},{Path.cwd()}"
    bound = ["exec", "--nv", "--bind", folders, "--pwd", str(Path.cwd())]
    config = f"--config={code.parent / 'config.yaml'}"
    python = ["python", str(code / "launch" / "pretrain.py"), config, "run_dir=a run"]
    image = str(Path("memo.sif").absolute())
    assert stubs.calls[-12:] == ["apptainer", *bound, image, *python]


def test_the_command_shows_the_script(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", "--config=mine.yaml", "steps=9", "--nodes=3", "--print", "--time=1:00:00"]
    options = ["--partition=a,b", "--sbatch=--qos=q", "--cpus-per-task=4", "--gpus-per-node=2"]
    monkeypatch.setattr(sys, "argv", ["memo", "slurm", "submit", *words, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    wanted = ["nodes=3", "gpus-per-node=2", "ntasks-per-node=2", "cpus-per-task=4"]
    wanted += ["partition=a,b", "time=1:00:00", "qos=q"]
    assert "\n".join(f"#SBATCH --{one}" for one in wanted) in shown
    assert " steps=9\n" in shown
    assert not Path("runs").exists()
    assert not (stubs.folder / "calls").exists()
