"""Weights of Hugging Face BERT, RoBERTa / XLM-R and MiniLM checkpoints.

A folder holds `config.json` and `model.safetensors` or `pytorch_model.bin`. The text embedder and
the encoder take their weights from it; what BERT lacks (face, speech) keeps its random start.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from data_pipeline.errors import UserError
from memo.config import ModelSpec
from memo.model.encoder import Layer
from memo.model.memobert import MemoBert


class Sizes(TypedDict):
    """The fields of `ModelSpec` that a checkpoint decides."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab_size: int
    max_positions: int
    position_offset: int
    layer_norm_eps: float


_OFFSET_FAMILIES = frozenset({"roberta", "xlm-roberta", "camembert"})
_FAMILIES = _OFFSET_FAMILIES | {"bert"}
_COUNTS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "pad_token_id",
)
"""Numbers of `config.json`."""

_PREFIXES = ("bert.", "roberta.")
_HEADS = (
    (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    ),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
)
"""Names of the linear layer, the LayerNorm and the output bias of BERT's and RoBERTa's heads."""


def spec_from_hf(folder: Path) -> Sizes:
    """The sizes of a checkpoint.

    RoBERTa's first position is the padding id + 1, the table's rows before it are unused.

    Raises:
        UserError: no config, a size that is none, another architecture, another activation than erf
            GELU.
    """
    config = _read_config(folder)
    offset = config["pad_token_id"] + 1 if config["model_type"] in _OFFSET_FAMILIES else 0
    return Sizes(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        ffn=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        max_positions=config["max_position_embeddings"] - offset,
        position_offset=offset,
        layer_norm_eps=config["layer_norm_eps"],
    )


def load_hf_weights(model: MemoBert, folder: Path) -> None:
    """Copy a checkpoint's weights into the text embedder and the encoder.

    Type row 0 becomes the text's type, row 1 (if there is one) the face's. Of words the model may
    have fewer: what a table has behind the last piece of its tokenizer was to round it up.

    Raises:
        UserError: sizes that differ from the model's (both are named), missing weights, a file
            that cannot be read.
    """
    sizes = _check_sizes(model.spec, folder)
    source = _Source(folder, _read_weights(folder))
    with torch.no_grad():
        _load_text(model, source, sizes["vocab_size"])
        for number, layer in enumerate(model.encoder.layers):
            _load_layer(cast(Layer, layer), f"encoder.layer.{number}.", source)


def load_mlm_head(folder: Path, pieces: int) -> dict[str, Tensor]:
    """The masked-word head of a checkpoint, if it has one.

    Args:
        folder: of the checkpoint.
        pieces: V, of the model; no more than the checkpoint has.

    Returns:
        The state of a `WholeWordMLM`: `transform.0.*` of the linear layer, `transform.2.*` of the
        LayerNorm, `bias` (V,) of the decoder; empty if the checkpoint has no such head.

    Raises:
        UserError: a file that cannot be read.
    """
    weights = _read_weights(folder)
    for dense, norm, bias in _HEADS:
        names = {"bias": bias}
        for part in ("weight", "bias"):
            names |= {
                f"transform.0.{part}": f"{dense}.{part}",
                f"transform.2.{part}": f"{norm}.{part}",
            }
        if all(name in weights for name in names.values()):
            head = {ours: weights[theirs].float() for ours, theirs in names.items()}
            return {**head, "bias": head["bias"][:pieces]}
    return {}


_OTHER = "which config.json does not go with"


