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
from data_pipeline.features.device import CPU
from data_pipeline.features.speech import SPEECH
from data_pipeline.features.wav2vec2 import Wav2Vec2Encoder, _guess_architecture
from data_pipeline.registry import ModelChoice
from tests.data_pipeline.features.small_wav2vec2 import BASE, LARGE, small_net


def noise(samples: int = 8000) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(0.05, 0.1, samples).astype(np.float32)


def last_hidden_state(net: Any, sound: NDArray[np.float32], normalise: bool) -> NDArray[np.float32]:  # noqa: ANN401
    from transformers import Wav2Vec2FeatureExtractor

    features = Wav2Vec2FeatureExtractor(do_normalize=normalise)(
        sound, sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        return np.asarray(net(features.input_values).last_hidden_state[0])


def torchaudio_tensors(net: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """The same weights in torchaudio's form, by torchaudio's own converter."""
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    return {
        name: value.clone() for name, value in import_huggingface_model(net).state_dict().items()
    }


@pytest.mark.parametrize("mode", [BASE, LARGE], ids=["group", "layer"])
@pytest.mark.parametrize("layer_norm_first", [True, False])
@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("heads", [1, 4])
def test_hugging_face_folder_gives_transformers_output(
    mode: dict[str, object], layer_norm_first: bool, do_normalize: bool, heads: int, tmp_path: Path
) -> None:
    config = {**mode, "do_stable_layer_norm": layer_norm_first, "num_attention_heads": heads}
    net = small_net("Wav2Vec2", **config)
    net.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    encoder = SPEECH.load(ModelChoice("wav2vec2", tmp_path), CPU)
    rows = encoder.encode(noise())
    np.testing.assert_allclose(rows, last_hidden_state(net, noise(), do_normalize), atol=1e-4)
    assert (encoder.dim, encoder.rows_per_s) == (64, 50.0)
    assert rows.dtype == np.float32


@pytest.mark.parametrize("mode", [BASE, LARGE], ids=["group", "layer"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchaudio_file_gives_transformers_output(
    mode: dict[str, object], suffix: str, tmp_path: Path
) -> None:
    net = small_net("Wav2Vec2", **mode)
    tensors = torchaudio_tensors(net) | {"aux.weight": torch.ones(5, 64)}
    path = tmp_path / f"wav2vec2{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    # A waveform of variance 1: the two normalisations' epsilons do not show.
    sound = (noise() * 10).astype(np.float32)
    rows = Wav2Vec2Encoder(path).encode(sound)
    expected = last_hidden_state(net, sound, normalise=mode is LARGE)
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    np.testing.assert_array_equal(Wav2Vec2Encoder(tmp_path).encode(sound), rows)


def test_the_old_names_of_weight_norm_and_a_pretraining_prefix_are_understood(
    tmp_path: Path,
) -> None:
    net = small_net("Wav2Vec2", **BASE)
    net.save_pretrained(tmp_path)
    sound = noise()
    rows = Wav2Vec2Encoder(tmp_path).encode(sound)
    old = {
        "wav2vec2."
        + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    assert "wav2vec2.encoder.pos_conv_embed.conv.weight_g" in old
    (tmp_path / "model.safetensors").unlink()
    torch.save(old | {"quantizer.codevectors": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(Wav2Vec2Encoder(tmp_path).encode(sound), rows)


def test_guesses_hold_for_every_network_of_torchaudio() -> None:
    cpu_torch.install()
    import torchaudio.pipelines as published

    bundles = [value for name, value in vars(published).items() if hasattr(value, "_params")]
    bundles = [one for one in bundles if getattr(one, "_model_type", "") == "Wav2Vec2"]
    assert len(bundles) > 15
    for bundle in bundles:
        params = bundle._params
        tensors = {
            "encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1": (
                torch.empty(params["encoder_embed_dim"], 1, 1)
            )
        }
        if params["extractor_mode"] == "layer_norm":
            tensors["feature_extractor.conv_layers.1.layer_norm.weight"] = torch.empty(1)
        guess = _guess_architecture(tensors)
        assert guess.heads == params["encoder_num_heads"]
        assert guess.layer_norm_first == params["encoder_layer_norm_first"]
        assert list(guess.strides) == [x[2] for x in params["extractor_conv_layer_config"]]
        assert (guess.normalise_eps is not None) == bundle._normalize_waveform


@pytest.mark.parametrize("samples", [0, 399, 400, 719, 720])
def test_rows_of_short_sound(samples: int, tmp_path: Path) -> None:
    small_net("Wav2Vec2", **BASE).save_pretrained(tmp_path)
    rows = Wav2Vec2Encoder(tmp_path).encode(noise(samples))
    assert rows.shape == (max(0, (samples - 400) // 320 + 1), 64)


def test_unusable_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 0 files"):
        Wav2Vec2Encoder(tmp_path)
    broken = tmp_path / "wav2vec2.pth"
    for content in (b"", b"not a zip file", b"cos\nsystem\n(S'true'\ntR."):
        broken.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as weights"):
            Wav2Vec2Encoder(broken)
    torch.save({"model": {"encoder.x": torch.ones(1)}}, broken)
    with pytest.raises(UserError, match="holds no state dict"):
        Wav2Vec2Encoder(broken)
    torch.save({"encoder.x": torch.ones(1)}, broken)
    with pytest.raises(UserError, match=r"no wav2vec 2\.0 network"):
        Wav2Vec2Encoder(broken)


def test_folder_of_another_network_or_with_missing_weights_is_refused(tmp_path: Path) -> None:
    small_net("Wav2Vec2", **BASE).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer_norm.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"encoder\.transformer\.layer_norm\.bias"):
        Wav2Vec2Encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="model_type"):
        Wav2Vec2Encoder(tmp_path)
