"""Whole runs of the trimodal system: patterns, fusions, losses of data, and broken images."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.packing import pack
from data_pipeline.shards.reader import open_dataset
from memo.config import Limits
from memo.model.memobert import MemoBert
from memo.multitask.config import ImageSettings
from memo.multitask.images import ImageNetwork
from memo.multitask.members import load_system, open_members
from memo.multitask.posts import CLIP, ClipTransform, Losing, clip_specs, only
from memo.multitask.trained import open_texts, open_trimodal
from memo.tuning.config import FinetuneConfig
from memo.tuning.results import fold_folder
from memo.tuning.run import finetune
from tests.distributed import run_ranks
from tests.memo.model.packed import random_batch, small_spec
from tests.memo.multitask.small_system import (
    cast_parameters,
    system_config,
    write_moods,
    write_system,
    write_trimodal,
)
from tests.memo.tuning.small_tuning import write_backbone, write_corpus, write_task

PATTERNS = [
    "image+text+tags", "image+text", "image+tags", "text+tags", "image", "text", "tags",
]  # fmt: skip


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trimodal(tmp_path_factory.mktemp("posts"))


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fold_folder(run, 0, 1) / "result.json").read_text())
    return found


@pytest.mark.parametrize("fusion", ["seven", "concat", "mean", "late"])
def test_every_pattern_is_answered(fusion: str, posts: Path, tmp_path: Path) -> None:
    changes = [f"trimodal.fusion={fusion}", "training.epochs=8", "optimizer.lr=5e-3"]
    finetune(system_config(posts, tmp_path / "run", *changes))
    found = record(tmp_path / "run")["tasks"]
    assert list(found) == PATTERNS
    keys = {name: set(one["answers"]["keys"]) for name, one in found.items()}
    numbers = {name: {int(key[5:]) for key in of} for name, of in keys.items()}
    assert numbers["text"] == {at for at in numbers[PATTERNS[0]] if at % 10 != 9}
    assert numbers["tags"] == {at for at in numbers[PATTERNS[0]] if at % 3 != 2}
    assert numbers["image"] == {at for at in numbers[PATTERNS[0]] if at % 15 != 14}
    assert numbers["text+tags"] == numbers["text"] | numbers["tags"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())["members"]
    for name, of in numbers.items():
        assert (results[name]["answered"], results[name]["texts"]) == (len(of), 30)
        good = np.mean([at % 2 == 0 for at in of])
        assert results[name]["majority"] in (pytest.approx(good), pytest.approx(1 - good))
    assert found[PATTERNS[0]]["scores"]["wa"] > 0.8
    if fusion == "seven":
        assert found["tags"]["scores"]["wa"] > 0.8
    saved = load_file(fold_folder(tmp_path / "run", 0, 1) / "system" / "system.safetensors")
    assert saved["means"].any(dim=1).tolist() == [fusion == "mean"] * 3


def test_patterns_are_compared_on_what_all_of_them_answer(posts: Path, tmp_path: Path) -> None:
    """Scores of the posts with everything, counted again from the written answers."""
    finetune(system_config(posts, tmp_path / "run", "training.epochs=1", "folds=[0,1]"))
    found = json.loads((tmp_path / "run" / "results.json").read_text())["members"]
    whole = [at for at in range(90) if at % 3 != 2 and at % 10 != 9 and at % 15 != 14]
    accuracies: dict[str, list[float]] = {name: [] for name in PATTERNS}
    majorities, count, confusion = [], 0, np.zeros((2, 2), int)
    for fold in (0, 1):
        text = (fold_folder(tmp_path / "run", fold, 1) / "result.json").read_text()
        for name, one in json.loads(text)["tasks"].items():
            answers = one["answers"]
            told = {
                int(key[5:]): int(np.argmax(row))
                for key, row in zip(answers["keys"], answers["probabilities"], strict=True)
            }
            own = [at for at in whole if at in told]  # an odd post is a bad one
            accuracies[name].append(float(np.mean([told[at] == at % 2 for at in own])))
            if name == "tags":
                count += len(own)
                good = float(np.mean([at % 2 == 0 for at in own]))
                usual = _usual(posts, fold)
                majorities.append(good if usual == 0 else 1 - good)
                np.add.at(confusion, ([at % 2 for at in own], [told[at] for at in own]), 1)
    for name in PATTERNS:
        common = found[name]["common"]
        assert common["answered"] == count < found[name]["answered"]
        assert common["scores"]["wa"]["mean"] == pytest.approx(np.mean(accuracies[name]))
        assert common["majority"] == pytest.approx(np.mean(majorities))
    assert found["tags"]["common"]["scores"]["confusion"] == confusion.tolist()
    page = (tmp_path / "run" / "report.html").read_text()
    table = page.partition("Tasks on the samples that have every modality</h2>")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", table.partition("</table>")[0])
    assert [re.findall(r"<td>(.*?)</td>", row)[0] for row in rows[1:]] == PATTERNS
    for row, name in zip(rows[1:], PATTERNS, strict=True):
        cells = re.findall(r"<td>(.*?)</td>", row)
        assert cells[1].startswith(f"{np.mean(accuracies[name]):.4f} ±")
        assert cells[-1] == f"{count} of 60"


def _usual(system: Path, fold: int) -> int:
    """The most frequent class of a training part, by the numbers of its posts."""
    (member,) = open_members(load_system(str(system)), None)
    numbers = [int(member.corpus.samples.location(at)[1][5:]) for at in member.folds[fold].train]
    return int(np.bincount([at % 2 for at in numbers], minlength=2).argmax())


def test_an_image_network_is_trained_in_bfloat16(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memo.training.engine.supports_bf16", lambda: True)  # slowly, if need be
    half = ["distribution.precision=bf16", "distribution.zero_stage=1", "trimodal.fusion=mean"]
    finetune(system_config(posts, tmp_path / "run", *half))
    saved = load_file(fold_folder(tmp_path / "run", 0, 1) / "system" / "system.safetensors")
    statistics = [one for name, one in saved.items() if name.endswith(("_mean", "_var", "means"))]
    assert len(statistics) > 2
    assert all(one.dtype == torch.float32 and one.isfinite().all() for one in statistics)


def test_modalities_can_be_lost_for_good(posts: Path, tmp_path: Path) -> None:
    finetune(system_config(posts, tmp_path / "run", "trimodal.lost=0.75"))
    rng = np.random.default_rng(0)
    has = rng.random((2000, 3)) < 0.8
    losing = Losing(0.5, seed=3)
    kept = np.array([losing.keep(row, at) for at, row in enumerate(has)])
    several = has.sum(axis=1) > 1
    assert (kept[~several] == has[~several]).all()
    lost = (has & ~kept).sum(axis=1)
    assert not (kept & ~has).any()
    assert set(lost[several].tolist()) == {0, 1}
    assert lost[several].mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(kept[7], losing.keep(has[7], 7))


def write_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(ImageNetwork(ImageSettings(model="test_resnet")).body.state_dict(), path)
    return path


def test_a_frozen_network_reads_every_image_once(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    weights = write_weights(tmp_path / "weights.pt", seed=0)
    frozen = ["trimodal.image.frozen=true", f"trimodal.image.weights={weights}"]
    finetune(system_config(posts, tmp_path / "run", *frozen))
    (rows,) = (tmp_path / "cache" / "images").glob("*.npy")
    table = np.load(rows)
    assert len(table) == 90
    missing = [at for at in range(90) if at % 15 == 14]
    assert np.flatnonzero(np.isnan(table).any(axis=1)).tolist() == missing
    check_saved(tmp_path / "run", posts.parent / "posts_data")


def test_what_was_saved_knows_the_weights_that_it_needs(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen network is in its own file alone; a trained one is saved whole."""
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    weights = write_weights(tmp_path / "weights.pt", seed=0)
    start = ["training.epochs=1", f"trimodal.image.weights={weights}"]
    finetune(system_config(posts, tmp_path / "frozen", *start, "trimodal.image.frozen=true"))
    finetune(system_config(posts, tmp_path / "trained", *start))
    frozen = fold_folder(tmp_path / "frozen", 0, 1) / "system"
    check_saved(tmp_path / "frozen", posts.parent / "posts_data")
    moved = Path(shutil.copy(weights, tmp_path / "moved.pt"))
    write_weights(weights, seed=1)
    with pytest.raises(UserError, match=r"of sha256 \w{16}…, .*weights.pt has \w{16}…"):
        open_trimodal(frozen)
    weights.unlink()
    with pytest.raises(UserError, match=r"weights of .*: there is no such file; .* images=FILE"):
        open_trimodal(frozen)
    check_saved(tmp_path / "frozen", posts.parent / "posts_data", images=moved)
    check_saved(tmp_path / "trained", posts.parent / "posts_data")


