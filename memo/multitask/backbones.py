"""What a system's texts are read with, and the blueprint of a fold's model."""

from collections.abc import Sequence

import torch

from memo.multitask.base import System
from memo.multitask.setup import Blueprint, SystemFold
from memo.multitask.texts import TextStates, TokenStates, UpperTokenStates, WordStates
from memo.tuning.base import Parts, TuningMode, parse_mode, stays_pretrained
from memo.tuning.setup import pretrained_parts
from memo.words.encoders import WordEmbedding
from memo.words.vectors import train_vectors, vector_table


def blueprint_of(fold: SystemFold) -> Blueprint:
    """What a fold's model is built from.

    Vectors are those of a file, or trained on the fold's own texts.
    """
    setup, words, vocabulary = fold.setup, fold.setup.config.words, fold.vocabulary
    vectors = None
    if vocabulary is not None:
        lookup = setup.lookup or train_vectors(fold.texts(), words.width)
        table = vector_table(vocabulary, lookup, words.spread, fold.seed)
        vectors = torch.from_numpy(table)
        if words.frozen:  # they are saved in 16 bits, and shall be the same when read back
            vectors = vectors.half().float()
    tags = len(fold.tags)
    return Blueprint(setup.config, setup.kinds, setup.backbone, vectors, tags, setup.store)


def word_states(blueprint: Blueprint) -> TextStates:
    """Vectors of words."""
    assert blueprint.table is not None, "words have vectors"
    return WordStates(WordEmbedding(blueprint.table, blueprint.config.words.frozen))


def upper_states(tokens: TokenStates, blueprint: Blueprint) -> TokenStates | UpperTokenStates:
    """The same states; layers that shall stay as they are read a text once, if there is room."""
    frozen = blueprint.config.frozen_layers
    if not frozen:
        return tokens
    found = UpperTokenStates(tokens, frozen, blueprint.store)
    found.below.requires_grad_(requires_grad=False)
    return found


def token_states(blueprint: Blueprint) -> tuple[TokenStates, Sequence[TuningMode]]:
    """A backbone's tokens, and how it is trained."""
    config, backbone = blueprint.config, blueprint.backbone
    assert backbone is not None, "that is asked for"
    body, mlm = pretrained_parts(backbone, config)
    modes = parse_mode(config.mode)
    parts = Parts(config, body, mlm, backbone.tokenizer, 2, None)
    for mode in modes:
        mode.extend(parts)
    return TokenStates(body, backbone.tokenizer.cls_id), modes


def freeze(
    system: System, prefix: str, modes: Sequence[TuningMode], frozen_layers: int = 0
) -> None:
    """Freeze what the modes do not train of a backbone; everything else is trained.

    Args:
        system: the model.
        prefix: of the names of the backbone's parameters, with the dot.
        modes: say what is trained.
        frozen_layers: see `stays_pretrained`.
    """
    for name, parameter in system.named_parameters():
        if name.startswith(prefix):
            inside = f"backbone.{name.removeprefix(prefix)}"
            trained = any(mode.trains(inside) for mode in modes)
            parameter.requires_grad_(trained and not stays_pretrained(inside, frozen_layers))
