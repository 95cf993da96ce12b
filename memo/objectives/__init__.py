"""Pretraining objectives: one file each; see `base.py` for the contract and how to add one."""

from memo.objectives.base import MODALITIES, LossSum, Modality, Objective, register
from memo.objectives.registry import build_objectives, known_objectives

__all__ = [
    "MODALITIES",
    "LossSum",
    "Modality",
    "Objective",
    "build_objectives",
    "known_objectives",
    "register",
]