NOTHING = {29, 59, 89}
"""Posts without image, text and tags."""
BROKEN = {at for at in range(90) if at % 4 == 1 and at % 15 != 14}


def broken_config(task: Path, run: Path, *changes: str) -> FinetuneConfig:
    alike = ["training.epochs=1", "trimodal.dropout=0", "distribution.precision=fp32"]
    alike += ["trimodal.fusion=mean"]  # each rank sums a share
    weights = f"trimodal.image.weights={task.parent / 'weights.pt'}"
    return system_config(task, run, *alike, weights, *changes)


def two_ranks(argument: str) -> None:
    """Images read once, images of a network that is trained, and more broken ones than may be."""
    task, stage = Path(argument), "distribution.zero_stage=1"
    runs = task.parent / "two"
    assert finetune(broken_config(task, runs / "once", stage, "trimodal.image.frozen=true")) == 0
    assert finetune(broken_config(task, runs / "trained", stage)) == 0
    with pytest.raises(UserError, match="more than 9 bad samples"):
        finetune(broken_config(task, runs / "few", stage, "max_quarantined=9"))


def test_broken_images_are_named_once_and_left_out_on_two_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    task = write_trimodal(tmp_path, BROKEN)
    write_weights(tmp_path / "weights.pt", seed=0)
    finetune(broken_config(task, tmp_path / "one", "trimodal.image.frozen=true"))
    run_ranks(two_ranks, str(task), 2, limit_s=150)
    expected = record(tmp_path / "one")["tasks"]
    for run in (tmp_path / "one", tmp_path / "two" / "once", tmp_path / "two" / "trained"):
        lines = (run / "quarantine.jsonl").read_text().splitlines()
        named = sorted((int(one["key"][5:]), one["member"]) for one in map(json.loads, lines))
        assert named == sorted([*((at, "jpg") for at in BROKEN), *((at, "") for at in NOTHING)])
        for view, found in record(run)["tasks"].items():
            answers = found["answers"]
            assert not BROKEN & {int(key[5:]) for key in answers["keys"]}
            assert answers["keys"] == expected[view]["answers"]["keys"]
            if run.name == "once":  # the statistics of a trained network are of each rank's batch
                alone = expected[view]["answers"]["probabilities"]
                np.testing.assert_allclose(answers["probabilities"], alone, atol=2e-4)
    assert not (tmp_path / "two" / "few" / "results.json").exists()


