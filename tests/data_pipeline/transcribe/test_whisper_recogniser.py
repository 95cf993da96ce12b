import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.base import RECOGNISERS, Miss, Recognised

LETTERS = "abcdefghij"
SPECIAL = ("startoftranscript", "en", "ko", "transcribe", "translate", "notimestamps")
NUMBERS = {f"<|{name}|>": 12 + at for at, name in enumerate(SPECIAL)}
END = 11


def small_whisper(folder: Path, several: bool) -> Any:  # noqa: ANN401
    """Transformers' whole network with random weights and ten letters, saved in the folder."""
    cpu_torch.install()
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    vocabulary = {letter: at for at, letter in enumerate([*LETTERS, "Ġ", "<|endoftext|>"])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(NUMBERS)})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    start = NUMBERS["<|startoftranscript|>"]
    ends = {"pad_token_id": END, "eos_token_id": END, "bos_token_id": END}
    config = WhisperConfig(
        d_model=16, vocab_size=18, decoder_start_token_id=start, **heads, **layers, **ends
    )
    net = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    said: dict[str, Any] = {
        "no_timestamps_token_id": NUMBERS["<|notimestamps|>"],
        "is_multilingual": several,
    }
    if several:
        said["lang_to_id"] = {name: NUMBERS[name] for name in ("<|en|>", "<|ko|>")}
        said["task_to_id"] = {name: NUMBERS[f"<|{name}|>"] for name in ("transcribe", "translate")}
    net.generation_config = GenerationConfig(
        decoder_start_token_id=start, suppress_tokens=list(NUMBERS.values()), **ends, **said
    )
    net.save_pretrained(folder)
    return net


def noise(seconds: float) -> NDArray[np.float32]:
    count = round(seconds * 16_000)
    return np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)


@torch.inference_mode()
def greedy(net: Any, sound: NDArray[np.float32], prompt: list[str]) -> str:  # noqa: ANN401
    """The most likely token after the other, by the network alone."""
    from transformers import WhisperFeatureExtractor

    mel = torch.as_tensor(
        WhisperFeatureExtractor(feature_size=80)(
            sound, sampling_rate=16_000, return_tensors="pt"
        ).input_features
    )
    heard = net.model.encoder(mel)
    tokens = [NUMBERS[f"<|{name}|>"] for name in prompt]
    begin = len(tokens)
    while len(tokens) < begin + 224:
        said = torch.tensor([tokens])
        logits = net(encoder_outputs=heard, decoder_input_ids=said).logits[0, -1]
        logits[list(NUMBERS.values())] = -torch.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == END:
            break
    letters = [*LETTERS, " ", ""]
    return " ".join("".join(letters[token] for token in tokens[begin:]).split())


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_text_is_the_networks_most_likely_one(tmp_path: Path, language: str) -> None:
    net = small_whisper(tmp_path, several=True)
    recogniser = RECOGNISERS.load(ModelChoice("whisper", tmp_path))
    expected = greedy(net, noise(1), ["startoftranscript", language, "transcribe", "notimestamps"])
    heard = recogniser.recognise(noise(1), language)
    assert heard == (Recognised(expected, language) if expected else Miss.NOTHING)
    assert recogniser.recognise(noise(1), language) == heard
    assert (recogniser.language, len(recogniser.sha256)) == ("", 64)


@torch.inference_mode()
def test_an_unknown_language_is_detected_and_a_foreign_one_is_said(tmp_path: Path) -> None:
    net = small_whisper(tmp_path, several=True)
    recogniser = RECOGNISERS.load(ModelChoice("whisper", tmp_path))
    expected = recogniser.recognise(noise(1), "")
    likely = [recogniser.recognise(noise(1), language) for language in ("en", "ko")]
    start = torch.tensor([[NUMBERS["<|startoftranscript|>"]]])
    padded = np.pad(noise(1), (0, 29 * 16_000))
    from transformers import WhisperFeatureExtractor

    mel = WhisperFeatureExtractor(feature_size=80)(padded, sampling_rate=16_000).input_features
    logits = net(torch.as_tensor(np.asarray(mel)), decoder_input_ids=start).logits[0, -1]
    both = logits[[NUMBERS["<|en|>"], NUMBERS["<|ko|>"]]]
    assert expected == likely[int(both.argmax())]
    assert recogniser.recognise(noise(1), "fr") is Miss.LANGUAGE


