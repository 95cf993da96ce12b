"""Whole tuning runs: results, resuming, other numbers of ranks, and what is refused."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from data_pipeline.corpora.demo import EMOTIONS
from data_pipeline.errors import AgreedError, UserError
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.writer import ShardWriter
from memo.evaluation.scores import rows_scores, score
from memo.settings import load_config
from memo.training.distributed import Ranks
from memo.training.signals import StopSignals
from memo.tuning import fold as tuning_fold
from memo.tuning import results as tuning_results
from memo.tuning.artifact import open_tuned
from memo.tuning.baselines import baselines
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Keeping
from memo.tuning.fold import FoldRun, predict, training_part
from memo.tuning.results import fold_folder
from memo.tuning.run import finetune
from memo.tuning.setup import Setup, build_model, open_backbone, set_up
from memo.tuning.task import LabelledCorpus, load_task
from tests.distributed import run_ranks
from tests.memo.tuning.small_tuning import tuning_config, write_backbone, write_task

ONE_RANK = "one"


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def record(run: Path, fold: int, seed: int = 1) -> dict[str, Any]:
    """A fold's record without its time."""
    found: dict[str, Any] = json.loads((fold_folder(run, fold, seed) / "result.json").read_text())
    return {name: value for name, value in found.items() if name != "seconds"}


