"""Jobs for Slurm: a script of `launch/slurm/` with its arguments, on a snapshot of the code.

```
runs/<name>/slurm/1/     a number a submission; of a build <out>.parts/slurm/1/
  pretrain.sbatch        what was submitted; of an array of folds folds.sbatch and summary.sbatch,
                         of a build parts.sbatch and merge.sbatch
  code/, config.yaml     what it runs: a preempted job goes on with the code it began with
  12.out                 what job 12 said; 12_0.out: task 0 of an array
```
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from data_pipeline.build_part import BuildPart
from data_pipeline.errors import UserError
from memo.build_command import check_build
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.training.setup import run_folder
from memo.tuning.config import FinetuneConfig
from memo.tuning.grid import vary

ROOT = Path(__file__).parents[1]
SCRIPTS = {"pretrain": "pretrain", "finetune": "finetune", "build": "build_shards"}
"""What can be submitted, and its file in `launch/slurm/`."""
CODE = ("memo", "data_pipeline", "launch", "configs")
"""Folders of the checkout that a run needs."""


@dataclass(frozen=True)
class Resources:
    """What a job asks Slurm for.

    Attributes:
        nodes: a number, or a range such as `1-4`.
        gpus_per_node: a number, or `TYPE:NUMBER`.
        ntasks_per_node: processes; None is one a GPU.
        more: other options of sbatch, e.g. `--partition=gpu`.
    """

    nodes: str
    gpus_per_node: str
    ntasks_per_node: int | None
    more: Sequence[str]

    def options(self) -> Iterator[str]:
        """As sbatch wants them.

        Raises:
            UserError: no number of GPUs, more processes than GPUs, or an option without dashes.
        """
        found = re.fullmatch(r"(?:[\w.-]+:)?(\d+)", self.gpus_per_node)
        if not found:
            raise UserError(f"--gpus-per-node {self.gpus_per_node}: write 8, or a100:8")
        gpus = int(found[1])
        yield f"--nodes={self.nodes}"
        if gpus:
            yield f"--gpus-per-node={self.gpus_per_node}"
        tasks = self.ntasks_per_node or max(gpus, 1)
        if tasks > gpus > 0:
            raise UserError(f"--ntasks-per-node {tasks}: {gpus} GPUs a node; a process has one")
        yield f"--ntasks-per-node={tasks}"
        for one in self.more:
            if not one.startswith("-"):
                raise UserError(f"--sbatch {one}: write an option of sbatch, e.g. --account=a")
            yield one

    @property
    def single(self) -> "Resources":
        """One process with a GPU, if there are any."""
        fewer = re.sub(r"[1-9]\d*$", "1", self.gpus_per_node)
        return replace(self, nodes="1", gpus_per_node=fewer, ntasks_per_node=1)


@dataclass(frozen=True)
class Submission:
    """What is to be run.

    Attributes:
        script: of `SCRIPTS`.
        config: YAML file of settings; tuning needs none, and a build has none.
        settings: `key=value`, over it; of a build the arguments of `memo data build`.
        resources: what each job asks for.
        container: Apptainer image to run in.
        array: `folds`, or `folds%2` for two at a time: a task of an array for every fold; of a
            build the number of parts: `8`, or `8%2`.
        vary: `KEY=A,B` each: tuning is run with every combination, one after the other.
    """

    script: str
    config: Path | None
    settings: Sequence[str]
    resources: Resources
    container: Path | None
    array: str | None
    vary: Sequence[str] = ()


@dataclass(frozen=True)
class BatchJob:
    """A script for sbatch.

    Attributes:
        name: of its file.
        text: its content.
    """

    name: str
    text: str


@dataclass(frozen=True)
class _Plan:
    """A submission in which no mistake was found.

    Attributes:
        folder: of the run, or of a build's parts.
        tasks: their numbers, of an array; those of a build that are not done yet.
        parts: how many a build has.
        merge: what puts them together: the arguments of `memo data`.
    """

    folder: Path
    tasks: tuple[int, ...] = ()
    parts: int = 0
    merge: tuple[str, ...] = ()


def submit(submission: Submission) -> str:
    """Snapshot code and settings, write the scripts into the run's folder, and submit them.

    Returns:
        What was submitted, for a person.

    Raises:
        UserError: a mistake in the settings, or sbatch is missing or refuses; nothing is left then.
    """
    plan = _check(submission)
    with _new_folder(plan.folder / "slurm") as folder:
        _snapshot(submission, folder)
        numbers = _queue(folder, _jobs(submission, folder, plan))
    return f"submitted job {' and '.join(numbers)}; code, scripts and output are in {folder}"


def render(submission: Submission) -> str:
    """The scripts that `submit` would submit now; nothing is written.

    Raises:
        UserError: a mistake in the settings.
    """
    plan = _check(submission)
    folders = (plan.folder / "slurm" / str(number) for number in count(1))
    folder = next(one for one in folders if not one.exists())
    return "\n".join(job.text for job in _jobs(submission, folder, plan))


def _check(submission: Submission) -> _Plan:
    """What is wrong is said before it is queued."""
    plan = _plan(submission)
    if "\\" in str(plan.folder):  # with one, it takes no % of a path for its own
        raise UserError(f"{plan.folder} has a backslash, which Slurm does not write to; rename it")
    return plan


def _plan(submission: Submission) -> _Plan:
    """What is submitted."""
    if submission.container is not None and not submission.container.exists():
        raise UserError(f"--container: there is no {submission.container}")
    if submission.script not in SCRIPTS:
        raise UserError(f"there is no script {submission.script!r}, but {', '.join(SCRIPTS)}")
    if submission.vary and submission.script != "finetune":
        raise UserError("--vary is for finetune")
    if submission.script == "build":
        return _plan_build(submission)
    if submission.script == "pretrain":
        if submission.config is None or submission.array is not None:
            raise UserError("pretraining under Slurm needs --config, and has no --array of folds")
        config = load_config(PretrainConfig, submission.config, submission.settings)
        return _Plan(run_folder(config).absolute())
    return _plan_tuning(submission)


def _plan_tuning(submission: Submission) -> _Plan:
    """The folds of tuning, if an array of them is asked for.

    Raises:
        UserError: a mistake in any of its runs, or they have different folds.
    """
    given = submission.config, submission.settings
    plain = load_config(FinetuneConfig, *given)
    folder = plain.folder.absolute()
    runs = vary(plain.folder, *given, submission.vary) if submission.vary else [plain]
    from memo.multitask.texts import SharedStates  # noqa: PLC0415
    from memo.tuning.run import open_job  # noqa: PLC0415  (imports DeepSpeed)

    folds = {open_job(run, SharedStates()).folds for run in runs}
    if submission.array is None:
        return _Plan(folder)
    if not re.fullmatch(r"folds(%[1-9]\d*)?", submission.array):
        raise UserError(f"--array {submission.array}: write folds, or folds%2 for two at a time")
    if len(folds) > 1:
        raise UserError("--array folds: the runs of --vary have different folds; say folds=[0,1]")
    return _Plan(folder, folds.pop())


def _plan_build(submission: Submission) -> _Plan:
    """The parts of a build, of which some may be there already.

    Raises:
        UserError: their number is not given, a file of settings is, or a mistake in the build.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})(%[1-9]\d*)?", submission.array or "", re.ASCII)
    if not found:
        given = "is missing" if submission.array is None else submission.array
        raise UserError(f"--array {given}: write the number of parts: 8, or 8%2 for two at a time")
    if submission.config is not None:
        raise UserError("--config: a build has none; give its options behind --")
    out, of = check_build(submission.settings), int(found[1])
    parts = {number: BuildPart(number, of).folder(out) for number in range(1, of + 1)}
    missing = tuple(number for number, part in parts.items() if not part.exists())
    merge = ("merge", *map(str, parts.values()), f"--out={out}")
    return _Plan(parts[1].parent.absolute(), missing, of, merge)


