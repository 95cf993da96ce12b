"""The comparisons of the original papers, one command each: runs, then one table and one plot.

Of one task (`--task A`):

- `baselines`: direct (no multimodal pretraining), the same with the text alone (BERT + finetune),
  full, linear, prompt, adapter
- `fractions`: direct, full and prompt tuning on shares of the training part
- `objectives`: pretraining without each of the objectives, then full tuning
- `grid`: every combination of the settings that `--vary KEY=A,B` gives values of, e.g. of a system
  of several tasks `--vary sog.gate=none,sog --vary "sog.places=[convolution],[dense]"`

Of several (`--tasks A,B`):

- `continual`: one after the other, in both orders, by every strategy; a table for each order
- `cross_corpus`: tuned on each, tested on all

A setting `MODE:key=value` is for the runs of one mode, e.g. `linear:optimizer.lr=1e-2`. A run that
is done is not repeated; `cross_corpus` takes what `continual` has left in the same folder.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from data_pipeline.errors import UserError
from memo.evaluation.compare import compare_runs, show_comparison
from memo.evaluation.compare_sequences import compare_corpora
from memo.evaluation.records import RESULTS, read_results
from memo.tuning.config import FinetuneConfig
from memo.tuning.grid import vary
from memo.tuning.task import TaskSettings, is_system, load_single_task

HERE = Path(__file__).parent
FRACTIONS = (0.1, 0.2, 0.4, 0.6, 1.0)
MODES = ("full", "linear", "prompt", "adapter")
STRATEGIES = ("full", "ewc", "replay", "adapter", "joint")
OBJECTIVES = ("wwmlm", "span_mvfr", "span_mvfc_kl", "span_mafr")
MISTAKE = 2
"""Exit status after what the user can mend."""


def status_of(command: Sequence[str]) -> int:
    """Run a program to its end; its status, as a shell has it.

    Who asks this process to stop means the program, which may have something to keep. Ctrl-C has
    reached it already.
    """
    asked: list[int] = []
    running: list[subprocess.Popen[bytes]] = []

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(number)
        for child in running:
            child.terminate()

    handlers = {signal.SIGTERM: ask, signal.SIGUSR1: ask, signal.SIGINT: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    running.append(subprocess.Popen(command))  # noqa: S603  (the words are the user's own)
    if asked:  # before it ran
        running[0].terminate()
    status = running[0].wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    return status if status >= 0 else 128 - status


class Experiment:
    """Runs that are compared in the end.

    Args:
        arguments: the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.tasks: Sequence[str] = arguments.tasks
        self.pretrained: str | None = arguments.pretrained
        self.config: Path | None = arguments.config
        self.mode: str = arguments.mode
        self.varied: Sequence[str] = arguments.vary
        self.settings: Sequence[str] = arguments.settings
        self.folder: Path = arguments.out
        self.launcher: Sequence[str] = (
            [sys.executable] if arguments.launcher == "python" else ["deepspeed"]
        )

    def start(self, script: str, *arguments: str) -> None:
        """Run a script of this folder; its failure is ours."""
        status = status_of([*self.launcher, str(HERE / script), *arguments])
        if status:
            sys.exit(status)

    def _settings_of(self, mode: str) -> Iterator[str]:
        """The settings of all modes, and of this one without its name."""
        known = dict.fromkeys((*MODES, *STRATEGIES))
        for setting in self.settings:
            before, colon, after = setting.partition(":")
            if not colon or "=" in before:
                yield setting
            elif before not in known:
                raise UserError(f"{setting}: there is no mode {before!r} ({', '.join(known)})")
            elif before == mode:
                yield after

    def tune(self, name: str, mode: str, *settings: str, pretrained: str | None = None) -> Path:
        """A run of the one task."""
        return self._tune(f"--task={self.tasks[0]}", Path(name), mode, settings, pretrained)

    def learn(self, tasks: Sequence[str], name: str, mode: str, *settings: str) -> Path:
        """A run of a sequence, in the folder of its order."""
        place = Path("-".join(Path(task).stem for task in tasks)) / name
        return self._tune(f"--tasks={','.join(tasks)}", place, mode, settings, None)

    def _tune(
        self, what: str, place: Path, mode: str, settings: Sequence[str], pretrained: str | None
    ) -> Path:
        run = self.folder / place
        start = pretrained or self.pretrained
        self.start(
            "finetune.py",
            what,
            f"--mode={mode}",
            *([f"--pretrained={start}"] if start else []),
            *([f"--config={self.config}"] if self.config else []),
            f"run_dir={run}",
            *self._settings_of(mode),
            *settings,
        )
        return run

    def grid(self) -> Sequence[FinetuneConfig]:
        """The settings of every combination's run, as `launch/finetune.py` has them."""
        start = [f"pretrained={self.pretrained}"] if self.pretrained else []
        named = [f"task={self.tasks[0]}", f"mode={self.mode}", *start]
        settings = [*named, *self._settings_of(self.mode)]
        return vary(self.folder, self.config, settings, self.varied)


