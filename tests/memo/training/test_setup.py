"""What a run is put together from, and what is refused because it does not fit."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_pipeline.corpora.demo import write_demo
from data_pipeline.errors import UserError
from data_pipeline.mixture import Mixture
from data_pipeline.shards.reader import open_dataset
from data_pipeline.stream import Placement
from memo.config import PretrainConfig
from memo.settings import load_config
from memo.tokenizer import load_tokenizer, train_sentencepiece
from memo.training import setup
from memo.training.begun import has_begun, note_begun
from memo.training.checkpoint import Checkpoint, Progress
from memo.training.setup import (
    Data,
    batch_makers,
    build_model,
    build_transform,
    check_resumable,
    checkpoint_to_resume,
    first_state,
    model_spec,
    open_data,
    prepare_demo,
    run_folder,
)
from tests.memo.model.test_pretrained import save_random
from tests.memo.training.small_run import small_config, small_settings, write_small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("setup") / "dataset")


@pytest.fixture(scope="module")
def other_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("setup") / "tokenizer"
    train_sentencepiece(["quite other words, with other letters in them"], folder, 40)
    return folder


def bert(folder: Path, data: Data, **changes: object) -> Path:
    """A BERT with random weights and the dataset's vocabulary."""
    save_random(folder, "BertForMaskedLM", **{"vocab_size": data.tokenizer.vocab_size, **changes})
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.face_dim=342"], r"data\.face_dim=342, but the rows of .* have 48"),
        (["data.speech_dim=768"], r"data\.speech_dim=768, but the rows of .* have 64"),
        (["data.tokenizer=absent"], "no tokenizer at absent"),
        (["data.dataset=absent"], "absent"),
        (
            ["data.valid_split=test"],
            "no split 'test' to validate on, only train, valid: build it with --valid-share",
        ),
        (["model.heads=3"], "hidden=32 is no multiple of heads=3"),
        (["batch.token_budget=131"], r"token_budget=131 is less than the longest sequence, 132"),
        (["objectives.wwmml.ratio=1"], "wwmml"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    dataset: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    config = small_config(dataset, tmp_path / "run", *changes)
    with pytest.raises(UserError, match=message) as caught:
        build(config)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def second(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips under another name, without a validation split."""
    folder = tmp_path_factory.mktemp("setup") / "second"
    shutil.copytree(dataset, folder)
    record = json.loads((folder / "dataset.json").read_text())
    record["name"] = "second"
    record["shards"] = [one for one in record["shards"] if one["split"] == "train"]
    (folder / "dataset.json").write_text(json.dumps(record))
    return folder


def mixed_config(run: Path, *sources: str) -> PretrainConfig:
    settings = [one for one in small_settings(run, run) if not one.startswith("data.dataset")]
    return load_config(PretrainConfig, None, [*settings, f"data.mixture=[{','.join(sources)}]"])


def test_a_mixture_is_trained_on_and_validated_dataset_by_dataset(
    dataset: Path, second: Path, tmp_path: Path
) -> None:
    sources = f"{{dataset: {dataset}, weight: 1}}", f"{{dataset: {second}, weight: 3}}"
    data = open_data(mixed_config(tmp_path, *sources))
    assert isinstance(data.train, Mixture)
    assert data.train.shares.tolist() == [0.25, 0.75]
    assert list(data.valid) == ["demo"]
    by_size = open_data(mixed_config(tmp_path, f"{{dataset: {dataset}}}", f"{{dataset: {second}}}"))
    assert isinstance(by_size.train, Mixture)
    assert by_size.train.shares.tolist() == [0.5, 0.5]
    alone = open_data(small_config(dataset, tmp_path)).features.speech
    assert by_size.features.speech is not None
    assert alone is not None
    assert by_size.features.speech.std == pytest.approx(alone.std)


def test_samples_of_a_mixture_are_named_with_their_dataset(
    dataset: Path, second: Path, tmp_path: Path
) -> None:
    """They have the same shards and keys, and are quarantined apart."""

    def shards(config: PretrainConfig) -> list[str]:
        data = open_data(config)
        spec = model_spec(config, data)
        transform = build_transform(config, build_model(config, spec, data), data.tokenizer)
        makers = batch_makers(config, data, transform, spec, Placement())
        last = len(makers.train.split) - 1
        (valid,) = makers.valid.values()
        train = [makers.train.split.location(at)[0] for at in (0, last)]
        return [*train, valid.split.location(0)[0]]

    mixed = mixed_config(tmp_path, f"{{dataset: {dataset}}}", f"{{dataset: {second}}}")
    train, valid = "train-000000.tar", "valid-000000.tar"
    assert shards(mixed) == [f"demo/{train}", f"second/{train}", f"demo/{valid}"]
    assert shards(small_config(dataset, tmp_path)) == [train, train, valid]


def test_what_has_no_faces_is_pretrained_on_beside_what_has(dataset: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    shutil.copytree(dataset, heard)
    record = json.loads((heard / "dataset.json").read_text()) | {"name": "heard"}
    record["features"]["face"] = None
    (heard / "dataset.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"heard has no face features; .* dataset of data\.mixture"):
        open_data(small_config(heard, tmp_path / "run"))
    both = mixed_config(tmp_path / "run", f"{{dataset: {dataset}}}", f"{{dataset: {heard}}}")
    assert open_data(both).features.face is not None


def test_datasets_of_one_name_are_no_mixture(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are both called 'demo'"):
        open_data(mixed_config(tmp_path, *[f"{{dataset: {dataset}}}"] * 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.mixture=[{dataset: a}]"], "give dataset or mixture, not both"),
        (["data.dataset=null", "data.mixture=[{dataset: a}, {dataset: b, weight: 1}]"], "or none"),
        (["data.temperature=2"], "temperature is for a mixture without weights"),
    ],
)
def test_settings_of_a_mixture_that_do_not_go_together_are_refused(
    dataset: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        small_config(dataset, tmp_path, *changes)


def build(config: PretrainConfig) -> None:
    data = open_data(config)
    build_model(config, model_spec(config, data), data)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_all_shards_that_are_read_can_be_verified_first(
    dataset: Path, tmp_path: Path, split: str
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(dataset, changed)
    with (changed / f"{split}-000000.tar").open("ab") as tar:
        tar.write(bytes(512))
    open_data(small_config(changed, tmp_path / "run"))
    with pytest.raises(UserError, match=rf"{split}-000000\.tar was changed"):
        open_data(small_config(changed, tmp_path / "run", "data.verify=true"))


def test_the_position_tables_are_as_long_as_the_limits(dataset: Path, tmp_path: Path) -> None:
    limits = ("limits.text=511", "limits.face=65", "limits.speech=300")
    config = small_config(dataset, tmp_path / "run", *limits)
    spec = model_spec(config, open_data(config))
    assert (spec.max_positions, spec.max_face, spec.max_speech) == (513, 65, 300)
    short = model_spec(small_config(dataset, tmp_path), open_data(config))
    assert (short.max_positions, short.max_face, short.max_speech) == (512, 64, 128)


def test_the_model_is_what_the_settings_say(dataset: Path, tmp_path: Path) -> None:
    changes = ("model.size=base", "model.ffn=96", "model.dropout=0.3", "model.init_std=0.5")
    more = ("model.attention_dropout=0.4", "distribution.activation_checkpointing=true")
    config = small_config(dataset, tmp_path / "run", *changes, *more)
    data = open_data(config)
    spec = model_spec(config, data)
    assert (spec.hidden, spec.layers, spec.heads, spec.ffn) == (32, 1, 2, 96)
    assert (spec.dropout, spec.attention_dropout, spec.init_std) == (0.3, 0.4, 0.5)
    model = build_model(config, spec, data)
    assert model.backbone.encoder.recompute
    assert model.backbone.text.word.weight.std().item() == pytest.approx(0.5, rel=0.1)
    sizes = [f"model.{name}=null" for name in ("hidden", "layers", "heads", "ffn")]
    spec = model_spec(small_config(dataset, tmp_path / "run", "model.size=base", *sizes), data)
    assert (spec.hidden, spec.layers, spec.heads, spec.ffn) == (768, 12, 12, 3072)


def test_a_text_longer_than_berts_positions_is_refused(dataset: Path, tmp_path: Path) -> None:
    data = open_data(small_config(dataset, tmp_path))
    folder = bert(tmp_path / "bert", data)
    config = small_config(dataset, tmp_path, f"model.init_from={folder}", "limits.text=5000")
    with pytest.raises(UserError, match=r"limits\.text: 5002 positions, the model has only"):
        model_spec(config, data)


def test_a_seed_gives_the_same_weights_and_the_datasets_statistics(
    dataset: Path, tmp_path: Path
) -> None:
    config = small_config(dataset, tmp_path / "run")
    data = open_data(config)
    spec = model_spec(config, data)
    one, same = (build_model(config, spec, data).state_dict() for _ in range(2))
    other = build_model(config.model_copy(update={"seed": 5}), spec, data).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    weight = "backbone.text.word.weight"
    assert not torch.equal(one[weight], other[weight])
    assert data.features.face is not None
    torch.testing.assert_close(one["backbone.face.mean"], torch.tensor(data.features.face.mean))


def test_a_model_starts_from_bert(dataset: Path, tmp_path: Path) -> None:
    data = open_data(small_config(dataset, tmp_path))
    folder = bert(tmp_path / "bert", data)
    config = PretrainConfig.model_validate(
        {"data": {"dataset": dataset}, "model": {"init_from": folder}, "limits": {"text": 30}}
    )
    spec = model_spec(config, data)
    assert (spec.hidden, spec.layers, spec.heads, spec.ffn) == (32, 3, 4, 48)
    ours = build_model(config, spec, data)
    theirs = load_file(folder / "model.safetensors")
    assert torch.equal(
        ours.backbone.text.word.weight, theirs["bert.embeddings.word_embeddings.weight"]
    )
    assert torch.equal(ours.state_dict()["objectives.wwmlm.bias"], theirs["cls.predictions.bias"])


def test_a_bert_of_another_vocabulary_is_refused(dataset: Path, tmp_path: Path) -> None:
    data = open_data(small_config(dataset, tmp_path))
    folder = bert(tmp_path / "bert", data, vocab_size=61)
    config = small_config(dataset, tmp_path, f"model.init_from={folder}")
    with pytest.raises(UserError, match=f"pieces, the checkpoint {folder} 61; set data.tokenizer"):
        model_spec(config, data)


def test_of_a_table_that_is_rounded_up_the_words_of_its_own_tokenizer_are_taken(
    dataset: Path, other_tokenizer: Path, tmp_path: Path
) -> None:
    own = load_tokenizer(other_tokenizer)
    save_random(tmp_path / "bert", "BertForMaskedLM", vocab_size=own.vocab_size + 9)
    own.save(tmp_path / "bert")
    config = PretrainConfig.model_validate(
        {
            "data": {"dataset": dataset, "tokenizer": other_tokenizer},
            "model": {"init_from": tmp_path / "bert"},
        }
    )
    data = open_data(config)
    spec = model_spec(config, data)
    assert spec.vocab_size == own.vocab_size
    assert len(build_model(config, spec, data).backbone.text.word.weight) == own.vocab_size
    another = open_data(small_config(dataset, tmp_path)).tokenizer
    with pytest.raises(UserError, match=r"pieces, the checkpoint .* set data\.tokenizer"):
        model_spec(config, replace(data, tokenizer=another))


def saved(config: PretrainConfig, data: Data, folder: Path) -> Checkpoint:
    """The record of a checkpoint; its tokenizer alone is on disk."""
    data.tokenizer.save(folder / "tokenizer")
    progress = Progress(3, 0, first_state(config, data))
    spec = model_spec(config, data)
    return Checkpoint(folder, progress, config, spec, data.features, updates=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["model.hidden=16"], "hidden=32, this run's has 16"),
        (["model.dropout=0.2"], "dropout=0.1, this run's has 0.2"),
        (["seed=5"], "seed=1234, the config seed=5"),
        (["data.train_split=valid"], "was trained on data with fingerprint"),
    ],
)
def test_a_run_goes_on_with_the_same_alone(
    dataset: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    before, now = small_config(dataset, tmp_path), small_config(dataset, tmp_path, *changes)
    checkpoint = saved(before, open_data(before), tmp_path / "saved")
    data = open_data(now)
    with pytest.raises(UserError, match=message):
        check_resumable(checkpoint, now, model_spec(now, data), data)
    check_resumable(checkpoint, before, checkpoint.spec, open_data(before))


def test_another_tokenizer_is_refused(dataset: Path, tmp_path: Path, other_tokenizer: Path) -> None:
    before = small_config(dataset, tmp_path)
    now = small_config(dataset, tmp_path, f"data.tokenizer={other_tokenizer}")
    checkpoint = saved(before, open_data(before), tmp_path / "saved")
    with pytest.raises(UserError, match="the tokenizer is not the one of") as caught:
        check_resumable(checkpoint, now, checkpoint.spec, open_data(now))
    assert f"data.tokenizer={tmp_path / 'saved' / 'tokenizer'}" in str(caught.value)


def test_other_objectives_are_refused(dataset: Path, tmp_path: Path) -> None:
    before = small_config(dataset, tmp_path)
    checkpoint = saved(before, open_data(before), tmp_path / "saved")
    fewer = {name: one for name, one in before.objectives.items() if name != "span_mafr"}
    now = before.model_copy(update={"objectives": fewer})
    with pytest.raises(UserError, match="span_mafr, this run trains wwmlm"):
        check_resumable(checkpoint, now, checkpoint.spec, open_data(now))


def test_where_a_run_begins(dataset: Path, tmp_path: Path) -> None:
    config = small_config(dataset, tmp_path / "run")
    assert checkpoint_to_resume(config, "auto", again=False) is None
    assert checkpoint_to_resume(config, "never", again=False) is None
    with pytest.raises(UserError, match="there is no checkpoint in absent"):
        checkpoint_to_resume(config, "absent", again=False)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=r"--resume never: .*run has a run in it"):
        checkpoint_to_resume(config, "never", again=False)


def test_another_runs_checkpoint_does_not_take_the_place_of_this_ones(
    dataset: Path, tmp_path: Path
) -> None:
    config = small_config(dataset, tmp_path / "run")
    for run, step in (("run", "step-00000001"), ("other", "step-00000002")):
        place = tmp_path / run / "checkpoints"
        (place / step).mkdir(parents=True)
        (place / step / "manifest.json").write_text("{}")
        (place / "latest").write_text(f"{step}\n")
    with pytest.raises(UserError, match=r"--resume .*other: .*run has a run in it; go on with it"):
        checkpoint_to_resume(config, str(tmp_path / "other"), again=False)
    for own in ("run", "run/checkpoints/step-00000001"):
        with pytest.raises(UserError, match="step-00000001 is no whole checkpoint"):
            checkpoint_to_resume(config, str(tmp_path / own), again=False)
    (tmp_path / "run" / "checkpoints" / "latest").unlink()
    with pytest.raises(UserError, match="step-00000002 is no whole checkpoint"):
        checkpoint_to_resume(config, str(tmp_path / "other"), again=False)


def resumed(config: PretrainConfig, resume: str) -> Checkpoint | None:
    """What the job that the environment tells of goes on with."""
    again = has_begun(run_folder(config), resume, os.environ)
    return checkpoint_to_resume(config, resume, again)


@pytest.mark.parametrize("resume", ["auto", "never", "other"])
def test_a_job_that_is_begun_again_goes_on_with_what_it_has_saved(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: str
) -> None:
    """Its arguments are those of its first start, in which it has begun."""
    config, place = small_config(dataset, tmp_path / "run"), tmp_path / "run" / "checkpoints"
    (place / "step-00000001").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    note_begun(tmp_path / "run", resume, os.environ)
    if resume == "other":
        with pytest.raises(UserError, match="there is no checkpoint in other"):
            resumed(config, resume)
    else:
        assert resumed(config, resume) is None
    (place / "step-00000001" / "manifest.json").write_text("{}")
    (place / "latest").write_text("step-00000001\n")
    with pytest.raises(UserError, match="run/checkpoints/step-00000001 is no whole checkpoint"):
        resumed(config, resume)


def test_a_job_that_had_not_begun_heeds_its_argument(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requeued while it waited, it has saved nothing: what is there is of the run before."""
    config, place = small_config(dataset, tmp_path / "run"), tmp_path / "run" / "checkpoints"
    for step in (1, 2):
        (place / f"step-{step:08}").mkdir(parents=True)
        (place / f"step-{step:08}" / "manifest.json").write_text("{}")
    (place / "latest").write_text("step-00000002\n")
    first = str(place / "step-00000001")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    for job, resume in (("11", first), ("12", "auto")):
        note_begun(tmp_path / "run", resume, {"SLURM_JOB_ID": job})
    for restarts in ("0", "1", "2"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        with pytest.raises(UserError, match="step-00000001 is no whole checkpoint"):
            resumed(config, first)
        with pytest.raises(UserError, match=r"--resume never: .*run has a run in it"):
            resumed(config, "never")
    note_begun(tmp_path / "run", first, os.environ)
    note_begun(tmp_path / "run", "auto", {"SLURM_JOB_ID": "13"})
    with pytest.raises(UserError, match="step-00000002 is no whole checkpoint"):
        resumed(config, first)


def test_the_demo_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "write_demo", partial(write_demo, train=12, valid=4))
    monkeypatch.setattr(setup, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(setup, "DEMO_PIECES", 100)
    config = PretrainConfig()
    prepare_demo(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")}
    prepare_demo(config)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "demo").rglob("*")} == before
    assert len(open_dataset(tmp_path / "demo").split("train")) == len(open_data(config).train)