def _jobs(submission: Submission, folder: Path, plan: _Plan) -> Iterator[BatchJob]:
    """One, or an array, and what puts together what its tasks have made."""
    said = str(folder).replace("%", "%%")  # which Slurm would take for a number of the job
    single, several = f"--output={said}/%j.out", f"--output={said}/%A_%a.out"
    resources = submission.resources
    given = [*(f"--vary={one}" for one in submission.vary), *submission.settings]
    if submission.config:
        given = [f"--config={folder / 'config.yaml'}", *given]
    if submission.array is None:
        options = [single, *resources.options()]
        yield BatchJob(submission.script, _render(submission, folder, options, given))
        return
    numbers = ",".join(map(str, plan.tasks)) + "".join(submission.array.partition("%")[1:])
    options = [several, *resources.options(), f"--array={numbers}"]
    # If a task fails, what waits for all of them is not left waiting for ever.
    after = [single, *resources.single.options(), "--kill-on-invalid-dep=yes"]
    if not plan.parts:
        yield BatchJob("folds", _render(submission, folder, options, given))
        yield BatchJob("summary", _render(submission, folder, after, given))
        return
    if plan.tasks:
        words = [str(plan.parts), *given]
        yield BatchJob("parts", _render(submission, folder, options, words))
    yield BatchJob("merge", _render(submission, folder, after, plan.merge))


