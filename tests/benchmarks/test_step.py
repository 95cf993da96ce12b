"""The benchmark's length mixes, and one small comparison."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.clips import Rows, half_padding, real_lengths, typical_batches
from benchmarks.step import PaddedBert, build, compare, make_batches, padding_share, parse


def tokens(rows: Rows) -> np.ndarray:
    return rows.text + rows.face + rows.speech


def test_half_of_the_padded_tokens_are_padding() -> None:
    packed, _ = build(64, 1, 0.0)
    batches = make_batches(packed.spec, "half", Path())
    assert padding_share(batches) == pytest.approx(0.5, abs=0.01)
    assert [len(batch.seqlens) for batch in batches] == [16, 16]


def test_typical_batches_have_the_mean_padding() -> None:
    rng = np.random.default_rng(0)
    rows = half_padding(1000, rng)
    lengths = tokens(rows)
    random = [rng.choice(lengths, 8) for _ in range(500)]
    mean = float(np.mean([1 - batch.mean() / batch.max() for batch in random]))
    (batch,) = typical_batches(rows, 8, 1, None, rng)
    assert 1 - tokens(batch).mean() / tokens(batch).max() == pytest.approx(mean, abs=0.03)


@pytest.mark.corpora
def test_real_lengths_follow_the_seconds(shared: Path) -> None:
    ravdess = real_lengths(shared / "data", "ravdess")
    assert len(ravdess.text) == 1200
    assert ravdess.face[0] == 33  # 03-01-01-01-01-01-01 lasts 3.30 s
    assert ravdess.speech[0] == 55
    cut = real_lengths(shared / "data", "korean-cut")
    assert (cut.text.max(), cut.face.max(), cut.speech.max()) == (32, 36, 64)


def test_the_padded_side_is_bert_with_the_same_weights() -> None:
    packed, padded = build(64, 1, 0.0)
    assert isinstance(padded, PaddedBert)
    count = [sum(p.numel() for p in model.parameters()) for model in (packed, padded)]
    assert count[0] == count[1]


def test_a_comparison_gives_rates_of_both_sides() -> None:
    threads = torch.get_num_threads()
    result = compare(64, 1, "half", parse(["--rounds", "1", "--threads", str(threads)]))
    assert result["difference"] < 1e-5
    assert result["ratio"] == pytest.approx(
        result["memo"]["tokens_per_s"] / result["hf"]["tokens_per_s"]
    )
    assert result["hf"]["mfu"] > 0
