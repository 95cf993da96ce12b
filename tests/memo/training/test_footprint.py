"""Memory that is told without being taken: against real passes, sums by hand and exact searches."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memo.config import Distribution, ModelSpec, Optimizer, PretrainConfig
from memo.model.memobert import MemoBert
from memo.objectives import build_objectives, wwmlm
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer, train_sentencepiece
from memo.training.distributed import join
from memo.training.engine import Engine
from memo.training.footprint import (
    Footprint,
    LiveBytes,
    kept_bytes,
    largest_budget,
    most_useful,
    passing_bytes,
)
from memo.training.memory import entry_bytes
from memo.training.worst_batch import FULL, KINDS, worst_batch
from tests.distributed import run_ranks

CPU = torch.device("cpu")
CONFIG = PretrainConfig.model_validate({"limits": {"text": 6, "face": 5, "speech": 7}})


@pytest.fixture(scope="module")
def spec(spec: ModelSpec) -> ModelSpec:
    return spec.model_copy(update={"hidden": 32, "layers": 2, "ffn": 64})


@pytest.fixture(scope="module")
def model(spec: ModelSpec) -> PretrainingModel:
    return PretrainingModel(MemoBert(spec), build_objectives(CONFIG.objectives, spec))


@pytest.fixture(scope="module")
def transform(model: PretrainingModel, tokenizer: Tokenizer) -> PretrainTransform:
    ratios = {name: one.ratio for name, one in CONFIG.objectives.items()}
    return PretrainTransform(tokenizer, CONFIG.limits, CONFIG.masking, model.by_name, ratios, 0)


def test_bytes_are_counted_as_long_as_a_tensor_lives() -> None:
    with LiveBytes() as live:
        one = torch.ones(100, device="meta")  # 400 bytes
        view = one[:50].view(5, 10)
        del one
        other = view + 1  # 200 bytes
        other.mul_(2)
        del view, other
        torch.ones(20, device="meta")
    assert live.peak == 600


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("logits", [wwmlm.LOGITS, 1000])
def test_what_is_told_is_what_a_real_pass_holds(
    kind: str,
    logits: int,
    model: PretrainingModel,
    spec: ModelSpec,
    transform: PretrainTransform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wwmlm, "LOGITS", logits)
    footprint = Footprint(CONFIG, spec, transform, CPU, "fp32", recompute=False)
    batch = worst_batch(CONFIG, transform, spec, kind, 500)
    with LiveBytes() as live:
        losses = model(batch)
        torch.stack([one.sum for one in losses.values()]).sum().backward()
    model.zero_grad(set_to_none=True)
    assert footprint._of_kind(kind, 500) == pytest.approx(live.peak, rel=0.05)
    assert footprint.parameters == sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (1, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16")]
)
def test_what_is_told_is_what_a_step_of_the_engine_takes(
    stage: int,
    precision: str,
    model: PretrainingModel,
    spec: ModelSpec,
    transform: PretrainTransform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DeepSpeed's buffers included, of a model as small as this as well."""
    monkeypatch.setattr("memo.training.engine.supports_bf16", lambda: True)
    footprint = Footprint(CONFIG, spec, transform, CPU, precision, recompute=False)
    told = kept_bytes(footprint.parameters, stage, 1, precision, offload=False)
    told += passing_bytes(footprint.parameters, stage, 1, precision) + footprint.of(300)
    batch = worst_batch(CONFIG, transform, spec, FULL, 300)
    distribution = Distribution.model_validate({"zero_stage": stage, "precision": precision})
    with LiveBytes() as live:
        about = (dict.fromkeys(CONFIG.objectives, 1.0), Optimizer(), distribution, join(1), 0)
        engine = Engine(copy.deepcopy(model), *about)
        engine.step([batch, batch], 0, 1e-3)
    assert told == pytest.approx(live.peak, rel=0.2)
    engine.close()


def test_rows_that_are_filled_up_are_told(spec: ModelSpec, transform: PretrainTransform) -> None:
    """In bf16 a CPU computes 2,049 tokens as 2,304 rows, in fp32 as 2,049."""
    for precision, device, alike in (("bf16", "cpu", True), ("fp32", "cpu", False)):
        footprint = Footprint(CONFIG, spec, transform, torch.device(device), precision, False)
        assert (footprint.of(2049) == footprint.of(2304)) == alike


def test_recomputed_and_in_half_precision_it_is_less(
    spec: ModelSpec, transform: PretrainTransform
) -> None:
    about = (CONFIG, spec, transform, CPU)
    plain = Footprint(*about, "fp32", recompute=False)
    assert Footprint(*about, "fp32", recompute=True).of(2000) < 0.7 * plain.of(2000)
    assert Footprint(*about, "bf16", recompute=False).of(2000) < 0.8 * plain.of(2000)


