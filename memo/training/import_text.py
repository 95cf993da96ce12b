"""A text model of others as a checkpoint: what tasks of text alone are tuned from."""

import shutil
from pathlib import Path

import torch

from data_pipeline.errors import UserError
from data_pipeline.order import StreamState
from data_pipeline.shards.dataset import FeatureSchema
from memo.config import ModelSpec, PretrainConfig
from memo.model.memobert import MemoBert
from memo.model.pretrained import Sizes, load_hf_weights, load_mlm_head, spec_from_hf
from memo.objectives import build_objectives
from memo.objectives.pretraining_model import PretrainingModel
from memo.settings import load_config
from memo.tokenizer import load_tokenizer
from memo.training.checkpoint import Progress
from memo.training.saving import write_checkpoint
from memo.training.setup import FACE_POSITIONS, SPEECH_POSITIONS
from memo.training.state import TrainingState

OTHERS = ("span_mafr", "span_mvfr", "span_mvfc_kl")
"""Objectives of the modalities that a text model has not."""


def import_text(source: Path, out: Path) -> Path:
    """Write a checkpoint that has taken no step.

    It has no face and no speech: a task with these refuses it.

    Args:
        source: folder of a Hugging Face BERT, XLM-R or MiniLM checkpoint.
        out: run folder to make.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: `out` exists, there is no such checkpoint in `source`, its tokenizer does not fit
            it, or the disk is full; nothing is left.
    """
    if out.exists():
        raise UserError(f"{out} exists already; give a new folder or remove it")
    sizes = spec_from_hf(source)
    tokenizer = load_tokenizer(source)
    spec = _spec(source, sizes, tokenizer.vocab_size)
    absent = [f"objectives.{name}=null" for name in OTHERS]
    named = [f"name={out.name}", f"model.init_from={source}", f"data.tokenizer={source}"]
    config = load_config(PretrainConfig, None, [*named, *absent])
    torch.manual_seed(config.seed)
    model = PretrainingModel(MemoBert(spec), build_objectives(config.objectives, spec))
    load_hf_weights(model.backbone, source)
    if head := load_mlm_head(source, spec.vocab_size):
        model.objectives["wwmlm"].load_state_dict(head)
    state = TrainingState(model.state_dict(), {}, 0)
    progress = Progress(0, 0, StreamState.start(config.seed, ""))
    about = (progress, config, spec, FeatureSchema(face=None, speech=None), tokenizer)
    try:
        return write_checkpoint(out / "checkpoints", state, *about)
    except UserError:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _spec(source: Path, sizes: Sizes, pieces: int) -> ModelSpec:
    """The checkpoint's sizes, with words for the pieces of its tokenizer: some tables have more."""
    if pieces > sizes["vocab_size"]:
        raise UserError(
            f"{source}: its tokenizer has {pieces} pieces, its model {sizes['vocab_size']}"
        )
    return ModelSpec(
        **{
            "face_dim": 1,
            "face_classes": 1,
            "speech_dim": 1,
            "max_face": FACE_POSITIONS,
            "max_speech": SPEECH_POSITIONS,
            **sizes,
            "vocab_size": pieces,
        }
    )