def prompted_task(experiment: Experiment, kind: str) -> TaskSettings:
    """The task of an experiment that has prompts among its runs; before the first is trained.

    Raises:
        UserError: there is none, it is a system, or has no wording.
    """
    name = experiment.tasks[0]
    if is_system(name):
        raise UserError(f"--task {name}: {kind} is for one task, not for a system of several")
    task = load_single_task(name)
    if not task.wording:
        raise UserError(f"--task {name}: {kind} tunes prompts, too, and it has no wording; add it")
    return task


def baselines(experiment: Experiment) -> None:
    """With and without pretraining, and every mode."""
    modalities = prompted_task(experiment, "baselines").modalities
    runs = [experiment.tune("direct", "full", "direct=true")]
    if "text" in modalities and len(modalities) > 1:
        runs.append(experiment.tune("text", "full", "direct=true", "modalities=[text]"))
    runs += [experiment.tune(mode, mode) for mode in MODES]
    compare_runs(runs, experiment.folder)


def fractions(experiment: Experiment) -> None:
    """How much labelled data is needed."""
    prompted_task(experiment, "fractions")
    runs = []
    for share in FRACTIONS:
        part = f"training.fraction={share}"
        runs.append(experiment.tune(f"direct-{share:g}", "full", "direct=true", part))
        runs += [experiment.tune(f"{mode}-{share:g}", mode, part) for mode in ("full", "prompt")]
    compare_runs(runs, experiment.folder)


def objectives(experiment: Experiment) -> None:
    """What each objective gives: `--pretrained` is the YAML file of the pretraining run."""
    runs = []
    for left_out in (None, *OBJECTIVES):
        name = f"without-{left_out}" if left_out else "all"
        run = experiment.folder / f"pretrained-{name}"
        changes = [f"objectives.{left_out}=null"] if left_out else []
        experiment.start(
            "pretrain.py", f"--config={experiment.pretrained}", f"run_dir={run}", *changes
        )
        runs.append(experiment.tune(name, "full", pretrained=str(run)))
    compare_runs(runs, experiment.folder)


def grid(experiment: Experiment) -> None:
    """Every combination of the varied settings; the first is what the others are compared with.

    Raises:
        UserError: it is one run alone, or they have no task in common; or after the table, names
            those that have failed.
    """
    folder, varied = experiment.folder, experiment.varied
    configs = experiment.grid()
    runs = [one.folder for one in configs]
    if len(runs) < 2:
        raise UserError(f"--vary {varied[0]}: that is one run; give two values or more, KEY=A,B")
    check_common(configs)
    before = {run: _summed_up_at(run) for run in runs}
    try:
        experiment.tune("", experiment.mode, *(f"--vary={one}" for one in varied))
    except SystemExit as ended:
        done = [run for run in runs if _summed_up_at(run) != before[run]]
        if ended.code != MISTAKE or len(done) < 2:  # stopped, or refused before any has begun
            raise
        compare_runs(done, folder)
        left = ", ".join(str(run) for run in runs if run not in done)
        raise UserError(f"not in the table, for they have failed: {left}") from None
    compare_runs(runs, folder)


