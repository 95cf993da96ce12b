"""`memo slurm ...`: jobs on a cluster."""

from pathlib import Path
from typing import Annotated

import typer

slurm = typer.Typer(help="Run on a cluster with Slurm.", no_args_is_help=True)


@slurm.callback()
def _name() -> None:
    """Keep `submit` a command of its own, though it is the only one."""


@slurm.command()
def submit(
    script: Annotated[str, typer.Argument(help="pretrain, finetune or build.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Replace a setting; of a build what 'memo data build' is given, behind --.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    nodes: Annotated[str, typer.Option(help="A number, or a range: 1-4.")] = "1",
    gpus_per_node: Annotated[
        str | None, typer.Option(help="A number, or TYPE:NUMBER; 1 if not given, of a build 0.")
    ] = None,
    ntasks_per_node: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a GPU if not given.")
    ] = None,
    cpus_per_task: Annotated[int | None, typer.Option(min=1, help="Cores of a process.")] = None,
    partition: Annotated[str | None, typer.Option(help="One, or several: a100,h100.")] = None,
    time: Annotated[str | None, typer.Option(help="Time limit, e.g. 24:00:00.")] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Another option of sbatch: --sbatch=--account=a.")
    ] = None,
    array: Annotated[
        str | None,
        typer.Option(
            help="folds, or folds%2: a task an array's fold, two at a time; of a build: 8, or 8%2."
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B", help="Tune with each value, or each combination of values."
        ),
    ] = None,
    container: Annotated[Path | None, typer.Option(help="Apptainer image to run in.")] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Show the script; submit and write nothing.")
    ] = False,
) -> None:
    """Queue a run on a snapshot of code and settings; preempted, it goes on with them."""
    from memo.slurm import Resources, Submission, render  # noqa: PLC0415
    from memo.slurm import submit as submit_jobs  # noqa: PLC0415

    named = {"cpus-per-task": cpus_per_task, "partition": partition, "time": time}
    more = [f"--{name}={value}" for name, value in named.items() if value is not None]
    gpus = gpus_per_node or ("0" if script == "build" else "1")
    resources = Resources(nodes, gpus, ntasks_per_node, [*more, *(sbatch or [])])
    submission = Submission(script, config, settings or [], resources, container, array, vary or [])
    typer.echo(render(submission) if print_ else submit_jobs(submission))
