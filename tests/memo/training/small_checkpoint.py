"""Checkpoints of a small model that took no step."""

from pathlib import Path

from data_pipeline.order import StreamState
from data_pipeline.shards.dataset import FeatureSchema, SpeechSchema
from memo.config import ModelSpec, PretrainConfig
from memo.tokenizer import Tokenizer
from memo.training.checkpoint import Progress
from memo.training.saving import write_checkpoint
from memo.training.state import TrainingState

CONFIG = PretrainConfig(keep_checkpoints=2)
FEATURES = FeatureSchema(
    speech=SpeechSchema(dim=4, encoder="noise", encoder_sha256="0" * 64, rows_per_s=16.0)
)


def write(
    root: Path,
    step: int,
    state: TrainingState,
    spec: ModelSpec,
    tokenizer: Tokenizer,
    config: PretrainConfig = CONFIG,
) -> Path:
    progress = Progress(step, tokens=100 * step, stream=StreamState(1234, 2, step, "f" * 64))
    return write_checkpoint(root, state, progress, config, spec, FEATURES, tokenizer)
