"""The plan of a run, and that planning leaves nothing behind."""

import re
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import UserError
from memo.config import PretrainConfig
from memo.objectives.pretraining_model import PretrainingModel
from memo.training.dry_run import dry_run
from memo.training.setup import Data, build_model, build_transform, model_spec, open_data
from tests.memo.training.small_run import GLOBAL_BATCH, small_config, write_small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("dry") / "dataset")


def test_the_plan_is_shown_and_nothing_written(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = small_config(dataset, tmp_path / "run", "batch.token_budget=400")
    assert dry_run(config) == 0
    shown = capsys.readouterr().out
    data = open_data(config)
    model = build_model(config, model_spec(config, data), data)
    figures = {
        "parameters": f"{sum(one.numel() for one in model.parameters()):,}",
        "training FLOPs per token": f"{flops_per_token(config, data, model):.3g}",
        "samples": "12 to train, 4 to validate",
        "steps per epoch": "1.5",  # 12 samples in batches of 8
        "epochs": "3.3",  # 5 steps of 8
    }
    for label, figure in figures.items():
        assert re.search(rf"^{label} +{re.escape(figure)}$", shown, re.MULTILINE), label
    for ranks in (1, 2, 8):
        assert f"micro-batches on {ranks} ranks" in shown
    assert "token_budget: 400" in shown
    for stage in ("0, fp32", "1, bf16", "2, bf16", "3, bf16"):
        row = re.search(rf"{stage} .*", shown)
        assert row is not None
        figures_of_row = re.findall(r"(\d+\.\d+) \((\d+\.\d+)\)", row[0])
        assert len(figures_of_row) == 4
        assert all(float(kept) >= float(recomputed) for kept, recomputed in figures_of_row)
    (budgets,) = re.findall(r"kept +│ +(\S+) │ +(\S+) │ +(\S+) │ +(\S+)", shown)
    sizes = [int(one.replace(",", "")) for one in budgets]
    assert sizes == sorted(sizes)
    assert not list(tmp_path.iterdir())


def flops_per_token(config: PretrainConfig, data: Data, model: PretrainingModel) -> float:
    """By hand, of the clips of the first step; a backward pass costs twice a forward pass."""
    spec = model.backbone.spec
    d, f = spec.hidden, spec.ffn
    widths = {
        "wwmlm": spec.vocab_size,
        "span_mvfr": spec.face_dim,
        "span_mvfc_kl": spec.face_classes,
        "span_mafr": spec.speech_dim,
    }
    transform = build_transform(config, model, data.tokenizer)
    visits = data.train.order(config.seed).visits(np.arange(GLOBAL_BATCH))
    products = tokens = 0
    for sample, epoch in zip(visits.samples.tolist(), visits.epochs.tolist(), strict=True):
        clip = transform(data.train.read(sample), sample, epoch)
        n = len(clip.text_ids) + len(clip.face) + len(clip.speech)
        layer = n * 3 * d * d + n * d * d + 2 * n * d * f + 2 * n * n * d
        products += spec.layers * layer  # queries, keys, values; output; two linear; attention
        products += len(clip.face) * spec.face_dim * d + len(clip.speech) * spec.speech_dim * d
        for name, targets in clip.targets.items():
            products += len(targets.positions) * (d * d + d * widths[name])
        tokens += n
    return 3 * 2 * products / tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batch.token_budget=20", r"batch\.token_budget=20"),
        ("distribution.precision=bf16", r"precision=bf16 needs distribution\.zero_stage=1 or more"),
        ("distribution.offload=true", r"offload needs distribution\.zero_stage=1 or more"),
    ],
)
def test_what_would_stop_the_run_is_said(
    dataset: Path, tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        dry_run(small_config(dataset, tmp_path / "run", change))


def test_bad_samples_are_left_for_the_run_to_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if the first step has no other."""
    dataset = write_small_dataset(tmp_path / "dataset")
    for index in dataset.glob("train-*.idx"):
        tar = index.with_suffix(".tar")
        content = bytearray(tar.read_bytes())
        for faces in (at.end() for at in re.finditer(rb"\.face\.npy\0", content)):
            content[faces + 1000] ^= 1  # in the rows, behind the headers of the tar and of the file
        tar.write_bytes(content)
    assert dry_run(small_config(dataset, tmp_path / "run")) == 0
    assert re.search(r"training FLOPs per token +0\n", capsys.readouterr().out)
    assert not (tmp_path / "run").exists()
