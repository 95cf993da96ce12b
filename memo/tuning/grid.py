"""Runs that differ in some settings: every combination of their values."""

import re
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from pathlib import Path
from typing import NamedTuple

from data_pipeline.errors import UserError
from memo.multitask.idle import idle as idle_in_system
from memo.multitask.members import load_system
from memo.settings import load_config
from memo.tuning.config import FinetuneConfig
from memo.tuning.idle import idle, without
from memo.tuning.task import is_system

VALUE = r"(?:\[[^\[\]]*\]|\{[^{}]*\}|[^,\[\]{}]+)"
"""One of those between commas: a list, a mapping, or what has neither comma nor bracket."""

SHARED = ("name", "run_dir", "threads", "distribution.hang_s")
"""Settings of the folder and of the process that all runs are in."""


class Combination(NamedTuple):
    """One value of each setting that varies.

    Attributes:
        label: name of the run's folder.
        settings: `key=value` each.
    """

    label: str
    settings: tuple[str, ...]


def combinations(varied: Sequence[str]) -> list[Combination]:
    """Every combination, the last setting running fastest.

    Args:
        varied: `sog.gate=none,sog`, `sog.places=[convolution],[pooling,dense]`, ...

    Raises:
        UserError: one is not of this form, a setting is named twice or is of the process, or two
            combinations would have the same folder.
    """
    parsed = [_parse(one) for one in varied]
    names = [name for name, _ in parsed]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise UserError(f"--vary {again}: it is given twice; name all of its values in one")
    for name in names:
        if name in SHARED:
            raise UserError(f"--vary {name}: all runs share it; give it once, as {name}=VALUE")
    found = list(_combinations(parsed))
    labels = [one.label for one in found]
    twice = next((one for one in labels if labels.count(one) > 1), None)
    if twice is not None:
        raise UserError(f"--vary: two combinations would both be {twice}; name each value once")
    return found


def vary(
    folder: Path, config: Path | None, settings: Sequence[str], varied: Sequence[str]
) -> list[FinetuneConfig]:
    """The settings of every combination's run.

    One that a combination does not heed, but another does, is not set there: `sog.maml.rate` where
    `sog.training` varies. What none heeds stays, for the run to refuse it.

    Args:
        folder: in which each has its own.
        config: YAML file of settings.
        settings: `key=value` each, of all runs.
        varied: see `combinations`.

    Raises:
        UserError: see `combinations` and `load_config`; or a task's file has a mistake.
    """
    configs = [
        load_config(
            FinetuneConfig,
            config,
            [*settings, *one.settings, f"run_dir={folder / one.label}"],
        )
        for one in combinations(varied)
    ]
    unheeded = [_unheeded(one) for one in configs]
    by_none = set.intersection(*unheeded)
    return [
        reduce(without, sorted(names - by_none), one)
        for one, names in zip(configs, unheeded, strict=True)
    ]


def _unheeded(config: FinetuneConfig) -> set[str]:
    """Names of all settings, or groups of them, that a run does not heed."""
    if config.task is not None and is_system(config.task):
        found = idle_in_system(config, load_system(config.task).system)
    else:
        found = idle(config)
    return {name for name, _ in found}


def _combinations(varied: Sequence[tuple[str, Sequence[str]]]) -> Iterator[Combination]:
    names = [name for name, _ in varied]
    for values in product(*(values for _, values in varied)):
        chosen = list(zip(names, values, strict=True))
        label = "_".join(f"{name.split('.')[-1]}-{_plain(value)}" for name, value in chosen)
        yield Combination(label, tuple(f"{name}={value}" for name, value in chosen))


def _parse(text: str) -> tuple[str, Sequence[str]]:
    """`sog.places=[convolution],[pooling,dense]` -> the setting and its values."""
    name, _, values = text.partition("=")
    if not name or not re.fullmatch(f"{VALUE}(,{VALUE})*", values):
        raise UserError(f"--vary {text}: it is not of the form KEY=A,B or KEY=[A,B],[C]")
    return name, re.findall(VALUE, values)


def _plain(value: str) -> str:
    """A value as a part of a folder's name."""
    return re.sub(r"[^\w.-]+", "+", value).strip("+")
