"""Settings that a run does not heed are refused, and those that it heeds are not."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from memo.settings import load_config
from memo.tuning.config import FinetuneConfig
from memo.tuning.continual import open_sequence
from memo.tuning.idle import check_settings
from memo.tuning.setup import set_up
from tests.memo.tuning.small_tuning import tuning_config

ONE, SEVERAL = ["task=a"], ["tasks=[a,b]"]
UNHEEDED = [
    (ONE, "full", ["adapter.size=9"], "adapter is for --mode adapter and prompt"),
    (ONE, "prompt", ["adapter.kind=lora"], "adapter is for --mode adapter and prompt"),
    (ONE, "adapter", ["adapter.scale=2"], "adapter.scale is for adapter.kind=lora"),
    (ONE, "prompt+adapter", ["adapter.scale=2"], "adapter.scale is for adapter.kind=lora"),
    (ONE, "adapter", ["prompt.soft=3"], "prompt is for --mode prompt and prompt"),
    (ONE, "linear", ["prompt.template='so [MASK]'"], "prompt is for --mode prompt and prompt"),
    (ONE, "full", ["continual.strength=9"], "continual is for a sequence of tasks"),
    (ONE, "full", ["backbone=original"], "backbone is for systems of several tasks"),
    (ONE, "full", ["members=[a]"], "members is for systems of several tasks"),
    (ONE, "full", ["longest={a: 9}"], "longest is for systems of several tasks"),
    (ONE, "full", ["truncation={a: head}"], "truncation is for systems of several tasks"),
    (ONE, "full", ["kept_gib=9"], "kept_gib is for systems of several tasks"),
    (ONE, "full", ["sog.gate=cag"], "sog is for systems of several tasks"),
    (SEVERAL, "full", ["continual.strength=9"], "continual.strength is for --mode ewc"),
    (SEVERAL, "replay", ["continual.fisher_clips=9"], "continual.fisher_clips is for --mode ewc"),
    (SEVERAL, "ewc", ["continual.replay_clips=9"], "continual.replay_clips is for --mode replay"),
    (SEVERAL, "ewc", ["adapter.size=9"], "adapter is for --mode adapter"),
    (SEVERAL, "full", ["prompt.soft=3"], "prompt is for a single task"),
    (SEVERAL, "full", ["training.fraction=0.5"], "training.fraction is for a single task"),
]
HEEDED = [
    (ONE, "adapter", ["adapter.kind=lora", "adapter.scale=2", "adapter.size=9", "dropout=0"]),
    (ONE, "prompt+adapter", ["adapter.size=9", "prompt.soft=3"]),
    (ONE, "prompt", ["prompt.template='so [MASK]'", "head.layers=last"]),
    (ONE, "full", ["training.fraction=0.5", "frozen_layers=1", "continual={}", "members=null"]),
    (SEVERAL, "ewc", ["continual.strength=9", "continual.fisher_clips=9", "head.layers=last"]),
    (SEVERAL, "replay", ["continual.replay_clips=9"]),
    (SEVERAL, "adapter", ["adapter.kind=lora", "adapter.scale=2"]),
]


def config(tasks: list[str], mode: str, changes: list[str]) -> FinetuneConfig:
    return load_config(FinetuneConfig, None, ["pretrained=x", f"mode={mode}", *tasks, *changes])


@pytest.mark.parametrize(("tasks", "mode", "changes", "message"), UNHEEDED)
def test_what_a_run_does_not_heed_is_refused(
    tasks: list[str], mode: str, changes: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=f"^{message}.*: this run does not heed it$"):
        check_settings(config(tasks, mode, changes))


@pytest.mark.parametrize(("tasks", "mode", "changes"), HEEDED)
def test_what_a_run_heeds_is_taken(tasks: list[str], mode: str, changes: list[str]) -> None:
    check_settings(config(tasks, mode, changes))


def test_runs_are_checked(task: Path, backbone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="continual is for a sequence of tasks"):
        set_up(tuning_config(task, backbone, run, "full", "continual.strength=9"))
    values = tuning_config(task, backbone, run, "full", "prompt.soft=3").model_dump(mode="json")
    several = values | {"task": None, "tasks": [str(task), "demo"]}
    with pytest.raises(UserError, match="prompt is for a single task"):
        open_sequence(FinetuneConfig.model_validate(several))
