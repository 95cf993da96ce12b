"""Settings that a run of one task, or of a sequence, would not heed: nobody shall set them in vain.

Those that a system would not heed are in `memo/multitask/idle.py`.
"""

from collections.abc import Iterator
from functools import reduce

from data_pipeline.errors import UserError
from memo.settings import SettingsT
from memo.tuning.config import FinetuneConfig


def check_settings(config: FinetuneConfig) -> None:
    """Refuse settings that the run does not heed, if somebody has set them.

    Raises:
        UserError: names one, and what it is for.
    """
    for name, reason in idle(config):
        if is_set(config, name):
            raise UserError(f"{name} is for {reason}: this run does not heed it")


def idle(config: FinetuneConfig) -> Iterator[tuple[str, str]]:
    """Every setting that has no effect in this run, or group of them, and what it is for.

    `head` may be set with any mode: runs that differ in the mode alone are compared, as in
    docs/results.md.
    """
    modes, several = config.mode.split("+"), bool(config.tasks)
    table = (
        (True, "systems of several tasks, as sog or asp_mtl", _SYSTEMS),
        (several, "a single task", ("training.fraction", "prompt")),
        (not several, "a sequence of tasks", ("continual",)),
        (config.mode != "ewc", "--mode ewc", ("continual.strength", "continual.fisher_clips")),
        (config.mode != "replay", "--mode replay", ("continual.replay_clips",)),
        ("prompt" not in modes, "--mode prompt and prompt+adapter", ("prompt",)),
        ("adapter" not in modes, "--mode adapter and prompt+adapter", ("adapter",)),
        (config.adapter.kind != "lora", "adapter.kind=lora", ("adapter.scale",)),
    )
    for applies, reason, names in table:
        yield from ((name, reason) for name in names if applies)


_SYSTEMS = (
    "backbone", "members", "longest", "truncation", "kept_gib", "words", "sog", "asp_mtl",
    "trimodal",
)  # fmt: skip


def is_set(config: FinetuneConfig, name: str) -> bool:
    """Whether a setting, e.g. `training.fraction`, or a group is other than where nobody sets it.

    To set it to null is as good as to leave it.
    """
    return _value(config, name) not in (_value(_PLAIN, name), None)


def without(config: FinetuneConfig, name: str) -> FinetuneConfig:
    """The same, but a setting or a group is as where nobody sets it."""
    return _with_plain(config, _PLAIN, name)


_PLAIN = FinetuneConfig.model_construct()
"""What nobody has set; no run, for it has no task."""


def _with_plain(settings: SettingsT, plain: SettingsT, name: str) -> SettingsT:
    own, _, rest = name.partition(".")
    value = getattr(plain, own)
    if rest:
        value = _with_plain(getattr(settings, own), value, rest)
    return settings.model_copy(update={own: value})


def _value(config: FinetuneConfig, name: str) -> object:
    value: object = reduce(getattr, name.split("."), config)
    return value
