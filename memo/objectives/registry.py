"""Finds the objectives and builds the ones that a run asks for."""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping

from torch import nn

import memo.objectives
from data_pipeline.errors import UserError
from memo.config import ModelSpec, ObjectiveSettings
from memo.model.memobert import initialise
from memo.objectives.base import Objective, registered


def known_objectives() -> Mapping[str, type[Objective]]:
    """Every objective by name: each module of this package that registers one is found."""
    for module in pkgutil.iter_modules(memo.objectives.__path__):
        importlib.import_module(f"memo.objectives.{module.name}")
    return registered()


def build_objectives(settings: Mapping[str, ObjectiveSettings], spec: ModelSpec) -> nn.ModuleDict:
    """Make the heads of a run, in the order of the settings, with BERT's initial weights.

    Args:
        settings: objective name -> its settings.
        spec: the model's sizes.

    Returns:
        name -> `Objective`.

    Raises:
        UserError: an unknown name, or nothing that would ever be trained.
    """
    known = known_objectives()
    for name in settings:
        if name not in known:
            raise UserError(_unknown(name, known))
    hidden = {known[name].modality for name, one in settings.items() if one.ratio > 0}
    if not hidden:
        raise UserError("objectives: none has a ratio above 0, so there is nothing to train")
    if not any(one.weight > 0 and known[name].modality in hidden for name, one in settings.items()):
        raise UserError(
            f"objectives: none of {' and '.join(sorted(hidden))}, which alone are hidden (ratio), "
            "has a weight above 0, so there is nothing to train"
        )
    objectives = nn.ModuleDict({name: known[name](spec) for name in settings})
    initialise(objectives, spec.init_std)
    return objectives


def _unknown(name: str, known: Mapping[str, type[Objective]]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"objectives: there is no {name!r}{meant} (known: {', '.join(sorted(known))})"