def check_saved(run: Path, data: Path, images: Path | None = None) -> None:
    """What was saved answers samples of a run's test part as the run did."""
    saved = open_trimodal(fold_folder(run, 0, 1) / "system", images=images)
    split = open_dataset(data).whole()
    numbers = {split.location(at)[1]: at for at in range(len(split))}
    whole = next(iter(record(run)["tasks"].values()))["answers"]
    told = saved.predict([split.read(numbers[key]) for key in whole["keys"]])
    rows = [list(one.values()) for one in told]
    np.testing.assert_allclose(rows, whole["probabilities"], atol=2e-5)


def test_a_saved_system_answers_as_it_did(posts: Path, backbone: Path, tmp_path: Path) -> None:
    short = ["trimodal.fusion=mean", "training.epochs=1"]
    finetune(system_config(posts, tmp_path / "posts", *short))
    check_saved(tmp_path / "posts", posts.parent / "posts_data")
    corpus = backbone.parent / "demo"
    task = write_task(tmp_path / "small.yaml", corpus)
    system = write_system(tmp_path / "clips.yaml", "trimodal", task)
    memo = ["backbone=memo", f"pretrained={backbone}", *short]
    finetune(system_config(system, tmp_path / "clips", *memo))
    check_saved(tmp_path / "clips", corpus)
    with pytest.raises(UserError, match="posts or clips, not of texts"):
        open_texts(fold_folder(tmp_path / "clips", 0, 1) / "system")


def test_a_modality_of_the_backbone_is_read_alone() -> None:
    """The states are those of a batch that has never had anything else."""
    clips = [(3, 2, 4), (0, 5, 1), (4, 0, 0), (2, 3, 0)]
    spec = small_spec()
    batch = random_batch(spec, clips)
    model = MemoBert(spec).eval()
    for number in range(len(CLIP)):
        lengths = [clip[number] for clip in clips]
        alone, owner = only(batch, number)
        expected = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
        assert owner.tolist() == expected.tolist()
        assert alone.seqlens == tuple(length for length in lengths if length)
        names = ("text_ids", "face", "speech")
        bare = random_batch(spec, [(0, 0, 0)])
        kept = [name for name in names if name == names[number]]
        for name in kept:
            assert torch.equal(getattr(alone, name), getattr(batch, name))
        assert all(len(getattr(alone, name)) == 0 for name in names if name not in kept)
        assert len(model(alone)) == len(owner) > len(bare.order)


