"""What a system's texts are read with, built for one fold."""

from collections.abc import Sequence

import torch

from memo.multitask.base import System
from memo.multitask.setup import SystemFold
from memo.multitask.texts import TextStates, TokenStates, WordStates
from memo.tuning.base import Parts, TuningMode, parse_mode
from memo.tuning.setup import pretrained_parts
from memo.words.encoders import WordEmbedding
from memo.words.vectors import train_vectors, vector_table


def word_states(fold: SystemFold) -> TextStates:
    """Vectors of the vocabulary's words, from a file or trained on the fold's own texts."""
    setup, words, vocabulary = fold.setup, fold.setup.config.words, fold.vocabulary
    assert vocabulary is not None, "words have one"
    lookup = setup.lookup or train_vectors(fold.texts(), words.width)
    table, _ = vector_table(vocabulary, lookup, words.spread, fold.seed)
    # Vectors that stay as they are are saved in 16 bits, and are the same when they are read back.
    vectors = torch.from_numpy(table).half().float() if words.frozen else torch.from_numpy(table)
    return WordStates(WordEmbedding(vectors, words.frozen))


def token_states(fold: SystemFold) -> tuple[TokenStates, Sequence[TuningMode]]:
    """A backbone's tokens, and how it is trained."""
    setup = fold.setup
    assert setup.backbone is not None, "that is asked for"
    body, mlm = pretrained_parts(setup.backbone, setup.config)
    modes = parse_mode(setup.config.mode)
    parts = Parts(setup.config, body, mlm, setup.backbone.tokenizer, 2, None)
    for mode in modes:
        mode.extend(parts)
    return TokenStates(body, setup.backbone.tokenizer.cls_id), modes


def freeze(system: System, prefix: str, modes: Sequence[TuningMode]) -> None:
    """Freeze what the modes do not train of a backbone; everything else is trained.

    Args:
        system: the model.
        prefix: of the names of the backbone's parameters, with the dot.
        modes: say what is trained.
    """
    for name, parameter in system.named_parameters():
        if name.startswith(prefix):
            inside = f"backbone.{name.removeprefix(prefix)}"
            parameter.requires_grad_(any(mode.trains(inside) for mode in modes))
