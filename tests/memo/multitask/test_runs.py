"""Whole runs of systems: what they learn, what they leave, other ranks, and what is refused."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from data_pipeline.errors import AgreedError, UserError
from data_pipeline.shards.reader import open_dataset
from data_pipeline.subset import SubsetLengths
from memo.evaluation.compare import compare_runs
from memo.multitask.trained import open_texts
from memo.tuning.results import fold_folder
from memo.tuning.run import finetune
from tests.distributed import run_ranks
from tests.memo.multitask.small_system import (
    system_config,
    write_sog,
    write_system,
    write_trimodal,
)
from tests.memo.tuning.small_tuning import write_backbone, write_corpus


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def record(run: Path, fold: int = 0, seed: int = 1) -> dict[str, Any]:
    """A fold's record without its time."""
    found: dict[str, Any] = json.loads((fold_folder(run, fold, seed) / "result.json").read_text())
    return {name: value for name, value in found.items() if name != "seconds"}


SOG = [
    ("sog.gate=none",),
    ("sog.gate=cag", "sog.places=[convolution]"),
    ("sog.gate=silg", "sog.published_dense=true", "sog.training=alternating"),
    ("sog.training=maml", "sog.maml.batches=2"),
    ("sog.training=maml", "sog.maml.first_order=true"),
]


@pytest.mark.parametrize("changes", SOG, ids=lambda changes: changes[-1])
def test_sog_learns_both_tasks(changes: tuple[str, ...], sog: Path, tmp_path: Path) -> None:
    config = system_config(
        sog,
        tmp_path / "run",
        "training.epochs=12",
        "sog.dropout=0.2",
        "optimizer.lr=3e-2",
        *changes,
    )
    assert finetune(config) == 0
    found = results(tmp_path / "run")
    assert list(found["members"]) == ["people", "moods"]
    people, moods = (one["scores"] for one in found["members"].values())
    assert moods["wa"]["mean"] > 0.9 > 0.6 > found["members"]["moods"]["majority"]
    assert people["accuracy"]["mean"] > found["members"]["people"]["majority"] + 0.1
    traces = record(tmp_path / "run")["traces"]
    assert [one["epoch"] for one in traces] == list(range(1, 13))
    for one in traces:
        assert {"people/cosine/convolution", "moods/cosine/dense", "conflict"} <= set(one)
        assert all(-1.001 <= one[name] <= 1.001 for name in one if name != "epoch")


def test_all_watched_texts_are_measured_however_they_are_batched(sog: Path, tmp_path: Path) -> None:
    found = []
    for budget in (40, 4096):
        changes = f"batch.token_budget={budget}", "sog.dropout=0", "training.epochs=1"
        finetune(system_config(sog, tmp_path / str(budget), *changes))
        found.append(record(tmp_path / str(budget))["traces"][0])
    assert found[0] == pytest.approx(found[1], abs=1e-3)


SHARINGS = [
    ("asp_mtl.sharing=alone",),
    ("asp_mtl.sharing=fs", "asp_mtl.encoder=cnn"),
    ("asp_mtl.sharing=sp", "asp_mtl.encoder=bilstm", "asp_mtl.sampling=all"),
    ("asp_mtl.sharing=asp", "asp_mtl.unlabelled=true", "asp_mtl.sampling=proportional"),
    ("asp_mtl.sharing=asp", "asp_mtl.encoder=dnn", "asp_mtl.normalised=true", "optimizer.lr=0.05"),
]


@pytest.mark.parametrize("changes", SHARINGS, ids="-".join)
def test_asp_learns_every_session(changes: tuple[str, ...], asp: Path, tmp_path: Path) -> None:
    config = system_config(
        asp, tmp_path / "run", "training.epochs=12", "optimizer.lr=3e-2", *changes
    )
    assert finetune(config) == 0
    found = results(tmp_path / "run")
    assert list(found["members"]) == ["books", "films", "music"]
    assert found["average"]["mean"] > 0.85
    traced = set(record(tmp_path / "run")["traces"][0])
    recognised = {f"{name}/recognised" for name in found["members"]}
    assert (recognised <= traced) == ("asp_mtl.sharing=asp" in changes)