def check_common(configs: Sequence[FinetuneConfig]) -> None:
    """Runs that are compared have a task in common; before the first is trained.

    Raises:
        UserError: they have none.
    """
    if len({one.asp_mtl.leave_out is None for one in configs}) > 1:
        raise UserError(
            "asp_mtl.leave_out: a run that leaves no task out has none in common with one that "
            "does; name a task in each, or in none"
        )
    chosen = [set(one.members) for one in configs if one.members is not None]
    if chosen and configs[0].asp_mtl.leave_out is None and not set.intersection(*chosen):
        raise UserError("members: the runs have no task in common; name one in each")


def _summed_up_at(run: Path) -> int:
    """When a run was done last, in ns; a run that is done is summed up again by its command."""
    path = run / RESULTS
    return path.stat().st_mtime_ns if path.is_file() else 0


def continual(experiment: Experiment) -> None:
    """Every strategy, forwards and backwards."""
    for tasks in (experiment.tasks, experiment.tasks[::-1]):
        runs = [experiment.learn(tasks, mode, mode) for mode in STRATEGIES]
        runs.append(experiment.learn(tasks, "direct-adapter", "adapter", "direct=true"))
        compare_runs(runs, runs[0].parent)


def cross_corpus(experiment: Experiment) -> None:
    """The first stage of plain fine-tuning on a sequence that begins with each task."""
    tasks = experiment.tasks
    runs = [
        experiment.learn([*tasks[at:], *tasks[:at]], "full", "full") for at in range(len(tasks))
    ]
    show_comparison(compare_corpora(runs, [read_results(run) for run in runs]), experiment.folder)


OF_ONE: dict[str, Callable[[Experiment], None]] = {
    one.__name__: one for one in (baselines, fractions, objectives, grid)
}
OF_SEVERAL: dict[str, Callable[[Experiment], None]] = {
    one.__name__: one for one in (continual, cross_corpus)
}


def main() -> None:
    """Run one kind of experiment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=(*OF_ONE, *OF_SEVERAL))
    tasks = parser.add_mutually_exclusive_group(required=True)
    one = "name of a task in configs/tasks, or a YAML file"
    tasks.add_argument("--task", dest="tasks", metavar="A", type=lambda name: (name,), help=one)
    tasks.add_argument("--tasks", metavar="A,B", type=lambda names: tuple(names.split(",")))
    parser.add_argument("--pretrained", help="run, or for objectives a YAML file")
    parser.add_argument("--config", type=Path, help="YAML file of settings of the tuning runs")
    parser.add_argument("--mode", default="full", help="of a grid's runs")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=A,B", help="of grid")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--launcher", choices=("deepspeed", "python"), default="deepspeed")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="of tuning runs, as finetune.py has them"
    )
    arguments = parser.parse_intermixed_args()
    if (len(arguments.tasks) > 1) != (arguments.kind in OF_SEVERAL):
        parser.error(f"{arguments.kind} needs --task{'s A,B' * (arguments.kind in OF_SEVERAL)}")
    if (arguments.kind == "grid") != bool(arguments.vary):
        parser.error("grid needs --vary KEY=A,B, and nothing else does")
    if arguments.pretrained is None and arguments.kind != "grid":
        parser.error(f"{arguments.kind} needs --pretrained")
    try:
        (OF_ONE | OF_SEVERAL)[arguments.kind](Experiment(arguments))
    except UserError as error:
        print(f"experiment: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(MISTAKE)


if __name__ == "__main__":
    main()
