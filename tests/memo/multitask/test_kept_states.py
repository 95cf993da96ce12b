"""States of frozen layers: kept over folds, seeds and runs, and never another reader's."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_pipeline.errors import UserError
from data_pipeline.packing import PackedBatch
from memo.multitask.setup import set_up_system
from memo.multitask.texts import SharedStates, StateStore, TokenStates
from memo.tuning.results import fold_folder
from memo.tuning.run import finetune, finetune_each
from tests.memo.multitask.small_system import system_config


@pytest.mark.parametrize("direct", ["false", "true"])
def test_what_is_kept_of_a_frozen_backbone_changes_nothing(
    direct: str, sog: Path, backbone: Path, tmp_path: Path
) -> None:
    """Of weights that every seed draws anew, nothing may be kept."""
    changes = ["backbone=memo", f"pretrained={backbone}", "mode=linear", "training.epochs=2"]
    changes += ["sog.pooling=mean", "sog.layer=1", f"direct={direct}", "seeds=[1,2]", "folds=[0]"]
    found = []
    for kept in (0, 1e-5, 1):
        run = tmp_path / str(kept)
        finetune(system_config(sog, run, *changes, f"kept_gib={kept}"))
        found.append(load_file(fold_folder(run, 0, 2) / "system" / "system.safetensors"))
    for name, value in found[0].items():
        assert all(torch.equal(one[name], value) for one in found), name


def test_runs_of_the_same_frozen_layers_read_a_text_once(
    sog: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["backbone=memo", f"pretrained={backbone}", "mode=linear", "training.epochs=1"]
    common += ["sog.layer=1", "folds=[0]"]
    read, passed = TokenStates.rows, Counter[str]()

    def count(self: TokenStates, batch: PackedBatch) -> Tensor:
        passed[run] += len(batch.seqlens)
        return read(self, batch)

    monkeypatch.setattr(TokenStates, "rows", count)
    several = [
        system_config(sog, tmp_path / f"several-{gate}", *common, f"sog.gate={gate}")
        for gate in ("none", "sog")
    ]
    run = "several"
    assert finetune_each(several) == 0
    run = "alone"
    assert finetune(system_config(sog, tmp_path / "alone", *common, "sog.gate=sog")) == 0
    assert passed["several"] == passed["alone"] > 0
    here, there = (
        load_file(fold_folder(tmp_path / name, 0, 1) / "system" / "system.safetensors")
        for name in ("several-sog", "alone")
    )
    assert all(torch.equal(there[name], value) for name, value in here.items())


def test_a_mistake_in_one_of_several_runs_is_said_before_the_first(
    sog: Path, backbone: Path, tmp_path: Path
) -> None:
    common = ["backbone=memo", f"pretrained={backbone}", "mode=linear"]
    several = [
        system_config(sog, tmp_path / f"layer-{layer}", *common, f"sog.layer={layer}")
        for layer in (1, 99)
    ]
    with pytest.raises(UserError, match=r"sog\.layer=99: the backbone has"):
        finetune_each(several)
    assert not list(tmp_path.iterdir())


OTHER_STATES = [
    ("mode=linear", "sog.layer=0"),
    ("mode=linear", "sog.layer=null"),
    ("mode=full", "sog.layer=null", "frozen_layers=1"),
    ("mode=linear", "sog.layer=1", "attention_dropout=0.1"),
    ("mode=linear", "sog.layer=1", "distribution.precision=fp32"),
    ("mode=linear", "sog.layer=1", "distribution.zero_stage=1"),
]


@pytest.mark.parametrize("changes", OTHER_STATES, ids="-".join)
def test_what_changes_the_states_of_a_text_has_another_store(
    changes: tuple[str, ...], sog: Path, backbone: Path, tmp_path: Path
) -> None:
    states, common = SharedStates(), ["backbone=memo", f"pretrained={backbone}"]
    common += ["distribution.zero_stage=0"]

    def store_of(*changes: str) -> StateStore | None:
        return set_up_system(system_config(sog, tmp_path, *common, *changes), states).store

    first = store_of("mode=linear", "sog.layer=1")
    same = ["mode=linear", "sog.layer=1", "sog.gate=none", "seeds=[7]", "optimizer.lr=1"]
    assert store_of(*same) is first is not None
    second = store_of(*changes)
    assert second is not first
    assert second is not None


def test_the_same_weights_in_another_folder_have_another_store(
    sog: Path, backbone: Path, tmp_path: Path
) -> None:
    """Its sizes and its tokenizer may be others."""
    states, copy = SharedStates(), tmp_path / "copy"
    shutil.copytree(backbone, copy)
    stores = [
        set_up_system(
            system_config(sog, tmp_path, "backbone=memo", f"pretrained={one}", "mode=linear"),
            states,
        ).store
        for one in (backbone, copy)
    ]
    assert stores[0] is not stores[1]


def test_other_frozen_layers_have_a_store_of_their_own() -> None:
    states = SharedStates()
    first = states.of(("a", 1), 1000)
    texts = [torch.tensor([1, 2])]
    first.keep(texts, torch.ones(2, 3))
    assert states.of(("a", 1), 1000).find(texts) is not None
    assert states.of(("a", 2), 1000).find(texts) is None
    assert states.of(("a", 1), 1000).find(texts) is None  # given up, not kept beside
