"""Settings that a run of a system would not heed: nobody shall set them in vain."""

from collections.abc import Iterator

from data_pipeline.errors import UserError
from memo.multitask.members import SystemSettings
from memo.tuning.config import FinetuneConfig
from memo.tuning.idle import is_set

MODES = ("full", "linear", "adapter")
"""How a backbone of a system can be trained."""

SYSTEMS = ("sog", "asp_mtl", "trimodal")
"""Those that have settings of their own, under their name."""


def check_settings(config: FinetuneConfig, system: SystemSettings) -> None:
    """Refuse settings that the system does not heed, if somebody has set them.

    Raises:
        UserError: names one, and what it is for.
    """
    if config.mode not in MODES:
        raise UserError(f"--mode: a system's backbone is tuned by {', '.join(MODES)}")
    for name, reason in idle(config, system.system):
        if is_set(config, name):
            raise UserError(f"{name} is {reason}: {system.name} does not heed it")


def idle(config: FinetuneConfig, system: str) -> Iterator[tuple[str, str]]:
    """Every setting that has no effect in this run, or group of them, and what it is for.

    `asp_mtl.normalised` may be set with any sharing: runs that differ in `sharing` alone are
    compared, as in docs/results.md; so may `sog.places` without a gate.
    """
    words, linear = config.backbone == "original", config.mode == "linear"
    sog, asp = config.sog, config.asp_mtl
    keeps = system != "trimodal" and (config.frozen_layers > 0 or (linear and system == "sog"))
    table = (
        (True, "for a single task", _SINGLE),
        (True, "for a single task, a member has longest", ("limits.text",)),
        (True, f"not for {system}", tuple(name for name in SYSTEMS if name != system)),
        (words, "not for backbone=original", _BACKBONE),
        (words, "for backbone=memo", ("pretrained",)),
        (not words, "for backbone=original", _WORDS),
        (words or system != "trimodal", "for clips, by trimodal and backbone=memo", _ROWS),
        (config.words.vectors is not None, "for vectors that are trained", ("words.width",)),
        (not keeps, "for frozen_layers, and of sog --mode linear", ("kept_gib",)),
        (linear and system == "sog", "for a backbone that is trained", ("dropout",)),
        (not linear, "for a frozen backbone, of --mode linear", ("sog.layer",)),
        (config.mode != "adapter" and system != "asp_mtl", "for --mode adapter", ("adapter",)),
        (config.adapter.kind != "lora", "for adapter.kind=lora", ("adapter.scale",)),
        (sog.training != "maml", "for sog.training=maml", ("sog.maml",)),
        ("dense" not in sog.places, "for the place dense", ("sog.published_dense",)),
        (sog.gate == "none", "for a gate", ("sog.published_dense",)),
        (asp.sharing != "asp", "for asp_mtl.sharing=asp", _ADVERSARIAL),
        (asp.sharing == "alone", "for tasks that share something", ("asp_mtl.one_output",)),
    )
    for applies, reason, names in table:
        yield from ((name, reason) for name in names if applies)


_SINGLE = (
    "modalities", "training.fraction", "training.class_weights", "training.patterns", "prompt",
    "head", "continual",
)  # fmt: skip
_BACKBONE = (
    "mode", "direct", "frozen_layers", "kept_gib", "dropout", "attention_dropout", "adapter",
    "asp_mtl.upper_layers", "sog.layer",
)  # fmt: skip
_WORDS = (
    "words", "asp_mtl.encoder", "asp_mtl.hidden", "trimodal.image", "trimodal.tag_width",
    "trimodal.longest_tags", "trimodal.filters", "trimodal.dropout",
)  # fmt: skip
_ROWS = ("limits.face", "limits.speech")
_ADVERSARIAL = (
    "asp_mtl.adversary", "asp_mtl.difference", "asp_mtl.steepness", "asp_mtl.unlabelled",
)  # fmt: skip