def _render(
    submission: Submission, folder: Path, options: Sequence[str], given: Sequence[str]
) -> str:
    """The script of `launch/slurm/` with options for sbatch, and with its arguments."""
    script = ROOT / "launch" / "slurm" / f"{SCRIPTS[submission.script]}.sbatch"
    lines = script.read_text("utf8")
    directives, body = lines.split("set -euo pipefail\n")  # sbatch reads options above it alone
    ours = [f"#SBATCH {shlex.quote(one)}" for one in options]
    ours += ["set -euo pipefail", f"export MEMO_CODE={shlex.quote(str(folder / 'code'))}"]
    if submission.container is None:
        ours.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    else:
        image = str(submission.container.absolute())
        ours.append(f"export MEMO_CONTAINER={shlex.quote(image)}")
    return directives + "\n".join([*ours, f"set -- {shlex.join(given)}", body])


@contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """A folder with the next number, which is gone again if the block fails."""
    parent.mkdir(parents=True, exist_ok=True)
    for folder in (parent / str(number) for number in count(1)):
        with suppress(FileExistsError):
            folder.mkdir()
            break
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder)
        with suppress(OSError):  # not empty: there was a run before
            parent.rmdir()
            parent.parent.rmdir()
        raise


def _snapshot(submission: Submission, folder: Path) -> None:
    """Copy the code and the file of settings."""
    for name in CODE:
        shutil.copytree(
            ROOT / name, folder / "code" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    if submission.config is not None:
        shutil.copyfile(submission.config, folder / "config.yaml")


def _queue(folder: Path, jobs: Iterable[BatchJob]) -> list[str]:
    """Submit them, each after those before it; all or none.

    Returns:
        Their numbers.

    Raises:
        UserError: sbatch is missing, or refuses one.
    """
    numbers: list[str] = []
    try:
        for job in jobs:
            path = folder / f"{job.name}.sbatch"
            path.write_text(job.text, "utf8")
            numbers.append(_sbatch(path, numbers))
    except BaseException:
        if numbers:
            subprocess.run(["scancel", *numbers], check=False)  # noqa: S603, S607
        raise
    return numbers


def _sbatch(path: Path, after: Sequence[str]) -> str:
    """Submit a script; its number."""
    dependency = [f"--dependency=afterok:{':'.join(after)}"] if after else []
    command = ["sbatch", "--parsable", *dependency, str(path)]
    # A job inherits them where it is submitted by another one, whose task of an array it is not.
    own = ("SLURM_ARRAY_", "SLURM_RESTART_")
    env = {name: one for name, one in os.environ.items() if not name.startswith(own)}
    try:
        ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise UserError(
            "there is no sbatch here: submit where Slurm is, or see the script with --print"
        ) from None
    if ended.returncode:
        said = " ".join(ended.stderr.split())
        raise UserError(said or f"sbatch ended with status {ended.returncode}")
    return ended.stdout.strip().split(";")[0]  # of several clusters, its name stands behind