def of_words(pieces: int, spec: ModelSpec, transform: PretrainTransform, tokens: int) -> int:
    """What texts of so many tokens need with so large a vocabulary."""
    large = spec.model_copy(update={"vocab_size": pieces})
    return Footprint(CONFIG, large, transform, CPU, "fp32", False)._of_kind("text", tokens)


def test_a_large_vocabulary_takes_no_more_than_a_chunk_of_logits(
    spec: ModelSpec, transform: PretrainTransform
) -> None:
    """Of 250,002 pieces 268 are a chunk; 2,000 tokens hide 1,500, and 4,000 twice as many."""
    few, twice = (of_words(250_002, spec, transform, tokens) for tokens in (2000, 4000))
    less, more = (of_words(30, spec, transform, tokens) for tokens in (2000, 4000))
    assert twice - few == pytest.approx(more - less, rel=0.2)
    chunk, table = 4 * wwmlm.LOGITS, 4 * 250_002 * spec.hidden
    assert few - less == pytest.approx(3 * chunk + 2 * table, rel=0.2)


def hold_chunks(folder: str) -> None:
    """In a process of its own: a pass takes what is told, with chunks a third of what all take."""
    tokenizer = train_sentencepiece(["a b c d e f"], Path(folder, "tokenizer"), 30)
    sizes = {"hidden": 32, "layers": 1, "heads": 2, "ffn": 64, "max_positions": 40}
    spec = ModelSpec(vocab_size=50_000, face_dim=3, face_classes=2, speech_dim=4, **sizes)
    model = PretrainingModel(MemoBert(spec), build_objectives(CONFIG.objectives, spec))
    ratios = {name: one.ratio for name, one in CONFIG.objectives.items()}
    about = (tokenizer, CONFIG.limits, CONFIG.masking, model.by_name, ratios, 0)
    transform = PretrainTransform(*about)
    wwmlm.LOGITS = 2**24  # 335 pieces, 64 MiB
    told = Footprint(CONFIG, spec, transform, CPU, "fp32", False)._of_kind("text", 1600)
    for tokens in (16, 1600):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        before = entry_bytes(Path("/proc/self/status"), "VmRSS")
        losses = model(worst_batch(CONFIG, transform, spec, "text", tokens))
        torch.stack([one.sum for one in losses.values()]).sum().backward()
        model.zero_grad(set_to_none=True)
    taken = entry_bytes(Path("/proc/self/status"), "VmHWM") - before
    assert taken == pytest.approx(told, rel=0.25), (taken, told)
    assert told < 4 * 1200 * spec.vocab_size * 1.2  # all logits at once have three copies


@pytest.mark.slow
def test_a_real_process_takes_what_is_told_of_chunks(tmp_path: Path) -> None:
    run_ranks(hold_chunks, str(tmp_path), 1)


@pytest.mark.parametrize(
    ("stage", "ranks", "precision", "kept", "passing"),
    [
        (0, 8, "fp32", 4 + 8, 4),
        (1, 8, "fp32", 4 + 12 / 8, 4),
        (2, 8, "bf16", 2 + 12 / 8, 4 / 8),
        (3, 8, "bf16", 2 / 8 + 12 / 8, 4 / 8 + 2),
    ],
)
def test_what_the_stages_hold(
    stage: int, ranks: int, precision: str, kept: float, passing: float
) -> None:
    assert kept_bytes(1000, stage, ranks, precision, offload=False) == pytest.approx(1000 * kept)
    assert passing_bytes(1000, stage, ranks, precision) == pytest.approx(1000 * passing)
    on_host = kept_bytes(1000, stage, ranks, precision, offload=True)
    assert on_host < kept_bytes(1000, stage, ranks, precision, offload=False)


@given(
    flat=st.integers(0, 10**6),
    slope=st.integers(1, 1000),
    room=st.integers(0, 2 * 10**6),
    least=st.integers(1, 200),
    more=st.integers(0, 5000),
)
def test_the_largest_budget_fits_and_little_more_would(
    flat: int, slope: int, room: int, least: int, more: int
) -> None:
    most = least + more

    def need(tokens: int) -> int:
        return max(flat, 10_000 + slope * tokens)

    exact = min((room - 10_000) // slope, most) if flat <= room else 0
    found = largest_budget(need, room, least, most)
    assert (found is None) == (exact < least)
    if found is not None:
        assert least <= found <= exact
        assert found >= exact / 1.03 - 1


def test_no_more_than_a_ranks_share_is_of_use() -> None:
    config = PretrainConfig.model_validate({"batch": {"global_batch": 10}})
    assert most_useful(config, 4) == 3 * config.limits.longest
