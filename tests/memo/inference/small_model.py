"""Small models, tuned on the demo corpus."""

from pathlib import Path

from memo.tuning.run import finetune
from tests.memo.tuning.small_tuning import tuning_config

MODES = {
    "full": [],
    "houlsby": ["adapter.kind=houlsby"],
    "lora": ["adapter.kind=lora", "adapter.scale=2"],
    "prompt+lora": ["adapter.kind=lora", "prompt.soft=2"],
}


def tuned(place: Path, name: str) -> Path:
    run = place / f"run-{name}"
    mode = {"full": "full", "prompt+lora": "prompt+adapter"}.get(name, "adapter")
    config = tuning_config(
        place / "small.yaml", place / "backbone", run, mode, "folds=[0]", *MODES[name]
    )
    finetune(config)
    return run