@pytest.fixture(scope="module")
def done(task: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("done") / "run"
    assert finetune(tuning_config(task, backbone, run, "adapter")) == 0
    return run


def test_results_hold_every_fold_and_pattern(done: Path) -> None:
    found = results(done)
    assert (found["runs"], found["folds"], found["seeds"]) == (3, 3, [1])
    assert list(found["scores"]) == [
        "text+face+speech", "text+face", "text+speech", "face+speech", "text", "face", "speech",
    ]  # fmt: skip
    for pattern, summary in found["scores"].items():
        of_folds = [record(done, fold)["test"][pattern]["scores"]["uar"] for fold in range(3)]
        assert summary["uar"]["mean"] == pytest.approx(np.mean(of_folds))
        assert np.sum(summary["confusion"]) == 210  # every clip of both splits is tested once
    assert found["test_clips"] == 210
    assert found["nothing_in_sight"] == dict.fromkeys(found["scores"], 0)
    assert set(found["baselines"]) == {
        "majority",
        "tf-idf of the text",
        "mean of the face rows",
        "mean of the speech rows",
    }
    for name in ("face", "speech"):
        assert found["baselines"][f"mean of the {name} rows"]["uar"] > 2 / 7
    assert found["baselines"]["majority"]["uar"] == pytest.approx(1 / 7)


def test_scores_are_those_of_the_written_predictions(done: Path) -> None:
    number = {name: at for at, name in enumerate(EMOTIONS)}
    for fold in range(3):
        for pattern in record(done, fold)["test"].values():
            labels, predicted = (
                np.array([number[one[name]] for one in pattern["predictions"]])
                for name in ("label", "predicted")
            )
            found = score(labels, predicted, 7).to_json()
            assert found == pattern["scores"]
            for one in pattern["predictions"]:
                assert sum(one["probabilities"]) == pytest.approx(1, abs=1e-3)


def test_an_adapter_is_small_and_gives_the_same_predictions_again(
    done: Path, task: Path, backbone: Path
) -> None:
    config = tuning_config(task, backbone, done, "adapter")
    setup = set_up(config)
    tuned = open_tuned(fold_folder(done, 1, 1) / "tuned")
    assert tuned.config == config
    size = (fold_folder(done, 1, 1) / "tuned" / "tuned.safetensors").stat().st_size
    assert size < 30_000 < 4 * sum(one.numel() for one in setup.backbone.weights.values())
    model = build_model(setup.inputs, 5, torch.ones(7))
    tuned.load_onto(model, setup.backbone)
    fold = setup.data.folds[1]
    quarantine, keeping = Quarantine(done / "q.jsonl", 0), Keeping(done / "kept", StopSignals())
    run = FoldRun(setup.inputs, fold, 5, alone(), "t", quarantine, keeping)
    found = predict(model, run, fold.test, ("face", "speech"))
    written = record(done, 1)["test"]["face+speech"]["predictions"]
    rows = np.array([one["probabilities"] for one in written])
    np.testing.assert_allclose(found.probabilities, rows, atol=2e-5)
    with pytest.raises(AgreedError, match="t: no clip can be used"):  # all ranks know of it
        predict(model, run, fold.test[:0], ("face",))


class Alone(Ranks):
    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        return [value]


def alone() -> Ranks:
    return Alone(0, 1, torch.device("cpu"))


def test_an_adapter_of_another_backbone_is_refused(
    done: Path, corpus: Path, task: Path, tmp_path: Path
) -> None:
    other = write_backbone(corpus, tmp_path / "other", "model.hidden=16")
    setup = set_up(tuning_config(task, other, tmp_path / "run", "adapter"))
    tuned = open_tuned(fold_folder(done, 0, 1) / "tuned")
    with pytest.raises(UserError, match="was trained on the backbone with sha256"):
        tuned.load_onto(build_model(setup.inputs, 1, torch.ones(7)), setup.backbone)


def test_a_damaged_artifact_is_refused(done: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(fold_folder(done, 0, 1) / "tuned", folder)
    with (folder / "tuned.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x01\x02\x03\x04")
    with pytest.raises(UserError, match="was altered"):
        open_tuned(folder)
    record = json.loads((folder / "tuned.json").read_text())
    for name in ("tensors_sha256", "seed", "task"):
        less = {key: value for key, value in record.items() if key != name}
        (folder / "tuned.json").write_text(json.dumps(less))
        with pytest.raises(UserError, match=rf"tuned\.json: {name} is not set"):
            open_tuned(folder)
    (folder / "tuned.json").write_text('{"format": "memo-tuned/9"}')
    with pytest.raises(UserError, match="is not of the format memo-tuned/1"):
        open_tuned(folder)
    with (folder / "tuned.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError, match="holds no tuned model"):
        open_tuned(folder)


def test_a_run_killed_inside_a_fold_ends_as_one_that_was_not(
    done: Path, task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tuning_config(task, backbone, tmp_path / "run", "adapter")
    train_fold, calls = tuning_fold.train_fold, []

    def killed(run: FoldRun, display: Any) -> Any:  # noqa: ANN401
        calls.append(run.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_fold(run, display)

    monkeypatch.setattr(tuning_results, "train_fold", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(config)
    assert not (config.folder / "results.json").exists()
    finetune(config)
    assert calls == ["fold 0, seed 1", "fold 1, seed 1", "fold 1, seed 1", "fold 2, seed 1"]
    for fold in range(3):
        assert record(config.folder, fold) == record(done, fold)
        one, other = (
            open_tuned(fold_folder(run, fold, 1) / "tuned").tensors for run in (config.folder, done)
        )
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fold_that_another_run_has_written_meanwhile_stays(
    done: Path, task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the same command beside one another."""
    config = tuning_config(task, backbone, tmp_path / "run", "adapter", "folds=[0]")
    train_fold, other = tuning_fold.train_fold, fold_folder(config.folder, 0, 1)

    def slower(run: FoldRun, display: Any) -> Any:  # noqa: ANN401
        fitted = train_fold(run, display)
        shutil.copytree(fold_folder(done, 0, 1), other)
        (other / "mark").touch()
        return fitted

    monkeypatch.setattr(tuning_results, "train_fold", slower)
    assert finetune(config) == 0
    assert (other / "mark").exists()
    assert not (config.folder / "partial").exists()
    assert (config.folder / "results.json").exists()


def test_a_folder_of_another_run_is_left_as_it_is(done: Path, task: Path, backbone: Path) -> None:
    with pytest.raises(UserError, match=r"has a run with other settings \(optimizer\)"):
        finetune(tuning_config(task, backbone, done, "adapter", "optimizer.lr=1e-5"))


def test_a_run_goes_on_with_other_bounds(
    done: Path, task: Path, backbone: Path, tmp_path: Path
) -> None:
    """What ends a run for its time or its data changes nothing of what a fold gives."""
    run = tmp_path / "run"
    shutil.copytree(done, run)
    shutil.rmtree(fold_folder(run, 2, 1))
    bounds = ("distribution.hang_s=7200", "max_quarantined=3", "remote.attempts=2")
    finetune(tuning_config(task, backbone, run, "adapter", *bounds))
    assert results(run)["scores"] == results(done)["scores"]
    with pytest.raises(UserError, match=r"with other settings \(distribution\)"):
        finetune(tuning_config(task, backbone, run, "adapter", "distribution.zero_stage=1"))


def test_folds_of_another_task_or_backbone_are_not_mixed(
    done: Path, corpus: Path, task: Path, backbone: Path, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "run")
    path = tmp_path / "run" / "origin.json"
    origin = json.loads(path.read_text())
    config = tuning_config(task, backbone, tmp_path / "run", "adapter")
    for name in origin:
        path.write_text(json.dumps(origin | {name: "other"}))
        with pytest.raises(UserError, match=f"has folds of another {name}; set name="):
            finetune(config)


def test_folds_can_be_run_one_by_one(
    done: Path, task: Path, backbone: Path, tmp_path: Path
) -> None:
    for fold in (2, 0, 1):
        finetune(tuning_config(task, backbone, tmp_path / "run", "adapter", f"folds=[{fold}]"))
        assert results(tmp_path / "run")["runs"] == len(list((tmp_path / "run/folds").iterdir()))
    mine, theirs = results(tmp_path / "run"), results(done)
    assert mine["scores"] == theirs["scores"]


def test_a_seed_can_be_added(done: Path, task: Path, backbone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(done, run)
    before = record(run, 0)
    finetune(tuning_config(task, backbone, run, "adapter", "folds=[0]", "seeds=[1,2]"))
    assert (results(run)["runs"], results(run)["seeds"]) == (4, [1, 2])
    assert record(run, 0) == before
    assert record(run, 0, seed=2)["test"] != before["test"]


def test_the_test_part_decides_nothing(
    done: Path, task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other labels on the test clips the same epoch and the same weights come out."""
    config = tuning_config(task, backbone, tmp_path / "run", "adapter", "folds=[0]")

    def relabelled(config: FinetuneConfig) -> Setup:
        setup = set_up(config)
        test = setup.data.folds[0].test
        setup.data.labels[test] = (setup.data.labels[test] + 1) % 7
        return setup

    monkeypatch.setattr(tuning_results, "set_up", relabelled)
    finetune(config)
    mine, theirs = (open_tuned(fold_folder(run, 0, 1) / "tuned") for run in (config.folder, done))
    assert all(torch.equal(mine.tensors[name], theirs.tensors[name]) for name in mine.tensors)
    assert record(config.folder, 0)["epoch"] == record(done, 0)["epoch"]
    assert record(config.folder, 0)["test"] != record(done, 0)["test"]


def two_ranks(settings: str) -> None:
    """On each of two ranks: the run of some settings."""
    finetune(load_config(FinetuneConfig, Path(settings), []))


@pytest.mark.parametrize(("mode", "stage"), [("prompt+adapter", 2), ("adapter", 3), ("full", 1)])
def test_two_ranks_give_what_one_gives(
    task: Path, backbone: Path, tmp_path: Path, mode: str, stage: int
) -> None:
    quiet = ["folds=[0]", "head.dropout=0", "distribution.precision=fp32"]
    quiet += ["prompt.soft=2"] if "prompt" in mode else []
    plain = write_backbone_without_dropout(task, tmp_path)
    one = tuning_config(task, plain, tmp_path / "one", mode, *quiet)
    finetune(one)
    two = tuning_config(
        task, plain, tmp_path / "two", mode, *quiet, f"distribution.zero_stage={stage}"
    )
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(two.model_dump(mode="json")))
    run_ranks(two_ranks, str(path), 2)
    mine, theirs = (
        open_tuned(fold_folder(run, 0, 1) / "tuned").tensors for run in (two.folder, one.folder)
    )
    for name in theirs:
        torch.testing.assert_close(mine[name], theirs[name], atol=1e-5, rtol=1e-5)
    ours, others = record(two.folder, 0)["test"], record(one.folder, 0)["test"]
    for pattern in others:
        for a, b in zip(ours[pattern]["predictions"], others[pattern]["predictions"], strict=True):
            assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-4)


def test_ranks_with_other_settings_are_refused(task: Path, backbone: Path, tmp_path: Path) -> None:
    for rank, lr in enumerate((1e-3, 2e-3)):
        config = tuning_config(task, backbone, tmp_path / "run", "linear", f"optimizer.lr={lr}")
        path = tmp_path / f"{rank}.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    run_ranks(differing_ranks, str(tmp_path), 2)
    assert not (tmp_path / "run").exists()


def differing_ranks(folder: str) -> None:
    """On each of two ranks: the run of its own settings."""
    config = load_config(FinetuneConfig, Path(folder) / f"{os.environ['RANK']}.yaml", [])
    with pytest.raises(AgreedError, match=r"rank 1 on .* has optimizer.lr=0.002, rank 0 on "):
        finetune(config)


def write_backbone_without_dropout(task: Path, tmp_path: Path) -> Path:
    return write_backbone(
        Path(str(load_task(str(task)).dataset)),
        tmp_path / "plain",
        "model.dropout=0",
        "model.attention_dropout=0",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "mood"}, "has a label 'mood'; they have emotion"),
        ({"classes": ["angry", "happy"]}, "which is none of angry, happy; put it into"),
        ({"merge": {"sad": "grim"}}, "labelled 'sad', merged into 'grim', which is none of angry"),
        ({"classes": [1, 2]}, "classes.0=1: give a text; numbers, yes and no need quotes"),
        ({"ignore": "sad"}, r"ignore='sad': give a list, as \[a, b\]"),
        ({"classes": [*EMOTIONS, "bored"]}, "is labelled 'bored'; labels are: angry"),
        ({"classes": [*EMOTIONS, "sad"]}, "classes: .*, sad: each can stand there once"),
        ({"modalities": []}, "modalities=.*: Tuple should have at least 1 item"),
        ({"dataset": "nowhere"}, "there is no dataset in nowhere"),
        ({"seeds": []}, "seeds="),
        ({"seeds": [1, 1]}, "each number can stand there once"),
        ({"clases": ["a"]}, "unknown key 'clases'; did you mean 'classes'"),
        (
            {"folds": {"by": "speaker", "count": 3, "valid_share": 0.2}},
            "folds.valid_share: folds by speaker do not heed it",
        ),
        ({"folds": {"by": "session"}}, "have no session"),
        ({"folds": {"by": "speaker", "counts": 3}}, "unknown key 'folds.counts'; did you mean"),
    ],
)
def test_what_does_not_fit_the_corpus_is_refused(
    corpus: Path, backbone: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_task(tmp_path / "t.yaml", corpus, **changes)
    with pytest.raises(UserError, match=message):
        set_up(tuning_config(path, backbone, tmp_path / "run", "full"))
    assert not (tmp_path / "run").exists()


def write_incomplete(corpus: Path, folder: Path) -> Path:
    """The corpus without the text of every third clip, and the face of every sixth."""
    whole = open_dataset(corpus)
    features = whole.info.features
    with ShardWriter(folder, name="t", corpus="own", licence="own", features=features) as writer:
        split = whole.whole()
        for at in range(len(split)):
            clip = split.read(at)
            if at % 3 == 0:
                clip = replace(clip, text=None, words=())
            if at % 6 == 0:
                clip = replace(clip, face=None, expression=None)
            writer.write("train", clip)
    return folder


def test_clips_with_nothing_in_sight_are_answered_and_counted(
    corpus: Path, backbone: Path, tmp_path: Path
) -> None:
    task = write_task(tmp_path / "t.yaml", write_incomplete(corpus, tmp_path / "data"))
    changes = ["folds=[2]", "training.epochs=1"]
    config = tuning_config(task, backbone, tmp_path / "run", "linear", *changes)
    finetune(config)
    found, tested = results(tmp_path / "run"), set_up(config).data.folds[2].test
    no_text, no_face = int((tested % 3 == 0).sum()), int((tested % 6 == 0).sum())
    assert 0 < no_face < no_text
    assert found["test_clips"] == len(tested)
    assert found["nothing_in_sight"] == {
        **dict.fromkeys(["text+face+speech", "text+speech", "face+speech", "speech"], 0),
        **{"text+face": no_face, "text": no_text, "face": no_face},
    }
    for pattern in record(tmp_path / "run", 2)["test"].values():
        assert len(pattern["predictions"]) == len(tested)
    assert f"{no_text} of {len(tested)}" in (tmp_path / "run" / "report.html").read_text()


def test_some_of_the_modalities_can_be_taken_alone(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finetune(tuning_config(task, backbone, run, "linear", "folds=[0]", "modalities=[face,speech]"))
    assert list(results(run)["scores"]) == ["face+speech", "face", "speech"]
    assert list(results(run)["baselines"]) == [
        "majority",
        "mean of the face rows",
        "mean of the speech rows",
    ]
    corpus = Path(str(load_task(str(task)).dataset))
    less = write_task(tmp_path / "less.yaml", corpus, modalities=["text"])
    config = tuning_config(less, backbone, tmp_path / "x", "linear", "modalities=[face]")
    with pytest.raises(UserError, match="task less has no face, only text"):
        set_up(config)


def test_results_that_cannot_be_written_are_told_of_in_a_line(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    config = tuning_config(
        task, backbone, tmp_path / "run", "linear", "folds=[0]", "training.epochs=1"
    )
    (tmp_path / "run" / "results.json").mkdir(parents=True)
    with pytest.raises(AgreedError, match=r"Is a directory: .*results\.json"):
        finetune(config)
    (tmp_path / "run" / "results.json").rmdir()
    finetune(config)
    assert results(tmp_path / "run")["runs"] == 1


def test_of_blank_texts_there_is_no_text_baseline(
    task: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = set_up(tuning_config(task, backbone, tmp_path / "run", "linear")).data
    monkeypatch.setattr(type(data.split), "read_text", lambda *_: " \n")
    assert "majority" in (found := baselines(data, data.folds[:1]))
    assert "tf-idf of the text" not in found


def mean_speech(data: LabelledCorpus, sample: int) -> NDArray[np.float32]:
    rows = data.samples.read(sample).speech
    assert rows is not None
    return np.asarray(rows.mean(axis=0, dtype=np.float32))


def test_baselines_have_the_fraction_that_the_model_has(
    task: Path, backbone: Path, tmp_path: Path
) -> None:
    changes = ["folds=[0]", "seeds=[1,2]", "training.fraction=0.2", "training.epochs=1"]
    config = tuning_config(task, backbone, tmp_path / "run", "linear", *changes)
    finetune(config)
    data = set_up(config).data
    fold, scores = data.folds[0], []
    for seed in (1, 2):
        part = training_part(fold.train, data.labels, 0.2, seed)
        assert np.isin(part, fold.train).all()
        assert record(config.folder, 0, seed)["clips"]["train"] == len(part) < len(fold.train) / 4
        train, test = (np.array([mean_speech(data, at) for at in one]) for one in (part, fold.test))
        scores.append(rows_scores(train, data.labels[part], test, data.labels[fold.test], 7).uar)
    found = results(config.folder)["baselines"]["mean of the speech rows"]["uar"]
    assert found == pytest.approx(np.mean(scores))


def test_an_unknown_task_lists_the_known_ones(backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no task 'iemocap'; known are: .*iemocap4"):
        set_up(tuning_config(Path("iemocap"), backbone, tmp_path / "run", "full"))
    with pytest.raises(UserError, match=r"^there is no task file absent\.yaml$"):
        set_up(tuning_config(Path("absent.yaml"), backbone, tmp_path / "run", "full"))


def test_a_corpus_of_another_encoder_is_refused(task: Path, backbone: Path, tmp_path: Path) -> None:
    run = tmp_path / "other"
    shutil.copytree(backbone, run)
    folder = open_backbone(tuning_config(task, run, tmp_path / "r", "full")).checkpoint.folder
    state = (folder / "state.json").read_text()
    changed = json.loads(state)
    changed["features"]["speech"]["encoder"] = "wav2vec2"
    (folder / "state.json").write_text(json.dumps(changed))
    manifest = json.loads((folder / "manifest.json").read_text())
    from data_pipeline.shards.index import file_sha256

    content = folder / "state.json"
    manifest["state.json"] = {
        "bytes": content.stat().st_size,
        "sha256": file_sha256(content),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        UserError, match=r"have encoder=demo, those that .* was trained on wav2vec2"
    ):
        set_up(tuning_config(task, run, tmp_path / "r", "full"))
