"""The command as a user starts it: options, one line for a mistake, a run from end to end."""

from pathlib import Path

import pytest

from tests.launch.command import launch
from tests.memo.tuning.small_tuning import write_backbone, write_corpus, write_task

SCRIPT = "finetune.py"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task=demo", "--pretrained=x", "--mode=promt"], "did you mean 'prompt'"),
        (["--task=demo", "--pretrained=nowhere"], "there is no checkpoint in nowhere"),
        (["--pretrained=x", "--mode=full"], "give --task, or --tasks with two or more"),
        (["--tasks=a,b", "--pretrained=x", "--mode=linear"], "cannot learn a sequence"),
        (["folds=[]", "--task=demo", "--pretrained=x"], "folds=[]: "),
        (["training.epoch=3", "--task=demo", "--pretrained=x"], "did you mean 'epochs'"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_left(
    tmp_path: Path, words: list[str], message: str
) -> None:
    ended = launch(SCRIPT, tmp_path, *words)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("finetune: ")
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "demo")
    write_backbone(corpus, tmp_path / "backbone")
    task = write_task(tmp_path / "mine.yaml", corpus)
    words = ["folds=[0]", "training.epochs=1", "threads=1", "batch.global_batch=64"]
    named = [f"--task={task.name}", "--pretrained=backbone", "--mode=prompt+adapter"]
    ended = launch(SCRIPT, tmp_path, words[0], *named, *words[1:])
    assert ended.returncode == 0, ended.stderr
    run = tmp_path / "runs" / "mine-prompt+adapter"
    assert {"results.json", "report.html", "config.yaml", "origin.json", "folds"} == {
        path.name for path in run.iterdir()
    }
    again = launch(SCRIPT, tmp_path, *named, *words, "optimizer.lr=1e-5")
    assert again.returncode == 2
    assert "has a run with other settings (optimizer)" in again.stderr