class _Source:
    """Looks weights up by their Hugging Face name and copies them.

    Args:
        folder: for messages.
        weights: by name, without the model's prefix.
    """

    def __init__(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        self.folder = folder
        self.weights = weights

    def get(self, name: str, columns: tuple[int, ...]) -> Tensor:
        """One weight; all but its first dimension is known."""
        if name not in self.weights:
            message = f"{self.folder}: the checkpoint has no weight {name!r}; is it a whole BERT?"
            raise UserError(message)
        weight = self.weights[name]
        if not weight.ndim or weight.shape[1:] != columns:
            raise UserError(f"{self.folder}: {name} has the shape {tuple(weight.shape)}, {_OTHER}")
        return weight

    def fill(self, target: Tensor, *names: str) -> None:
        """Fill a parameter with one weight or several stacked along its first dimension."""
        parts = [self.get(name, target.shape[1:]) for name in names]
        self._check_rows(parts, names, len(target) // len(names))
        target.copy_(torch.cat(parts))

    def first(self, target: Tensor, name: str, rows: int) -> None:
        """Fill a parameter with the first rows of a weight that has so many."""
        weight = self.get(name, target.shape[1:])
        self._check_rows([weight], [name], rows)
        target.copy_(weight[: len(target)])

    def _check_rows(self, parts: Sequence[Tensor], names: Sequence[str], wanted: int) -> None:
        rows = [len(part) for part in parts]
        if rows != [wanted] * len(names):
            raise UserError(f"{self.folder}: {', '.join(names)} have {rows} rows, {_OTHER}")

    def linear(self, target: nn.Linear, *names: str) -> None:
        """Fill a linear layer with one or several stacked along its outputs."""
        self.fill(target.weight, *(f"{name}.weight" for name in names))
        self.fill(target.bias, *(f"{name}.bias" for name in names))

    def norm(self, target: nn.LayerNorm, name: str) -> None:
        """Fill a LayerNorm."""
        self.fill(target.weight, f"{name}.weight")
        self.fill(target.bias, f"{name}.bias")


def _load_text(model: MemoBert, source: _Source, words: int) -> None:
    """Embeddings: words, positions, types, LayerNorm."""
    source.first(model.text.word.weight, "embeddings.word_embeddings.weight", words)
    source.fill(model.text.position.weight, "embeddings.position_embeddings.weight")
    columns = model.text.token_type.shape[1:]
    types = source.get("embeddings.token_type_embeddings.weight", columns)  # (1 or 2, D)
    model.text.token_type.copy_(types[:1])
    if len(types) > 1:
        model.face.token_type.copy_(types[1:2])
    source.norm(model.text.norm, "embeddings.LayerNorm")


def _load_layer(layer: Layer, prefix: str, source: _Source) -> None:
    """One transformer layer; query, key and value are stacked into one linear layer."""
    attention, feed_forward = layer.attention, layer.feed_forward
    heads = [f"{prefix}attention.self.{name}" for name in ("query", "key", "value")]
    source.linear(attention.qkv, *heads)
    source.linear(attention.output, f"{prefix}attention.output.dense")
    source.norm(layer.attention_norm, f"{prefix}attention.output.LayerNorm")
    source.linear(feed_forward.expand, f"{prefix}intermediate.dense")
    source.linear(feed_forward.output, f"{prefix}output.dense")
    source.norm(layer.norm, f"{prefix}output.LayerNorm")


def _read_config(folder: Path) -> dict[str, Any]:
    """`config.json`, with what the older ones leave out."""
    path = folder / "config.json"
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path}: not a Hugging Face checkpoint's config ({error})"
        raise UserError(message) from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: not a Hugging Face checkpoint's config, but {found!r:.50}")
    padding = int(str(found.get("model_type")) in _OFFSET_FAMILIES)
    config: dict[str, Any] = {"layer_norm_eps": 1e-12, "pad_token_id": padding}
    config |= {"hidden_act": "gelu", **found}
    expected: dict[str, list[str | None]] = {
        "model_type": [*sorted(_FAMILIES)],
        "hidden_act": ["gelu"],
    }
    expected["position_embedding_type"] = ["absolute", None]
    for key, known in expected.items():
        if config.get(key) not in known:
            message = f"{path}: {key} is {config.get(key)!r}; memo loads {known}"
            raise UserError(message)
    for key in _COUNTS:
        if type(config.get(key)) is not int or config[key] < 0:
            raise UserError(f"{path}: {key} is {config.get(key)!r:.50}, and should be a number")
    return config


def _check_sizes(spec: ModelSpec, folder: Path) -> Sizes:
    """Compare the model's sizes with the checkpoint's, which are returned."""
    sizes = spec_from_hf(folder)
    for name, theirs in sizes.items():
        ours = getattr(spec, name)
        if ours != theirs and not (name == "vocab_size" and ours < theirs):
            hint = " (the tokenizer must be the checkpoint's own)" if name == "vocab_size" else ""
            message = (
                f"{folder}: {name} is {theirs} in the checkpoint and {ours} in the model{hint}"
            )
            raise UserError(message)
    return sizes


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights by name, without `bert.` or `roberta.`, LayerNorm's old names replaced."""
    safe, old = folder / "model.safetensors", folder / "pytorch_model.bin"
    path = safe if safe.exists() else old
    try:
        if path == safe:
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        message = f"{folder}: neither model.safetensors nor pytorch_model.bin is there"
        raise UserError(message) from error
    except (OSError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        message = f"{path}: cannot be read ({str(error).splitlines()[0]})"
        raise UserError(message) from error
    if not isinstance(weights, dict):
        raise UserError(f"{path}: cannot be read (it holds no weights by name)")
    tensors = {name: one for name, one in weights.items() if isinstance(one, Tensor)}
    return {_plain_name(name): weight for name, weight in tensors.items()}


def _plain_name(name: str) -> str:
    """A weight's name as today's `BertModel` writes it."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
