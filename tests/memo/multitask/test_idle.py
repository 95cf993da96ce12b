"""Settings that a system does not heed are refused, and those that it heeds are not."""

import pytest

from data_pipeline.errors import UserError
from memo.multitask.idle import check_settings
from memo.multitask.members import load_system
from memo.settings import load_config
from memo.tuning.config import FinetuneConfig

WORDS, MEMO = ["backbone=original"], ["backbone=memo", "pretrained=x"]
UNHEEDED = [
    ("sog", WORDS, ["modalities=[text]"], "modalities is for a single task"),
    ("sog", WORDS, ["limits.text=7"], "limits.text is for a single task"),
    ("trimodal", MEMO, ["limits.face=50", "limits.text=60"], "limits.text is for a single task"),
    ("trimodal", WORDS, ["sog.gate=cag"], "sog is not for trimodal"),
    ("asp_mtl", WORDS, ["sog.gate=cag"], "sog is not for asp_mtl"),
    ("sog", WORDS, ["dropout=0.2"], "dropout is not for backbone=original"),
    ("sog", WORDS, ["attention_dropout=0"], "attention_dropout is not for backbone=original"),
    ("asp_mtl", WORDS, ["adapter.size=9"], "adapter is not for backbone=original"),
    ("sog", MEMO, ["words.most=9"], "words is for backbone=original"),
    ("asp_mtl", MEMO, ["asp_mtl.encoder=bilstm"], "asp_mtl.encoder is for backbone=original"),
    ("asp_mtl", MEMO, ["asp_mtl.hidden=7"], "asp_mtl.hidden is for backbone=original"),
    ("trimodal", MEMO, ["trimodal.image.weights=x"], "trimodal.image is for backbone=original"),
    ("trimodal", MEMO, ["trimodal.tag_width=7"], "trimodal.tag_width is for backbone=original"),
    ("trimodal", MEMO, ["trimodal.longest_tags=7"], "longest_tags is for backbone=original"),
    ("trimodal", MEMO, ["trimodal.filters=7"], "trimodal.filters is for backbone=original"),
    ("trimodal", MEMO, ["trimodal.dropout=0.7"], "trimodal.dropout is for backbone=original"),
    ("sog", MEMO, ["limits.face=7"], "limits.face is for clips"),
    ("trimodal", WORDS, ["limits.speech=7"], "limits.speech is for clips"),
    ("sog", WORDS, ["words.vectors=x", "words.width=9"], "words.width is for vectors that are"),
    ("sog", MEMO, ["mode=adapter", "kept_gib=9"], "kept_gib is for frozen_layers"),
    ("asp_mtl", MEMO, ["mode=linear", "kept_gib=9"], "kept_gib is for frozen_layers"),
    ("trimodal", MEMO, ["frozen_layers=1", "kept_gib=9"], "kept_gib is for frozen_layers"),
    ("sog", MEMO, ["mode=linear", "dropout=0.4"], "dropout is for a backbone that is trained"),
    ("sog", MEMO, ["mode=full", "adapter.size=9"], "adapter is for --mode adapter"),
    ("sog", MEMO, ["mode=adapter", "adapter.scale=9"], "adapter.scale is for adapter.kind=lora"),
    ("sog", WORDS, ["sog.maml.rate=9"], "sog.maml is for sog.training=maml"),
    ("sog", WORDS, ["sog.places=[pooling]", "sog.published_dense=true"], "for the place dense"),
    ("sog", WORDS, ["sog.gate=none", "sog.published_dense=true"], "for a gate"),
    ("asp_mtl", MEMO, ["asp_mtl.sharing=fs", "asp_mtl.difference=9"], "for asp_mtl.sharing=asp"),
    ("asp_mtl", MEMO, ["asp_mtl.sharing=sp", "asp_mtl.adversary=9"], "for asp_mtl.sharing=asp"),
    ("asp_mtl", MEMO, ["asp_mtl.sharing=alone", "asp_mtl.steepness=9"], "asp_mtl.sharing=asp"),
    ("asp_mtl", WORDS, ["asp_mtl.sharing=sp", "asp_mtl.unlabelled=true"], "asp_mtl.sharing=asp"),
    ("asp_mtl", WORDS, ["asp_mtl.sharing=alone", "asp_mtl.one_output=true"], "tasks that share"),
    ("sog", MEMO, ["mode=full", "sog.layer=1"], "sog.layer is for a frozen backbone"),
]
HEEDED = [
    ("sog", MEMO, ["mode=linear", "kept_gib=9", "sog.layer=1", "attention_dropout=0"]),
    ("sog", MEMO, ["mode=adapter", "adapter.kind=lora", "adapter.scale=9", "dropout=0.4"]),
    ("sog", WORDS, ["sog.gate=none", "sog.places=[convolution]", "words.width=9"]),
    ("sog", WORDS, ["sog.training=maml", "sog.maml.batches=2", "sog.published_dense=true"]),
    ("asp_mtl", MEMO, ["mode=linear", "dropout=0.4"]),
    ("asp_mtl", MEMO, ["adapter.size=9", "frozen_layers=1", "kept_gib=9", "dropout=0"]),
    ("asp_mtl", WORDS, ["asp_mtl.sharing=fs", "asp_mtl.normalised=true", "words.vectors=x"]),
    ("asp_mtl", WORDS, ["asp_mtl.steepness=9", "asp_mtl.weights={books: 0}"]),
    ("trimodal", MEMO, ["limits.face=50", "limits.speech=70", "trimodal.width=9"]),
    ("trimodal", WORDS, ["trimodal.filters=9", "trimodal.image.size=64"]),
]


def check(system: str, below: list[str], changes: list[str]) -> None:
    config = load_config(FinetuneConfig, None, [f"task={system}", *below, *changes])
    check_settings(config, load_system(system))


@pytest.mark.parametrize(("system", "below", "changes", "reason"), UNHEEDED)
def test_what_is_not_heeded_is_refused(
    system: str, below: list[str], changes: list[str], reason: str
) -> None:
    with pytest.raises(UserError, match=f"{reason}.*: {system} does not heed it"):
        check(system, below, changes)


@pytest.mark.parametrize(("system", "below", "changes"), HEEDED)
def test_what_is_heeded_may_be_set(system: str, below: list[str], changes: list[str]) -> None:
    check(system, below, changes)