def test_what_is_refused(posts: Path, tmp_path: Path) -> None:
    for changes, reason in (
        (["trimodal.image.frozen=true"], "frozen=true needs weights"),
        (["trimodal.image.model=nonsense"], "timm has no 'nonsense'"),
        (["trimodal.image.model=vit_tiny_patch16_224"], "cannot read images of 32 x 32"),
        ([f"trimodal.image.weights={posts}"], "cannot be read as weights"),
    ):
        with pytest.raises(UserError, match=reason):
            finetune(system_config(posts, tmp_path / "run", *changes))


def test_what_is_no_post_or_no_clip_is_refused(posts: Path, tmp_path: Path) -> None:
    moods = write_moods(tmp_path / "moods_data")
    task = yaml.safe_load((posts.parent / "posts.yaml").read_text()) | {"dataset": str(moods)}
    task["folds"] = {"by": "speaker", "count": 3, "valid_groups": 8}
    (tmp_path / "moods.yaml").write_text(yaml.safe_dump(task))
    system = write_system(tmp_path / "system.yaml", "trimodal", tmp_path / "moods.yaml")
    with pytest.raises(UserError, match="has no image; posts have image, text and tags"):
        finetune(system_config(system, tmp_path / "run"))
    corpus = write_corpus(tmp_path / "demo")
    memo = ["backbone=memo", f"pretrained={write_backbone(corpus, tmp_path / 'backbone')}"]
    with pytest.raises(UserError, match="has no face; a backbone reads text, face and speech"):
        finetune(system_config(system, tmp_path / "run", *memo))
    clips = write_system(
        tmp_path / "clips.yaml", "trimodal", write_task(tmp_path / "emotion.yaml", corpus)
    )
    limits = ["limits.face=900", "batch.token_budget=9000"]
    with pytest.raises(UserError, match="face=900, the model has"):
        finetune(system_config(clips, tmp_path / "run", *memo, *limits))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_image_uses_every_parameter_and_no_statistics(dtype: torch.dtype) -> None:
    network = ImageNetwork(ImageSettings(model="test_resnet", size=32))
    if dtype == torch.bfloat16:
        cast_parameters(network)
    before = {name: one.clone() for name, one in network.named_buffers()}
    for count in (0, 1):
        rows = network(torch.zeros(count, 3, 32, 32, dtype=torch.uint8))
        assert rows.shape == (count, network.width)
        rows.sum().backward()
        assert all(one.grad is not None for one in network.parameters())
    assert all(torch.equal(one, before[name]) for name, one in network.named_buffers())


def test_clips_of_the_backbone_are_trimodal_too(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "demo")
    backbone = write_backbone(corpus, tmp_path / "backbone")
    task = write_task(tmp_path / "emotion.yaml", corpus)
    system = write_system(tmp_path / "clips.yaml", "trimodal", task)
    changes = ["backbone=memo", f"pretrained={backbone}", "mode=full", "trimodal.lost=0.25"]
    finetune(system_config(system, tmp_path / "run", *changes))
    found = record(tmp_path / "run")["tasks"]
    assert list(found) == [
        "text+face+speech", "text+face", "text+speech", "face+speech", "text", "face", "speech",
    ]  # fmt: skip
    assert found["text+face+speech"]["scores"]["wa"] > 1.5 / 7


def test_a_clip_keeps_what_it_has() -> None:
    spec = small_spec()
    transform = ClipTransform(
        lambda text: np.array([2, len(text), 3]), Limits(), spec, np.array([4]), CLIP, Losing(0, 0)
    )
    clip = Clip("a", text="hello", speech=np.ones((5, spec.speech_dim), np.float16))
    batch = pack([transform(clip, 0, 0)], clip_specs(), spec.face_dim, spec.speech_dim)
    assert batch.targets["present"].values.tolist() == [[True, False, True]]
    assert (batch.text_ids.tolist(), len(batch.face), len(batch.speech)) == ([2, 5, 3], 0, 5)
