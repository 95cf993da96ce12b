"""A small labelled corpus, a checkpoint of random weights, and settings of runs of a second."""

from pathlib import Path

import yaml

from data_pipeline.corpora.demo import EMOTIONS, write_demo
from data_pipeline.shards.reader import open_dataset
from memo.settings import load_config
from memo.tokenizer import train_sentencepiece
from memo.training.checkpoint import Progress
from memo.training.saving import write_checkpoint
from memo.training.setup import build_model, first_state, model_spec, open_data
from memo.training.state import TrainingState
from memo.tuning.config import FinetuneConfig
from tests.memo.training.small_run import small_config

WORDS = dict(
    zip(EMOTIONS, ["furious", "gross", "afraid", "glad", "plain", "tears", "wow"], strict=True)
)


def write_corpus(folder: Path) -> Path:
    """200 clips of 40 speakers, with a tokenizer."""
    write_demo(folder, train=200, valid=10)
    train = open_dataset(folder).split("train")
    texts = [train.read_text(sample) or "" for sample in range(len(train))]
    train_sentencepiece([*texts, "i am ."], folder / "tokenizer", 150)
    return folder


def write_backbone(corpus: Path, run: Path, *changes: str) -> Path:
    """A checkpoint of initial weights of a model of width 32."""
    config = small_config(corpus, run, *changes)
    data = open_data(config)
    spec = model_spec(config, data)
    model = build_model(config, spec, data)
    state = TrainingState(model.state_dict(), {}, 0)
    progress = Progress(0, 0, first_state(config, data))
    write_checkpoint(
        run / "checkpoints", state, progress, config, spec, data.features, data.tokenizer
    )
    return run


def write_task(path: Path, corpus: Path, **changes: object) -> Path:
    """A task file of the demo corpus."""
    task = {
        "name": path.stem,
        "dataset": str(corpus),
        "classes": list(EMOTIONS),
        "folds": {"by": "speaker", "count": 3, "valid_groups": 4},
        "seeds": [1],
        "wording": {
            "en": {
                "template": "i am [MASK].",
                "words": {name: [word] for name, word in WORDS.items()},
            }
        },
    }
    path.write_text(yaml.safe_dump(task | changes))
    return path


def tuning_config(
    task: Path, backbone: Path, run: Path, mode: str, *changes: str
) -> FinetuneConfig:
    """Two epochs of small batches."""
    return load_config(
        FinetuneConfig,
        None,
        [
            f"task={task}",
            f"pretrained={backbone}",
            f"run_dir={run}",
            f"mode={mode}",
            "threads=1",
            "training.epochs=2",
            "batch.global_batch=16",
            *(["adapter.size=4"] if "adapter" in mode else []),
            "optimizer.lr=3e-3",
            "optimizer.warmup_steps=2",
            *changes,
        ],
    )