def test_one_that_knows_english_alone(tmp_path: Path) -> None:
    net = small_whisper(tmp_path, several=False)
    recogniser = RECOGNISERS.load(ModelChoice("whisper", tmp_path))
    heard = recogniser.recognise(noise(2), "")
    text = greedy(net, noise(2), ["startoftranscript", "notimestamps"])
    assert heard == (Recognised(text, "en") if text else Miss.NOTHING)
    assert recogniser.language == "en"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "No such file"),
        ("config.json", "[1]", "Input should be an object"),
        ("config.json", {"d_model": "wide"}, "d_model Input should be a valid integer"),
        ("config.json", {"encoder_attention_heads": -2}, "encoder_attention_heads Input should be"),
        ("config.json", {"decoder_attention_heads": 3}, "divisible"),
        ("config.json", {"decoder_layers": 10**6}, "decoder_layers Input should be less than"),
        ("config.json", {"decoder_layers": 2}, "the weights lack model.decoder.layers.1"),
        ("config.json", {"max_target_positions": 9}, "max_target_positions Input should be"),
        ("config.json", {"vocab_size": 7}, "mismatch"),
        ("generation_config.json", "", "Invalid JSON"),
        ("generation_config.json", "{}", "decoder_start_token_id Field required"),
        ("generation_config.json", {"lang_to_id": {}}, "names no tokens of languages and tasks"),
        ("generation_config.json", {"task_to_id": {}}, "names no tokens of languages and tasks"),
        ("generation_config.json", {"eos_token_id": 0}, "the tokenizer's files are .* another"),
        ("tokenizer.json", None, "the tokenizer's files are missing"),
        ("tokenizer.json", "{}", "added_tokens"),
        ("tokenizer_config.json", '"x"', "attribute"),
    ],
)
def test_files_beside_the_weights_that_are_damaged_or_missing_are_refused(
    tmp_path: Path, name: str, content: str | dict[str, Any] | None, message: str
) -> None:
    small_whisper(tmp_path, several=True)
    file = tmp_path / name
    if content is None:
        file.unlink()
    elif isinstance(content, str):
        file.write_text(content)
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | content))
    with pytest.raises(
        UserError, match=rf"is no Whisper with its decoder \(.*{message}"
    ) as refused:
        RECOGNISERS.load(ModelChoice("whisper", tmp_path))
    assert "\n" not in str(refused.value)


def test_what_else_stands_in_the_configuration_does_not_matter(tmp_path: Path) -> None:
    small_whisper(tmp_path, several=True)
    expected = RECOGNISERS.load(ModelChoice("whisper", tmp_path)).recognise(noise(1), "en")
    config = json.loads((tmp_path / "config.json").read_text())
    nonsense = {"dropout": -2, "activation_dropout": 7, "pad_token_id": 10**6, "use_cache": "x"}
    (tmp_path / "config.json").write_text(json.dumps({**config, **nonsense, "dtype": "x"}))
    again = RECOGNISERS.load(ModelChoice("whisper", tmp_path)).recognise(noise(1), "en")
    assert again == expected


def test_unusable_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no generation_config\.json"):
        RECOGNISERS.load(ModelChoice("whisper", tmp_path))
    small_whisper(tmp_path, several=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.decoder.layer_norm.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack model\.decoder\.layer_norm\.bias"):
        RECOGNISERS.load(ModelChoice("whisper", tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="is no Whisper with its decoder"):
        RECOGNISERS.load(ModelChoice("whisper", tmp_path))
