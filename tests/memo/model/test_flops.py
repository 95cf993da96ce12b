"""The FLOP formula against a count of the products that really run."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.packing import PackedTargets
from memo.model.flops import encoder_flops, measure_matmul_peak, training_flops
from memo.model.memobert import MemoBert
from memo.objectives.wwmlm import WholeWordMLM
from tests.memo.model.packed import random_batch, small_spec

SPEC = small_spec()


def test_a_bert_layer_is_24_d_squared_a_token() -> None:
    spec = small_spec(hidden=64, ffn=256, layers=1)
    assert encoder_flops(spec, [10, 1]) == 24 * 64**2 * 11 + 4 * 64 * (100 + 1)


def test_forward_equals_what_torch_counts() -> None:
    model = MemoBert(SPEC, "padded").eval()
    batch = random_batch(SPEC, [(8, 4, 6), (8, 4, 6)])  # of equal length: no padding inside
    embedded = model.embed(batch)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encoder(embedded, batch.cu_seqlens, batch.seqlens)
    # The fused CPU attention is not in the counter's table.
    attention = SPEC.layers * 4 * SPEC.hidden * 2 * 18**2
    assert encoder_flops(SPEC, batch.seqlens) == counter.get_total_flops() + attention


def test_training_equals_what_torch_counts() -> None:
    torch.manual_seed(0)
    model, head = MemoBert(SPEC, "padded"), WholeWordMLM(SPEC)
    batch = random_batch(SPEC, [(8, 4, 6), (8, 4, 6)])
    targets = PackedTargets(torch.tensor([1, 3, 20]), torch.tensor([4, 5, 6]))
    batch = replace(batch, targets={"wwmlm": targets})
    with FlopCounterMode(display=False) as counter:
        hidden = model(batch).index_select(0, targets.positions)
        head(hidden, targets.values, model).sum.backward()
    attention = 3 * SPEC.layers * 4 * SPEC.hidden * 2 * 18**2
    wanted = counter.get_total_flops() + attention
    assert training_flops(SPEC, batch, {"wwmlm": SPEC.vocab_size}) == wanted


def test_matmul_peak_is_a_rate() -> None:
    peak = measure_matmul_peak(torch.device("cpu"), size=128, repeats=2)
    assert 1e7 < peak < 1e15
    assert peak != pytest.approx(measure_matmul_peak(torch.device("cpu"), size=8, repeats=1))
