"""The comparisons of the original paper, one command each: runs, then one table and one plot.

- `baselines`: direct (no multimodal pretraining), the same with the text alone (BERT + finetune),
  linear, full, prompt, adapter
- `fractions`: direct, full and prompt tuning on shares of the training part
- `objectives`: pretraining without each of the objectives, then full tuning

A setting `MODE:key=value` is for the runs of one mode, e.g. `linear:optimizer.lr=1e-2`. A run that
is done is not repeated. Cross-corpus scores stand in the first row of R of
`launch/finetune.sh --tasks A,B`.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_pipeline.errors import UserError
from memo.evaluation.compare import compare_runs
from memo.tuning.task import load_task

HERE = Path(__file__).parent
FRACTIONS = (0.1, 0.2, 0.4, 0.6, 1.0)
MODES = ("full", "linear", "prompt", "adapter")
OBJECTIVES = ("wwmlm", "span_mvfr", "span_mvfc_kl", "span_mafr")


class Experiment:
    """Runs of one task that are compared in the end.

    Args:
        arguments: the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.task: str = arguments.task
        self.pretrained: str = arguments.pretrained
        self.settings: Sequence[str] = arguments.settings
        self.folder: Path = arguments.out
        self.launcher: Sequence[str] = (
            [sys.executable] if arguments.launcher == "python" else ["deepspeed"]
        )
        self.runs: list[Path] = []

    def start(self, script: str, *arguments: str) -> None:
        """Run a script of this folder; its failure is ours."""
        ended = subprocess.run(  # noqa: S603  (the words are the user's own)
            [*self.launcher, str(HERE / script), *arguments], check=False
        )
        if ended.returncode:
            sys.exit(ended.returncode)

    def _settings_of(self, mode: str) -> Iterator[str]:
        """The settings of all modes, and of this one without its name."""
        for setting in self.settings:
            before, colon, after = setting.partition(":")
            if not colon or "=" in before:
                yield setting
            elif before not in MODES:
                raise UserError(f"{setting}: there is no mode {before!r} ({', '.join(MODES)})")
            elif before == mode:
                yield after

    def tune(self, name: str, mode: str, *settings: str, pretrained: str | None = None) -> None:
        """One run, to be compared with the others."""
        run = self.folder / name
        self.start(
            "finetune.py",
            f"--task={self.task}",
            f"--mode={mode}",
            f"--pretrained={pretrained or self.pretrained}",
            f"run_dir={run}",
            *self._settings_of(mode),
            *settings,
        )
        self.runs.append(run)


def baselines(experiment: Experiment) -> None:
    """With and without pretraining, and every mode."""
    experiment.tune("direct", "full", "direct=true")
    modalities = load_task(experiment.task).modalities
    if "text" in modalities and len(modalities) > 1:
        experiment.tune("text", "full", "direct=true", "modalities=[text]")
    for mode in MODES:
        experiment.tune(mode, mode)


def fractions(experiment: Experiment) -> None:
    """How much labelled data is needed."""
    for share in FRACTIONS:
        part = f"training.fraction={share}"
        experiment.tune(f"direct-{share:g}", "full", "direct=true", part)
        for mode in ("full", "prompt"):
            experiment.tune(f"{mode}-{share:g}", mode, part)


def objectives(experiment: Experiment) -> None:
    """What each objective gives: `--pretrained` is the YAML file of the pretraining run."""
    for left_out in (None, *OBJECTIVES):
        name = f"without-{left_out}" if left_out else "all"
        run = experiment.folder / f"pretrained-{name}"
        changes = [f"objectives.{left_out}=null"] if left_out else []
        experiment.start(
            "pretrain.py", f"--config={experiment.pretrained}", f"run_dir={run}", *changes
        )
        experiment.tune(name, "full", pretrained=str(run))


KINDS: dict[str, Callable[[Experiment], None]] = {
    one.__name__: one for one in (baselines, fractions, objectives)
}


def main() -> None:
    """Run one kind of experiment."""
    parser = argparse.ArgumentParser(description="Run and compare.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--task", required=True)
    parser.add_argument("--pretrained", required=True, help="run, or for objectives a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--launcher", choices=("deepspeed", "python"), default="deepspeed")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of tuning runs")
    arguments = parser.parse_intermixed_args()
    try:
        experiment = Experiment(arguments)
        KINDS[arguments.kind](experiment)
        compare_runs(experiment.runs, experiment.folder)
    except UserError as error:
        print(f"experiment: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
