"""More ranks than there is work for: said when a run is opened, once, and all end alike."""

import sys
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from launch.finetune import main
from memo.multitask.job import SystemJob
from memo.multitask.texts import SharedStates
from memo.tuning.results import TaskJob
from tests.distributed import started
from tests.memo.multitask.small_system import system_config, write_sog
from tests.memo.tuning.small_tuning import tuning_config


def on_its_rank(*arguments: str) -> None:
    """The command, on each rank."""
    sys.argv = ["finetune", *arguments]
    sys.exit(main())


def test_a_step_that_the_ranks_cannot_share_is_one_line(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    named = [f"--task={task}", f"--pretrained={backbone}", "--mode=linear"]
    settings = [f"run_dir={tmp_path / 'run'}", "threads=1", "batch.global_batch=1"]
    with started(on_its_rank, [*named, *settings], 2) as ranks:
        for one in ranks:
            one.process.join(120)
        assert [one.process.exitcode for one in ranks] == [2, 2]
        said = [one.output.read_text().splitlines() for one in ranks]
    lines = [line for one in said for line in one if "batch.global_batch" in line]
    assert lines == [
        "finetune: batch.global_batch=1 is less than the number of ranks, 2; raise it, or start "
        "fewer ranks"
    ]
    assert not (tmp_path / "run").exists()


def test_a_part_that_the_ranks_cannot_share_is_refused(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    few = tuning_config(task, backbone, tmp_path / "run", "linear", "batch.global_batch=500")
    job = TaskJob.open(few)
    clips = min(len(fold.train) for fold in job.setup.data.folds)
    job.check_ranks(clips)
    with pytest.raises(UserError, match=r"\d+ ranks, but fold \d of task small trains on only \d+"):
        job.check_ranks(clips + 1)


def test_an_episode_is_not_shared(tmp_path: Path) -> None:
    """Every rank takes the whole of it, so that there may be more of them than texts in it."""
    system = write_sog(tmp_path)

    def open_job(*changes: str) -> SystemJob:
        config = system_config(system, tmp_path / "run", "batch.global_batch=2", *changes)
        return SystemJob.open(config, SharedStates())

    open_job("sog.training=maml").check_ranks(3)
    with pytest.raises(UserError, match=r"batch.global_batch=2 is less .* of ranks, 3"):
        open_job().check_ranks(3)
