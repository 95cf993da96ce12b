"""Evaluation and validation of a random model on a small dataset, against clip-by-clip sums."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.lengths import LengthLimits, TokenLengths
from data_pipeline.order import StreamState
from data_pipeline.packing import pack
from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.dataset import FaceSchema, FeatureSchema, SpeechSchema, read_info
from data_pipeline.shards.reader import Split, open_dataset
from data_pipeline.shards.writer import ShardWriter
from data_pipeline.stream import BatchMaker, Placement
from memo.config import Limits, ModelSpec, PretrainBatch, PretrainConfig
from memo.evaluation.evaluate import evaluate, run_evaluation, visible_sets
from memo.evaluation.metrics import Condition
from memo.evaluation.validate import validate
from memo.model.memobert import MemoBert
from memo.objectives import MODALITIES, LossSum, build_objectives
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer
from memo.training.checkpoint import Progress
from memo.training.saving import write_checkpoint
from memo.training.state import TrainingState

CONFIG = PretrainConfig(limits=Limits(text=12), batch=PretrainBatch(token_budget=400))
RATIOS = {name: one.ratio for name, one in CONFIG.objectives.items()}


def _clips(spec: ModelSpec) -> list[Clip]:
    """Seven clips: the first lacks speech, the second the face, the third the text."""
    rng = np.random.default_rng(0)
    clips = [
        Clip(
            key=f"c{number}",
            text=" ".join(rng.choice(["ab", "c", "def", "g"], 4)),
            face=rng.normal(size=(9 + number, spec.face_dim)).astype(np.float16),
            expression=rng.dirichlet(np.ones(spec.face_classes), 9 + number).astype(np.float16),
            speech=rng.normal(size=(20, spec.speech_dim)).astype(np.float16),
        )
        for number in range(7)
    ]
    clips[0] = replace(clips[0], speech=None)
    clips[1] = replace(clips[1], face=None, expression=None)
    clips[2] = replace(clips[2], text=None)
    return clips


def _write(out: Path, clips: list[Clip], spec: ModelSpec) -> Path:
    face = FaceSchema(
        dim=spec.face_dim, encoder="f", encoder_sha256="", fps=10, classes=tuple("abcd")
    )
    speech = SpeechSchema(dim=spec.speech_dim, encoder="s", encoder_sha256="", rows_per_s=16)
    features = FeatureSchema(face=face, speech=speech)
    with ShardWriter(out, name="t", corpus="t", licence="t", features=features) as writer:
        for clip in clips:
            writer.write("valid", clip)
    return out


@pytest.fixture
def split(tmp_path: Path, spec: ModelSpec) -> Split:
    return open_dataset(_write(tmp_path / "data", _clips(spec), spec)).split("valid")


@pytest.fixture
def model(backbone: MemoBert, spec: ModelSpec) -> PretrainingModel:
    return PretrainingModel(backbone, build_objectives(CONFIG.objectives, spec)).eval()


def _transform(model: PretrainingModel, tokenizer: Tokenizer) -> PretrainTransform:
    return PretrainTransform(
        tokenizer, CONFIG.limits, CONFIG.masking, model.by_name, RATIOS, CONFIG.seed
    )


def _conditions(
    model: PretrainingModel, letters: Tokenizer, split: Split, repeats: int
) -> dict[tuple[str, tuple[str, ...]], Condition]:
    report = evaluate(model, letters, CONFIG, split, repeats)
    return {(one.name, row.visible): row for one in report.objectives for row in one.conditions}


def test_visible_sets_hold_the_hidden_modality() -> None:
    assert visible_sets("face") == [
        ("face",),
        ("text", "face"),
        ("face", "speech"),
        ("text", "face", "speech"),
    ]


def test_figures_equal_sums_over_single_clips(
    model: PretrainingModel, letters: Tokenizer, split: Split, spec: ModelSpec
) -> None:
    rows = _conditions(model, letters, split, repeats=2)
    transform = _transform(model, letters)
    assert len(rows) == 4 * 4
    for (name, visible), row in rows.items():
        objective = model.by_name[name]
        sums = []
        for sample, clip in enumerate(_clips(spec)):
            has = {"text": clip.text, "face": clip.face, "speech": clip.speech}
            if any(has[modality] is None for modality in visible):
                continue
            for repetition in range(2):
                shown = transform.mask(clip, sample, repetition, objective.modality)
                shown = shown.keep([modality for modality in MODALITIES if modality in visible])
                batch = pack([transform.example(shown)], transform.specs, 6, 5)
                sums.append(model(batch)[name])
        total = LossSum(*(torch.stack(column).sum() for column in zip(*sums, strict=True)))
        mean, metric = (total.sum / total.count).item(), (total.metric_sum / total.count).item()
        assert row.clips == len(sums) / 2
        if name == "wwmlm":
            assert row.figures["perplexity"] == pytest.approx(np.exp(mean), rel=1e-4)
            assert 0 <= row.figures["accuracy"] <= row.baselines["most frequent word"] <= 1
        else:
            assert row.positions == total.count.item()
            assert list(row.figures.values()) == pytest.approx([mean, metric], rel=1e-4)
            assert row.baselines["clip mean"] > 0


def test_a_modality_out_of_sight_has_no_influence(
    model: PretrainingModel, letters: Tokenizer, split: Split, spec: ModelSpec, tmp_path: Path
) -> None:
    other = [clip if clip.face is None else replace(clip, face=-clip.face) for clip in _clips(spec)]
    changed = open_dataset(_write(tmp_path / "other", other, spec)).split("valid")
    first, second = (_conditions(model, letters, one, 1) for one in (split, changed))
    for name in ("wwmlm", "span_mafr"):
        for visible in visible_sets(model.by_name[name].modality):
            same = first[name, visible].figures == second[name, visible].figures
            assert same == ("face" not in visible), (name, visible)


def test_small_splits_are_repeated(
    model: PretrainingModel, letters: Tokenizer, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memo.evaluation.evaluate.MASKED_CLIPS", 20)
    assert evaluate(model, letters, CONFIG, split).repeats == 3  # 3 * 7 clips


def test_tables_and_json_hold_every_figure(
    model: PretrainingModel, letters: Tokenizer, split: Split
) -> None:
    report = evaluate(model, letters, CONFIG, split, 1)
    content = json.loads(report.to_json())
    assert (content["split"], content["clips"], content["repeats"]) == ("valid", 7, 1)
    words = content["objectives"][0]
    assert (words["name"], words["hidden"]) == ("wwmlm", "text")
    assert words["conditions"][3]["visible"] == ["text", "face", "speech"]
    console = Console(width=120, record=True, file=io.StringIO())
    for table in report.tables():
        console.print(table)
    shown = console.export_text()
    for objective in report.objectives:
        for row in objective.conditions:
            for value in (*row.figures.values(), *row.baselines.values()):
                assert f"{value:.4f}" in shown


def _validate(
    model: PretrainingModel, letters: Tokenizer, split: Split, tmp_path: Path, ranks: int
) -> dict[str, LossSum]:
    """The sums over all ranks."""
    transform = _transform(model, letters)
    limits = LengthLimits(**CONFIG.limits.model_dump())
    lengths = TokenLengths(split, letters.count, letters.fingerprint, limits)
    parts = [
        validate(
            model,
            transform,
            BatchMaker(
                split,
                transform,
                transform.specs,
                6,
                5,
                lengths,
                200,
                Placement(rank, ranks),
                Quarantine(tmp_path / "quarantine.jsonl", 0),
            ),
            torch.device("cpu"),
            lambda: None,
        )
        for rank in range(ranks)
    ]
    return {
        name: LossSum(*(torch.stack(column).sum() for column in zip(*sums, strict=True)))
        for name in model.by_name
        for sums in [[part[name] for part in parts]]
    }


def test_validation_is_the_same_on_any_number_of_ranks_and_agrees_with_evaluation(
    model: PretrainingModel,
    letters: Tokenizer,
    split: Split,
    spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    model.train()
    alone = _validate(model, letters, split, tmp_path, ranks=1)
    shared = _validate(model, letters, split, tmp_path, ranks=3)
    assert model.training
    for name, sums in alone.items():
        torch.testing.assert_close(sums, shared[name])
    whole = [clip for clip in _clips(spec) if clip.text and clip.speech is not None]
    complete = _write(tmp_path / "complete", [c for c in whole if c.face is not None], spec)
    complete_split = open_dataset(complete).split("valid")
    rows = _conditions(model, letters, complete_split, 1)
    for name, sums in _validate(model, letters, complete_split, tmp_path, ranks=1).items():
        figures = rows[name, MODALITIES].figures
        mean = (sums.sum / sums.count).item()
        expected = np.exp(mean) if name == "wwmlm" else mean
        key = "perplexity" if name == "wwmlm" else model.by_name[name].loss_name
        assert figures[key] == pytest.approx(expected, rel=1e-4)


def test_the_command_refuses_a_dataset_of_other_rows_and_writes_json(
    model: PretrainingModel,
    letters: Tokenizer,
    spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("memo.evaluation.evaluate.MASKED_CLIPS", 10)
    monkeypatch.setattr("memo.training.checkpoint.load_tokenizer", lambda _: letters)
    data = _write(tmp_path / "data", _clips(spec), spec)
    features = read_info(data).features
    state = TrainingState(model.state_dict(), {}, 0)
    progress = Progress(0, 0, StreamState.start(1, "f"))
    run = tmp_path / "run"
    write_checkpoint(run / "checkpoints", state, progress, CONFIG, spec, features, letters)
    run_evaluation(run, data, "valid", tmp_path / "figures.json")
    assert "span_mvfc_kl: face hidden" in capsys.readouterr().out
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["repeats"] == 2
    wide = spec.model_copy(update={"face_dim": 7})
    faces = np.ones((2, 7), np.float16)
    other = _write(tmp_path / "wide", [Clip(key="a", text="ab", face=faces)], wide)
    with pytest.raises(UserError, match=r"face rows have dim=7, those that .* was trained on 6"):
        run_evaluation(run, other, "valid", None)
    for place in (tmp_path, tmp_path / "absent" / "figures.json"):
        with pytest.raises(UserError, match=r"^--json: .*; give a file in a folder that there is$"):
            run_evaluation(run, data, "valid", place)
