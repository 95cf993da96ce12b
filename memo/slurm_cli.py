"""`memo slurm ...`: jobs on a cluster."""

import typer

from memo import slurm_options as options

slurm = typer.Typer(help="Run on a cluster with Slurm.", no_args_is_help=True)


@slurm.callback()
def _name() -> None:
    """Keep `submit` a command of its own, though it is the only one."""


@slurm.command()
def submit(
    script: options.Script,
    settings: options.Settings = None,
    config: options.Config = None,
    nodes: options.Nodes = "1",
    gpus_per_node: options.GpusPerNode = None,
    ntasks_per_node: options.TasksPerNode = None,
    cpus_per_task: options.CpusPerTask = None,
    partition: options.Partition = None,
    time: options.Time = None,
    sbatch: options.Sbatch = None,
    array: options.Array = None,
    vary: options.Vary = None,
    container: options.Container = None,
    print_: options.Print = False,
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