@pytest.mark.parametrize("system", ["sog", "asp"])
def test_lower_layers_stay_as_they_are(
    system: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    deep = write_backbone(write_corpus(tmp_path / "demo"), tmp_path / "deep", "model.layers=3")
    changes = ["backbone=memo", f"pretrained={deep}", "frozen_layers=1", "training.epochs=1"]
    changes += ["asp_mtl.upper_layers=1"] if system == "asp" else []
    read, kept = (tmp_path / "read", "kept_gib=0"), (tmp_path / "kept", "kept_gib=1")
    tuned = []
    for run, room in (read, kept):
        task = request.getfixturevalue(system)
        assert finetune(system_config(task, run, *changes, room)) == 0
        tuned.append(load_file(fold_folder(run, 0, 1) / "system" / "system.safetensors"))
    found = [re.match(r".*\.layers\.\d", name) for name in tuned[0]]
    assert len({one[0] for one in found if one}) == 2
    assert not [name for name in tuned[0] if ".below." in name or ".text." in name]
    assert all(torch.equal(tuned[1][name], value) for name, value in tuned[0].items())


@pytest.mark.parametrize("system", ["sog", "asp"])
@pytest.mark.parametrize("mode", ["full", "adapter", "linear"])
def test_a_backbone_can_be_below(
    system: str, mode: str, backbone: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    changes = ["backbone=memo", f"pretrained={backbone}", f"mode={mode}"]
    changes += ["adapter.size=4"] if system == "asp" or mode == "adapter" else []
    changes += ["asp_mtl.sharing=fs"] if system == "asp" and mode == "linear" else []
    config = system_config(request.getfixturevalue(system), tmp_path / "run", *changes)
    assert finetune(config) == 0
    trained = load_file(fold_folder(tmp_path / "run", 0, 1) / "system" / "system.safetensors")
    inside = [name for name in trained if "backbone." in name or ".upper." in name]
    of_the_body = [name for name in inside if "adapter" not in name and "norm." not in name]
    assert bool(of_the_body) == (mode == "full")
    adapters = [name for name in inside if "adapter" in name]
    assert bool(adapters) == (mode == "adapter" or (system == "asp" and mode == "full"))


def test_the_scores_are_those_of_the_written_answers(sog: Path, tmp_path: Path) -> None:
    finetune(system_config(sog, tmp_path / "run"))
    found = record(tmp_path / "run")["tasks"]
    people, moods = found["people"], found["moods"]
    told = np.array(people["answers"]["probabilities"]) > 0.5
    assert people["scores"]["accuracy"] == pytest.approx(
        (told == np.array(people["answers"]["targets"])).mean()
    )
    best = np.array(moods["answers"]["probabilities"]).argmax(axis=1)
    targets = np.array(moods["answers"]["targets"])[:, 0]
    assert moods["scores"]["wa"] == pytest.approx((best == targets).mean())
    assert len(people["answers"]["keys"]) == people["texts"]["test"] == 40


def test_the_same_seed_gives_the_same_run(asp: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        finetune(system_config(asp, tmp_path / name, "asp_mtl.unlabelled=true"))
    assert record(tmp_path / "one") == record(tmp_path / "two")


def two_ranks(argument: str) -> None:
    task, run, stage, changes = argument.split("|")
    settings = json.loads(changes)
    finetune(system_config(Path(task), Path(run), f"distribution.zero_stage={stage}", *settings))


@pytest.mark.parametrize(
    ("system", "stage", "changes"),
    [
        ("sog", 2, ["sog.dropout=0", "sog.training=maml"]),
        ("asp", 3, ["asp_mtl.sharing=sp"]),
    ],
)
def test_two_ranks_give_what_one_gives(
    system: str,
    stage: int,
    changes: list[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    task = request.getfixturevalue(system)
    alike = [*changes, "distribution.precision=fp32"]  # whatever this processor can do
    finetune(system_config(task, tmp_path / "one", *alike))
    argument = f"{task}|{tmp_path / 'two'}|{stage}|{json.dumps(alike)}"
    run_ranks(two_ranks, argument, 2)
    one, two = record(tmp_path / "one"), record(tmp_path / "two")
    assert one["epoch"] == two["epoch"]
    for name, of_task in one["tasks"].items():
        other = two["tasks"][name]["answers"]
        assert other["keys"] == of_task["answers"]["keys"]
        np.testing.assert_allclose(
            other["probabilities"], of_task["answers"]["probabilities"], atol=2e-4
        )


def with_another_copy(argument: str) -> None:
    """On each of two ranks: the second has one text of the second task with another length."""
    task, run = argument.split("|")
    plain = SubsetLengths.of

    def of(self: SubsetLengths, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        longer = self.longest < 20 and os.environ["RANK"] == "1"
        found: NDArray[np.int64] = plain(self, samples) + longer * (samples == 3)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SubsetLengths, "of", of)
        with pytest.raises(AgreedError, match="their copies of it differ"):
            finetune(system_config(Path(task), Path(run)))


def test_ranks_with_other_copies_of_a_task_are_refused(sog: Path, tmp_path: Path) -> None:
    run_ranks(with_another_copy, f"{sog}|{tmp_path / 'run'}", 2)


def test_odd_texts_stop_no_rank(tmp_path: Path) -> None:
    """One of ten thousand words is cut; blanks are named and left out, whichever rank has them."""
    blank = dict.fromkeys((5, 17, 64, 65, 66, 67), " ")
    task = write_sog(tmp_path, {3: "the cat " * 5_000, 8: "?!", **blank})
    alike = ["members=[people]", "sog.gate=none", "sog.dropout=0", "distribution.precision=fp32"]
    finetune(system_config(task, tmp_path / "one", *alike))
    run_ranks(two_ranks, f"{task}|{tmp_path / 'two'}|1|{json.dumps(alike)}", 2)
    for run in (tmp_path / "one", tmp_path / "two"):
        named = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
        assert sorted(int(one["key"][-3:]) for one in named) == sorted(blank)
        assert {one["reason"].partition(" text")[0] for one in named} == {"has neither"}
    answers = [record(tmp_path / run)["tasks"]["people"]["answers"] for run in ("one", "two")]
    assert answers[0]["keys"] == answers[1]["keys"]
    np.testing.assert_allclose(
        answers[0]["probabilities"], answers[1]["probabilities"], rtol=0, atol=1e-4
    )


def test_runs_are_compared_text_by_text(asp: Path, tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("fs", "sp")]
    for run in runs:
        finetune(system_config(asp, run, f"asp_mtl.sharing={run.name}"))
    compare_runs(runs, tmp_path / "out")
    first, second = json.loads((tmp_path / "out" / "comparison.json").read_text())
    averages = [results(run)["average"]["mean"] for run in runs]
    assert float(first["average"]) == pytest.approx(averages[0], abs=1e-4)
    difference = float(second["difference to the first (95 %)"].split()[0])
    assert difference == pytest.approx(averages[1] - averages[0], abs=2e-4)


def test_one_member_is_the_single_task(sog: Path, tmp_path: Path) -> None:
    finetune(system_config(sog, tmp_path / "run", "members=[moods]"))
    assert list(results(tmp_path / "run")["members"]) == ["moods"]


def test_a_clip_without_text_is_named_and_left_out(tmp_path: Path) -> None:
    """Every tenth post has none, and some of these nothing at all."""
    posts = write_trimodal(tmp_path).parent / "posts.yaml"
    system = write_system(tmp_path / "words.yaml", "sog", posts)
    assert finetune(system_config(system, tmp_path / "run", "sog.gate=none")) == 0
    lines = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    named = [json.loads(line) for line in lines]
    reasons = {one["reason"].partition(" text")[0] for one in named}
    assert reasons == {"has no", "has neither"}
    assert {int(one["key"][5:]) % 10 for one in named} == {9}
    keys = record(tmp_path / "run")["tasks"]["posts"]["answers"]["keys"]
    assert all(int(key[5:]) % 10 != 9 for key in keys)


REFUSED = [
    (["members=[people,weather]"], "sog has no 'weather', only people, moods"),
    (["mode=prompt"], "a system's backbone is tuned by full, linear, adapter"),
    (["folds=[7]"], "there are the folds 0 to 2"),
    (["modalities=[text]"], "modalities is for a single task"),
    (["training.fraction=0.5"], "training.fraction is for a single task"),
    (["words.vectors=nowhere.txt"], "there is no nowhere.txt"),
    (["head.pool=cls"], "head is for a single task"),
    (["training.class_weights=balanced"], "class_weights is for a single task"),
    (["asp_mtl.hidden=3"], "asp_mtl is not for sog"),
    (["mode=adapter"], "mode is not for backbone=original"),
    (["pretrained=somewhere"], "pretrained is for backbone=memo"),
    (["backbone=memo", "pretrained=x", "words.width=3"], "words is for backbone=original"),
    (["sog.widths=[0]"], "sog.widths"),
    (["sog.places=[]"], "sog.places"),
    (["sog.places=[dense,dense]"], "a place stands there twice"),
    (["sog.layer=1"], "sog.layer is not for backbone=original"),
    (
        ["sog.training=maml", "distribution.zero_stage=3"],
        "sog.training=maml needs whole parameters",
    ),
    (["batch.token_budget=20"], "batch.token_budget"),
    (["sog.training=maml", "members=[moods]"], "sog.training=maml needs two tasks"),
    (["sog.training=maml", "batch.token_budget=200"], "batch.token_budget=256 is needed"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_does_not_fit_is_refused(
    changes: list[str], reason: str, sog: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason.replace("(", r"\(")):
        finetune(system_config(sog, tmp_path / "run", *changes))
    assert not (tmp_path / "run").exists()


REFUSED_OF_ASP = [
    (["asp_mtl.leave_out=weather"], "'weather' is none of three or more tasks"),
    (["asp_mtl.leave_out=books", "asp_mtl.sharing=alone"], "nothing is shared"),
    (["asp_mtl.weights={weather: 2}"], "there is no task 'weather'"),
    (
        ["asp_mtl.leave_out=books", "asp_mtl.weights={books: 2}"],
        "no task 'books' among",
    ),
    (["asp_mtl.weights={books: -1}"], "asp_mtl.weights.books"),
    (["distribution.activation_checkpointing=true"], "does not go with changing adapters"),
    (["asp_mtl.upper_layers=2"], "asp_mtl.upper_layers is not for backbone=original"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED_OF_ASP, ids=lambda value: str(value)[:40])
def test_what_asp_cannot_do_is_refused(
    changes: list[str], reason: str, asp: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        finetune(system_config(asp, tmp_path / "run", *changes))
    assert not (tmp_path / "run").exists()


def test_a_backbone_is_needed_for_one_task_alone(sog: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="backbone is for systems of several tasks"):
        finetune(system_config(sog.parent / "moods.yaml", tmp_path / "run"))
    config = system_config(sog.parent / "people.yaml", tmp_path / "run")
    with pytest.raises(UserError, match="make it a part of --task sog"):
        finetune(config)


@pytest.mark.parametrize("sharing", ["sp", "asp"])
def test_private_encoders_that_nothing_trains_are_refused(
    sharing: str, asp: Path, backbone: Path, tmp_path: Path
) -> None:
    linear = ["backbone=memo", f"pretrained={backbone}", "mode=linear", "training.epochs=1"]
    with pytest.raises(UserError, match=f"asp_mtl.sharing={sharing}: --mode linear trains neither"):
        finetune(system_config(asp, tmp_path / "run", *linear, f"asp_mtl.sharing={sharing}"))
    assert finetune(system_config(asp, tmp_path / "run", *linear, "asp_mtl.sharing=fs")) == 0


def test_maml_through_a_backbone_is_of_first_order(
    sog: Path, backbone: Path, tmp_path: Path
) -> None:
    maml = ["backbone=memo", f"pretrained={backbone}", "sog.training=maml"]
    for changes, reason in (
        ([], "needs sog.maml.first_order=true"),
        (["distribution.activation_checkpointing=true"], "does not go with activation_check"),
    ):
        with pytest.raises(UserError, match=reason):
            finetune(system_config(sog, tmp_path / "run", *maml, *changes))
    first_order = ["sog.maml.first_order=true", "training.epochs=1"]
    assert finetune(system_config(sog, tmp_path / "run", *maml, *first_order)) == 0


def test_the_vectors_are_saved_at_every_stage(asp: Path, tmp_path: Path) -> None:
    run_ranks(frozen_words, f"{asp}|{tmp_path / 'run'}", 1)
    saved = fold_folder(tmp_path / "run", 0, 1) / "system"
    (answer,) = open_texts(saved).predict(["the sunny cat"], "books")
    assert sum(answer.values()) == pytest.approx(1)


def frozen_words(argument: str) -> None:
    task, run = argument.split("|")
    changes = ["words.frozen=true", "distribution.zero_stage=3", "training.epochs=1"]
    finetune(system_config(Path(task), Path(run), *changes))


@pytest.mark.parametrize("system", ["sog", "asp"])
@pytest.mark.parametrize("below", ["words", "backbone"])
def test_a_saved_system_answers_as_it_did(
    system: str, below: str, backbone: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    memo = ["backbone=memo", f"pretrained={backbone}", "mode=adapter", "adapter.size=4"]
    changes = ["words.frozen=true"] if below == "words" else [*memo, "direct=true"]
    finetune(system_config(request.getfixturevalue(system), tmp_path / "run", *changes))
    found = open_texts(fold_folder(tmp_path / "run", 0, 1) / "system")
    for name, of_task in record(tmp_path / "run")["tasks"].items():
        answers = of_task["answers"]
        data = {"people": "people_data", "moods": "moods_data"}.get(name, "reviews_data")
        folder = request.getfixturevalue(system).parent / data
        split = open_dataset(folder).whole()
        texts = {split.location(at)[1]: split.read_text(at) or "" for at in range(len(split))}
        told = found.predict([texts[key] for key in answers["keys"][:5]], name)
        rows = [list(one.values()) for one in told]
        np.testing.assert_allclose(rows, answers["probabilities"][:5], atol=2e-5)
        if system == "asp":
            assert found.shared_states(["the cat went"], name).shape[0] == 1
    with pytest.raises(UserError, match="there is no task 'weather'"):
        found.predict(["a"], "weather")


@pytest.mark.parametrize("below", ["words", "backbone"])
def test_a_left_out_task_is_learned_on_what_the_others_share(
    below: str, backbone: Path, asp: Path, tmp_path: Path
) -> None:
    memo = ["backbone=memo", f"pretrained={backbone}", "adapter.size=4"]
    changes = memo if below == "backbone" else ["training.epochs=10", "optimizer.lr=3e-2"]
    finetune(system_config(asp, tmp_path / "run", "asp_mtl.leave_out=films", *changes))
    found = record(tmp_path / "run")["tasks"]
    assert list(found) == ["single channel", "bi-channel"]
    for one in found.values():
        assert all("films" in key for key in one["answers"]["keys"])
        assert below == "backbone" or one["scores"]["wa"] > 0.8
    saved = open_texts(fold_folder(tmp_path / "run", 0, 1) / "system")
    assert list(saved.answers) == ["books", "music"]


def test_the_probe_and_the_typical_words(asp: Path, tmp_path: Path) -> None:
    """The name of the session stands in every text, so that the probe must find it.

    Convolutions keep a word; an LSTM that has learned to judge may have forgotten it.
    """
    changes = ["training.epochs=12", "optimizer.lr=3e-2", "asp_mtl.sharing=sp"]
    changes += ["asp_mtl.encoder=cnn"]
    finetune(system_config(asp, tmp_path / "run", *changes))
    found = record(tmp_path / "run")["examined"]
    assert found["task told by shared states"] > 0.5
    assert set(found["typical"]) == {"shared", "private, books", "private, films", "private, music"}
    page = (tmp_path / "run" / "report.html").read_text("utf8")
    assert f"<td>{found['task told by shared states']:.4f}</td>" in page
    named = found["typical"]["shared"]
    assert f"<td>{', '.join(named['for'])}</td>" in page
    assert {"sunny", "warm"} & set(named["against"][:2]) or {"cold", "grey"} & set(named["for"][:2])


def test_word_vectors_of_a_file_are_taken(sog: Path, tmp_path: Path) -> None:
    words = ["sunny", "warm", "cold", "grey", "slowly", "shouting"]
    rows = [
        f"{word} {' '.join(str(float(at == n)) for n in range(6))}" for at, word in enumerate(words)
    ]
    (tmp_path / "vectors.txt").write_text("\n".join(rows))
    changes = [f"words.vectors={tmp_path / 'vectors.txt'}", "words.frozen=true"]
    finetune(system_config(sog, tmp_path / "run", *changes))
    saved = fold_folder(tmp_path / "run", 0, 1) / "system"
    vocabulary = (saved / "words.txt").read_text().split("\n")
    table = load_file(saved / "system.safetensors")["texts.embedding.table.weight"]
    for at, word in enumerate(words):
        torch.testing.assert_close(table[vocabulary.index(word) + 2].float(), torch.eye(6)[at])


CONTRACTED = {at: f"i'm here and don’t go {at % 7}" for at in range(0, 120, 5)}
PARTED = {"i": [1.0, 0.0], "'m": [3.0, 2.0], "do": [-4.0, 4.0], "n't": [0.0, 2.0], "go": [8.0, 8.0]}


def test_contractions_are_found_by_their_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = write_sog(tmp_path, CONTRACTED)
    rows = [" ".join([word, *map(str, row)]) for word, row in PARTED.items()]
    (tmp_path / "vectors.txt").write_text("\n".join(rows))
    vectors = f"words.vectors={tmp_path / 'vectors.txt'}"
    finetune(system_config(task, tmp_path / "run", vectors, "words.frozen=true", "folds=[0,1]"))
    saved = fold_folder(tmp_path / "run", 0, 1) / "system"
    vocabulary = (saved / "words.txt").read_text("utf8").split("\n")
    table = load_file(saved / "system.safetensors")["texts.embedding.table.weight"]
    for word, row in {"i'm": [2.0, 1.0], "don’t": [-2.0, 3.0], "go": [8.0, 8.0]}.items():
        assert table[vocabulary.index(word) + 2].tolist() == row
    found = [record(tmp_path / "run", fold)["vectors"] for fold in (0, 1)]
    assert (found[0]["words"], found[0]["found"]) == (len(vocabulary), 3)
    summary = results(tmp_path / "run")["vectors"]
    assert summary.pop("file") == str(tmp_path / "vectors.txt")
    assert summary == {name: (found[0][name] + found[1][name]) / 2 for name in found[0]}
    (told,) = [one for one in caplog.messages if "vector" in one]
    share = f"{100 * found[0]['share']:.1f} % of their occurrences"
    assert f": 3 of {len(vocabulary)} words of the training texts ({share}) have a vector" in told
    page = (tmp_path / "run" / "report.html").read_text("utf8")
    assert "words with a vector" in page


def test_nothing_is_told_of_vectors_that_are_trained(
    sog: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finetune(system_config(sog, tmp_path / "run", "training.epochs=1"))
    assert not [one for one in caplog.messages if "vector" in one]
    assert "vectors" not in record(tmp_path / "run").keys() | results(tmp_path / "run").keys()
