"""Weights of ASP-MTL's losses, and the growth of its reversal, as its settings say."""

from pathlib import Path
from typing import Any

import pytest
import torch

from memo.heads.adversary import reversal_weight
from memo.heads.asp_mtl import AspNetwork
from memo.multitask import asp_mtl
from memo.multitask.asp_mtl import AspSystem
from memo.multitask.base import TaskKind
from memo.multitask.batches import JointBatch, TaskBatch
from memo.multitask.config import AspSettings
from memo.multitask.encoders import WordEncoder
from memo.multitask.texts import WordStates
from memo.tuning.run import finetune
from memo.words.encoders import WordEmbedding
from tests.memo.multitask.small_system import pack_texts, system_config

KINDS = [TaskKind(name, 2, multi_label=False) for name in ("books", "films", "music")]


def system(**changes: object) -> AspSystem:
    torch.manual_seed(0)
    settings = AspSettings.model_validate({"hidden": 4, **changes})
    reader = WordStates(WordEmbedding(torch.randn(9, 5), frozen=True))
    network = AspNetwork(reader, lambda: WordEncoder(5, settings), [2, 2, 2], settings.sharing)
    return AspSystem(KINDS, network, settings)


def test_each_task_has_its_weight() -> None:
    named = {"films": 0.25, "music": 3.0}
    found = system(sharing="sp", weights=named).weights
    assert found == {"books": 1.0, "films": 0.25, "music": 3.0}
    found = system(weights=named, difference=0.02, sampling="uniform").weights
    assert found == {"books": 1.0, **named, "adversary": 1.0, "difference": 0.02}


def pushed(progress: float, **changes: object) -> torch.Tensor:
    """The gradient that the adversary leaves in the shared encoder."""
    model = system(**changes)
    model.progress = progress
    texts = pack_texts([[2, 3, 4], [5, 6]])
    losses = model(JointBatch((TaskBatch(1, texts, labelled=True, counts={}),)))
    losses["adversary"].sum.backward()
    assert model.network.shared is not None
    gradients = [one.grad for one in model.network.shared.parameters() if one.grad is not None]
    return torch.cat([one.flatten() for one in gradients])


def test_the_reversal_grows_with_the_training() -> None:
    whole = pushed(0.3, adversary=0.2)
    assert whole.any()
    torch.testing.assert_close(pushed(0.9, adversary=0.2), whole)
    torch.testing.assert_close(pushed(0.3, adversary=0.1), whole / 2)
    assert not pushed(0.0, adversary=0.2, steepness=10).any()
    share = (1 - torch.e**-3) / (1 + torch.e**-3)
    torch.testing.assert_close(pushed(0.3, adversary=0.2, steepness=10), share * whole)


def test_a_run_tells_how_far_it_is(
    asp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []

    def watched(progress: float, largest: float, steepness: float) -> float:
        seen.append((progress, largest, steepness))
        return reversal_weight(progress, largest, steepness)

    monkeypatch.setattr(asp_mtl, "reversal_weight", watched)
    settings = ["asp_mtl.steepness=7", "asp_mtl.adversary=0.3", "batch.token_budget=10000"]
    finetune(system_config(asp, tmp_path / "run", *settings))
    steps = len(seen)
    assert steps > 2
    assert seen == [(at / steps, 0.3, 7.0) for at in range(steps)]
