"""A dataset whose face encoder knows no expressions: refused with SpanMVFC-KL, usable without."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from data_pipeline.shards.check import check_dataset, describe
from data_pipeline.shards.merge import merge_datasets
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.writer import ShardWriter
from memo.evaluation.evaluate import run_evaluation
from memo.preview.page import PreviewSettings, write_preview
from memo.training.dry_run import dry_run
from memo.training.pretrain import pretrain
from tests.memo.training.small_run import logged, small_config, write_small_dataset

WITHOUT = "objectives.span_mvfc_kl=null"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's clips as a face encoder without classes would have made them."""
    folder = tmp_path_factory.mktemp("plain")
    whole = open_dataset(write_small_dataset(folder / "whole"))
    face = whole.info.features.face
    assert face is not None
    without = face.model_copy(update={"classes": (), "encoder": "timm:x", "mean": (), "std": ()})
    features = whole.info.features.model_copy(update={"face": without})
    out = folder / "plain"
    with ShardWriter(out, name="plain", corpus="c", licence="none", features=features) as writer:
        for name in whole.info.splits:
            split = whole.split(name)
            for clip in map(split.read, range(len(split))):
                writer.write(name, replace(clip, expression=None))
    shutil.copytree(folder / "whole" / "tokenizer", out / "tokenizer")
    return out


def test_the_dataset_is_whole(dataset: Path, tmp_path: Path) -> None:
    assert list(check_dataset(dataset)) == []
    assert describe(open_dataset(dataset))["expression"] == "none"
    with pytest.raises(UserError, match=r"the face rows of demo have .*build both with the same"):
        merge_datasets([dataset, dataset.with_name("whole")], tmp_path / "both")


@pytest.mark.parametrize("command", [lambda config: pretrain(config, "auto"), dry_run])
def test_expressions_that_are_not_there_cannot_be_predicted(
    dataset: Path, tmp_path: Path, command: object
) -> None:
    assert callable(command)
    message = r"span_mvfc_kl predicts expressions, .*; leave it out with objectives\.span_mvfc_kl="
    with pytest.raises(UserError, match=message) as caught:
        command(small_config(dataset, tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_other_objectives_are_trained_and_evaluated(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = small_config(dataset, run, WITHOUT, "steps=2")
    assert dry_run(config) == 0
    assert pretrain(config, "auto") == 0
    losses = [row for row in logged(run) if "loss" in row]
    assert len(losses) == 2
    assert all(row["loss/span_mvfr"] > 0 for row in losses)
    assert not any("span_mvfc_kl" in name for row in losses for name in row)
    capsys.readouterr()
    run_evaluation(run, dataset, "valid", None)
    assert "span_mvfr: face hidden" in capsys.readouterr().out


def test_the_preview_shows_the_rows_without_expressions(dataset: Path, tmp_path: Path) -> None:
    for name, bands in (("plain", False), ("whole", True)):
        write_preview(PreviewSettings(dataset.with_name(name), tmp_path / f"{name}.html"))
        page = (tmp_path / f"{name}.html").read_text()
        assert ("timm:x, 48 numbers" in page) != bands
        assert ("Posteriors of the expression" in page) == bands
