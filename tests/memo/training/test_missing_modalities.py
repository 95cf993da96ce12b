"""One rank's clips lack speech and face: with ZeRO-3 no rank may wait for another's parameters.

Nor where it computes its logits in chunks, and the other does not.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint

from data_pipeline.packing import PackedBatch, PackedTargets
from memo.config import Distribution, Optimizer, PretrainConfig
from memo.model.memobert import MemoBert
from memo.objectives import build_objectives, wwmlm
from memo.objectives.pretraining_model import PretrainingModel
from memo.training.distributed import join
from memo.training.engine import Engine, deepspeed_config
from tests.distributed import run_ranks
from tests.memo.model.packed import random_batch, small_spec

SPEC = small_spec()
OBJECTIVES = PretrainConfig().objectives
WEIGHTS = {name: one.weight for name, one in OBJECTIVES.items()}
OPTIMIZER = Optimizer(warmup_steps=0, eps=1e-4)
"""A key's bias has no gradient but rounding, which a smaller `eps` would let AdamW take for one."""
RUNS = {
    "0": (0, wwmlm.LOGITS),
    "3": (3, wwmlm.LOGITS),
    "3 in chunks": (3, SPEC.vocab_size),
}
"""ZeRO stage, and the most logits at once: at last those of one piece."""
STEPS, CHUNKS = 2, 3
WHOLE, TEXT_ALONE = [(8, 4, 6), (5, 3, 7)], [(9, 0, 0), (6, 0, 0)]


def small_model() -> PretrainingModel:
    torch.manual_seed(0)
    return PretrainingModel(MemoBert(SPEC), build_objectives(OBJECTIVES, SPEC))


def batch_of(step: int, rank: int, model: PretrainingModel) -> PackedBatch:
    """The first rank has targets of every objective, the second one hidden piece alone."""
    generator = torch.Generator().manual_seed(2 * step + rank)
    batch = random_batch(SPEC, TEXT_ALONE if rank else WHOLE, seed=2 * step + rank)
    targets = {}
    for name, objective in model.by_name.items():
        count = int(objective.modality == "text") if rank else CHUNKS
        spec = objective.target_spec()
        positions = torch.randperm(batch.tokens, generator=generator)[:count]
        values = torch.rand(count, *spec.shape, generator=generator).softmax(-1)
        if not spec.shape:
            values = torch.randint(SPEC.vocab_size, (count,), generator=generator)
        targets[name] = PackedTargets(positions, values.to(spec.dtype))
    return replace(batch, targets=targets)


def keep_nothing(*arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """As our own, but at stage 3 even the smallest parameter is given back and gathered again."""
    config = deepspeed_config(*arguments)
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return config


def take_steps(folder: str) -> None:
    """On both ranks, at each stage."""
    ranks = join(1)
    for name, (stage, logits) in RUNS.items():
        model = small_model()
        batches = [batch_of(step, ranks.rank, model) for step in range(STEPS)]
        distribution = Distribution(zero_stage=stage, precision="fp32")
        with patch("memo.training.engine.deepspeed_config", keep_nothing):
            engine = Engine(model, WEIGHTS, OPTIMIZER, distribution, ranks, seed=0)
        with (
            patch.object(wwmlm, "LOGITS", logits),
            patch.object(wwmlm, "checkpoint", wraps=checkpoint) as chunks,
        ):
            results = [engine.step([batch], step, 1e-3) for step, batch in enumerate(batches)]
        many = logits < wwmlm.LOGITS and ranks.first
        assert chunks.call_count == (STEPS * CHUNKS if many else 0)
        assert all(result.applied for result in results)
        state = engine.collect()
        if state is not None:
            save_file(dict(state.model), Path(folder, f"{name}.safetensors"))
            found = [[result.loss, result.grad_norm] for result in results]
            Path(folder, f"{name}.json").write_text(json.dumps(found))
            assert [result.objectives["span_mafr"].count for result in results] == [CHUNKS] * STEPS
            assert [result.objectives["wwmlm"].count for result in results] == [CHUNKS + 1] * STEPS


@pytest.mark.slow
def test_stage_3_is_stage_0_where_one_rank_has_text_alone(tmp_path: Path) -> None:
    run_ranks(take_steps, str(tmp_path), 2)
    whole, *parted = (json.loads((tmp_path / f"{run}.json").read_text()) for run in RUNS)
    theirs, *ours = (load_file(tmp_path / f"{run}.safetensors") for run in RUNS)
    for losses, weights in zip(parted, ours, strict=True):
        torch.testing.assert_close(torch.tensor(losses), torch.tensor(whole), rtol=1e-5, atol=0)
        for name, weight in theirs.items():
            torch.testing.assert_close(weights[name], weight, rtol=1e-5, atol=1e-5)
    first = small_model().state_dict()
    trained = [name for name, _ in small_model().named_parameters()]
    assert all(not torch.equal(theirs[name], first[name]) for name in trained)
