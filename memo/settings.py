"""Typed settings: YAML file + `key=value` overrides -> one frozen, checked object.

An unknown key is refused with the nearest known one.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict

from data_pipeline.errors import UserError


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_config(kind: type[SettingsT], path: Path | None, overrides: Sequence[str]) -> SettingsT:
    """Read a YAML file, apply `key.sub=value` overrides and check everything.

    Args:
        kind: of settings that are wanted.
        path: YAML file; None takes the defaults.
        overrides: `optimizer.lr=1e-4`, `data.dataset=datasets/grid`, ...

    Raises:
        UserError: a file that is missing or no YAML, an unknown key (names the nearest one), a
            value out of range.
    """
    where = str(path or "the settings")
    merged = _merge(OmegaConf.create(_groups(kind)), _read_yaml(path), where)
    for override in overrides:
        merged = _merge(merged, _parse_override(override), override)
    try:
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    return parse_config(kind, values, where)


def _groups(kind: type[Settings]) -> dict[str, Any]:
    """What is set in groups here and not elsewhere: to name one value leaves a group's others."""
    own = {name: _own(field.default) for name, field in kind.model_fields.items()}
    return {name: values for name, values in own.items() if values}


def _own(default: object) -> dict[str, Any]:
    """Of a field: what its group has not anyway, or all groups of its mapping."""
    if isinstance(default, Mapping):
        return {name: _own(one) for name, one in default.items()}
    return default.model_dump(exclude_defaults=True) if isinstance(default, Settings) else {}


def _merge(under: DictConfig, over: DictConfig, where: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(under, over)
    except (OmegaConfBaseException, TypeError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    assert isinstance(merged, DictConfig), "both are"
    return merged


def parse_config(kind: type[SettingsT], values: object, where: str) -> SettingsT:
    """Check plain values, from YAML or from a checkpoint.

    Args:
        kind: of settings that are wanted.
        values: nested dictionaries.
        where: they come from, for messages.

    Raises:
        UserError: an unknown key (names the nearest one) or a value of the wrong kind or range.
    """
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        raise UserError(f"{where}: {_first_problem(kind, error)}") from None


def _read_yaml(path: Path | None) -> DictConfig:
    if path is None:
        return OmegaConf.create({})
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError:
        raise UserError(f"there is no config file {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is no YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} must hold keys and values, not a list")
    return loaded


def _parse_override(override: str) -> DictConfig:
    key, separator, _ = override.partition("=")
    if not separator or not key:
        raise UserError(f"{override!r} is no setting; write key=value, e.g. optimizer.lr=1e-4")
    try:
        return OmegaConf.from_dotlist([override])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{override!r}: {' '.join(str(error).split())}") from None


_MEANT = {
    "tuple_type": "give a list, as [a, b]",
    "dict_type": "say of which, as {name: value}",
    "string_type": "give a text; numbers, yes and no need quotes to be one",
}
"""By pydantic's type of error: what to do where its message speaks of Python."""


def _first_problem(kind: type[Settings], error: pydantic.ValidationError) -> str:
    """The first problem in one line."""
    first = error.errors()[0]
    place = tuple(str(part) for part in first["loc"])
    name = ".".join(place)
    if first["type"] == "missing":
        return f"{name} is not set, and has no default"
    said = _MEANT.get(first["type"], str(first["msg"]).removeprefix("Value error, "))
    if not place:  # settings that do not go together; all of them would be shown
        return said
    if first["type"] == "model_type":
        said = f"name which of its settings: {', '.join(_known_keys(kind, place))}"
    if first["type"] != "extra_forbidden":
        group = isinstance(first["input"], Mapping)
        return f"{name}: {said}" if group else f"{name}={first['input']!r}: {said}"
    known = _known_keys(kind, place[:-1])
    nearest = difflib.get_close_matches(place[-1], known, n=1)
    meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown key {name!r}{meant} (known here: {', '.join(known)})"


def _known_keys(kind: type[BaseModel], place: Sequence[str]) -> list[str]:
    """Names of the settings at a place such as ("optimizer",) or ("objectives", "wwmlm")."""
    model = kind
    for part in place:
        if part in model.model_fields:  # else a key of a dict, whose values' settings are known
            model = _settings_in(model.model_fields[part].annotation) or model
    return sorted(model.model_fields)


def _settings_in(annotation: object) -> type[BaseModel] | None:
    """The settings that a field holds: itself, an alternative to None, or the items."""
    candidates = (annotation, *get_args(annotation))
    return next(
        (one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None
    )
