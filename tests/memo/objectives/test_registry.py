"""Objectives are found by name."""

import pytest
import torch

from data_pipeline.errors import UserError
from memo.config import ModelSpec, ObjectiveSettings, PretrainConfig
from memo.objectives import build_objectives, known_objectives, register


def test_the_default_settings_are_buildable_in_their_order(spec: ModelSpec) -> None:
    settings = PretrainConfig().objectives
    assert list(build_objectives(settings, spec)) == list(settings)


def test_an_unknown_name_is_refused_with_the_nearest(spec: ModelSpec) -> None:
    with pytest.raises(UserError, match=r"no 'wwmml'; did you mean 'wwmlm'\?.*span_mafr") as caught:
        build_objectives({"wwmml": ObjectiveSettings()}, spec)
    assert "\n" not in str(caught.value)


def test_nothing_to_train_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(UserError, match="none has a ratio above 0"):
        build_objectives({"wwmlm": ObjectiveSettings(ratio=0)}, spec)


def test_nothing_that_counts_is_refused(spec: ModelSpec) -> None:
    idle = {"wwmlm": ObjectiveSettings(weight=0), "span_mafr": ObjectiveSettings(ratio=0)}
    with pytest.raises(UserError, match=r"none of text, which alone .* has a weight above 0"):
        build_objectives(idle, spec)
    by_another = {
        "span_mvfr": ObjectiveSettings(weight=0),
        "span_mvfc_kl": ObjectiveSettings(ratio=0),
    }
    assert list(build_objectives(by_another, spec)) == ["span_mvfr", "span_mvfc_kl"]


def test_weights_are_berts(spec: ModelSpec) -> None:
    torch.manual_seed(0)
    wide = spec.model_copy(update={"hidden": 128, "init_std": 0.02})
    weights = build_objectives({"wwmlm": ObjectiveSettings()}, wide)["wwmlm"].state_dict()
    assert weights["transform.0.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert not weights["transform.0.bias"].any()
    assert (weights["transform.2.weight"] == 1).all()


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="two objectives are called 'wwmlm'"):
        register(known_objectives()["wwmlm"])
