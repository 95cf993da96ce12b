"""The options of `memo slurm submit`."""

from pathlib import Path
from typing import Annotated

import typer

Script = Annotated[str, typer.Argument(help="pretrain, finetune or build.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Replace a setting; of a build what 'memo data build' is given, behind --.",
    ),
]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings.")]
Nodes = Annotated[str, typer.Option(help="A number, or a range: 1-4.")]
GpusPerNode = Annotated[
    str | None, typer.Option(help="A number, or TYPE:NUMBER; 1 if not given, of a build 0.")
]
TasksPerNode = Annotated[int | None, typer.Option(min=1, help="Processes; one a GPU if not given.")]
CpusPerTask = Annotated[int | None, typer.Option(min=1, help="Cores of a process.")]
Partition = Annotated[str | None, typer.Option(help="One, or several: a100,h100.")]
Time = Annotated[str | None, typer.Option(help="Time limit, e.g. 24:00:00.")]
Sbatch = Annotated[
    list[str] | None, typer.Option(help="Another option of sbatch: --sbatch=--account=a.")
]
Array = Annotated[
    str | None,
    typer.Option(
        help="folds, or folds%2: a task an array's fold, two at a time; of a build: 8, or 8%2."
    ),
]
Vary = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=A,B", help="Tune with each value, or each combination of values."),
]
Container = Annotated[Path | None, typer.Option(help="Apptainer image to run in.")]
Print = Annotated[bool, typer.Option("--print", help="Show the script; submit and write nothing.")]
