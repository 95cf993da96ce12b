import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from data_pipeline import cpu_torch
from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.speech import SPEECH
from data_pipeline.features.video import decode_sound
from data_pipeline.features.whisper import WhisperEncoder, WhisperSizes, log_mel
from data_pipeline.registry import ModelChoice


def small_config() -> Any:  # noqa: ANN401
    cpu_torch.install()
    from transformers import WhisperConfig

    sizes = {"d_model": 16, "encoder_layers": 4, "encoder_attention_heads": 2}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 8}
    return WhisperConfig(**sizes, **decoder, encoder_ffn_dim=24, vocab_size=60, pad_token_id=0)


def small_net(folder: Path) -> Any:  # noqa: ANN401
    """Transformers' encoder with random weights, saved in the folder."""
    config = small_config()
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Net

    torch.manual_seed(0)
    net = Net(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    net.save_pretrained(folder)
    return net


def sounds(seconds: float) -> NDArray[np.float32]:
    """A falling tone in noise."""
    times = np.arange(round(seconds * 16_000)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (900 * times - 10 * times**2))
    return (tone + np.random.default_rng(0).normal(0, 0.02, len(times))).astype(np.float32)


def published_mel(sound: NDArray[np.float32], mels: int = 80) -> torch.Tensor:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=mels)
    return torch.as_tensor(
        extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
    )


def third_layer(net: Any, sound: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ANN401
    with torch.inference_mode():
        states = net(published_mel(sound), output_hidden_states=True).hidden_states
    return np.asarray(states[3][0])


def test_log_mel_is_whispers() -> None:
    cpu_torch.install()
    from transformers import WhisperFeatureExtractor

    sound = sounds(30)
    filters = torch.from_numpy(WhisperFeatureExtractor(feature_size=80).mel_filters).float()
    mel = log_mel(torch.from_numpy(sound), filters)
    assert mel.shape == (80, 3000)
    torch.testing.assert_close(mel, published_mel(sound)[0], atol=1e-4, rtol=0)


def test_rows_are_transformers_third_layer(tmp_path: Path) -> None:
    net = small_net(tmp_path)
    encoder = SPEECH.load(ModelChoice("whisper", tmp_path), CPU)
    rows = encoder.encode(sounds(30))
    np.testing.assert_allclose(rows, third_layer(net, sounds(30)), atol=1e-4)
    assert (encoder.dim, encoder.rows_per_s) == (16, 50.0)


def test_longer_sound_is_encoded_in_pieces_and_shorter_is_not_padded(tmp_path: Path) -> None:
    small_net(tmp_path)
    encoder = WhisperEncoder(tmp_path)
    sound = sounds(41.3)
    rows = encoder.encode(sound)
    assert rows.shape == (round(41.3 * 50), 16)
    np.testing.assert_array_equal(rows[:1500], encoder.encode(sound[:480_000]))
    np.testing.assert_array_equal(rows[1500:], encoder.encode(sound[480_000:]))
    assert encoder.encode(sound[:400]).shape == (0, 16)


def test_a_whole_whisper_will_do(tmp_path: Path) -> None:
    config = small_config()
    from transformers import WhisperForConditionalGeneration

    whole = WhisperForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    assert "model.decoder.layer_norm.bias" in load_file(tmp_path / "model.safetensors")
    rows = WhisperEncoder(tmp_path).encode(sounds(30))
    np.testing.assert_allclose(rows, third_layer(whole.model.encoder, sounds(30)), atol=1e-4)


def test_unusable_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no Whisper encoder"):
        WhisperEncoder(tmp_path)
    small_net(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({"conv1.bias": tensors["conv1.bias"]}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"do not fit config.json .*conv1\.weight"):
        WhisperEncoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="is no Whisper encoder"):
        WhisperEncoder(tmp_path)
    small_net(tmp_path)
    for config in ({"d_model": 32, "encoder_attention_heads": 2}, {"d_model": "wide"}, [1]):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError):
            WhisperEncoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d_model", None, "is no Whisper encoder .*d_model Input should be a valid integer"),
        ("d_model", 32, "do not fit config.json .*size mismatch"),
        ("d_model", 10**6, "do not fit config.json"),
        ("d_model", 10**30, "d_model Input should be less than"),
        ("encoder_attention_heads", -2, "encoder_attention_heads Input should be greater than 0"),
        ("encoder_attention_heads", 3, "must be divisible by num_heads"),
        ("encoder_ffn_dim", 0, "encoder_ffn_dim Input should be greater than 0"),
        ("num_mel_bins", "many", "num_mel_bins Input should be a valid integer"),
        ("num_mel_bins", 128, "do not fit config.json .*conv1"),
        ("max_source_positions", 100, "max_source_positions Input should be greater than or equal"),
        ("activation_function", "x", "activation_function Input should be 'gelu'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    small_net(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(UserError, match=message) as refused:
        WhisperEncoder(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def net_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    small_net(folder)
    return folder


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANYTHING = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.text(), LEAVES, max_size=2)


CHANGES = st.dictionaries(
    st.sampled_from([*WhisperSizes.model_fields, "dtype", "dropout", "pad_token_id"]), ANYTHING
)


@settings(max_examples=100, deadline=None)
@given(changes=CHANGES, gone=st.sampled_from(["", *WhisperSizes.model_fields]))
def test_with_any_configuration_it_encodes_or_is_refused_in_one_line(
    net_folder: Path, changes: dict[str, object], gone: str
) -> None:
    config = {**small_config().to_dict(), **changes}
    config.pop(gone, None)
    (net_folder / "config.json").write_text(json.dumps(config))
    refused = ""
    try:
        rows = WhisperEncoder(net_folder).encode(sounds(0.5))
    except UserError as error:
        refused = str(error)
    else:
        assert rows.shape == (25, 16)
    assert "\n" not in refused


def mean_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean over the rows (T, D) of the cosine between them."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).mean())


def real_net(folder: Path) -> Any:  # noqa: ANN401
    cpu_torch.install()
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Net

    net = Net(WhisperConfig(**json.loads((folder / "config.json").read_text())))
    weights = load_file(folder / "model.safetensors")
    net.load_state_dict(
        {name.removeprefix("encoder."): value.float() for name, value in weights.items()}
    )
    return net.eval()


@pytest.mark.corpora
def test_real_weights_give_transformers_third_layer(shared: Path) -> None:
    folder = shared / "weights" / "whisper-tiny.en-encoder"
    encoder, sound = WhisperEncoder(folder), sounds(30)
    expected = third_layer(real_net(folder), sound)
    np.testing.assert_allclose(encoder.encode(sound), expected, atol=1e-3)
    assert encoder.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("archive", "member"),
    [
        ("grid_s1.tar", "grid_s1/clips/bbaf2n.mp4"),
        ("ravdess.tar", "ravdess/speech/03-01-01-01-01-01-01.ogg"),
    ],
)
def test_rows_of_real_clips_are_near_those_of_a_padded_one(
    archive: str, member: str, shared: Path
) -> None:
    with tarfile.open(shared / "data" / archive) as tar:
        file = tar.extractfile(member)
        assert file is not None
        sound = decode_sound(file.read())
    assert sound is not None
    folder = shared / "weights" / "whisper-tiny.en-encoder"
    encoder = WhisperEncoder(folder)
    rows = encoder.encode(sound)
    padded = third_layer(real_net(folder), sound)[: len(rows)]
    assert abs(len(rows) - len(sound) / 320) <= 1
    # Over 25 clips of each corpus: 0.976 to 0.989; rows of another clip reach 0.88 at most.
    assert mean_cosine(rows, padded) > 0.95
    assert mean_cosine(rows, padded) > mean_cosine(rows[1:], padded[:-1]) + 0.01
    assert mean_cosine(rows, padded) > mean_cosine(rows[:-1], padded[1:]) + 0.01
    np.testing.assert_array_equal(encoder.encode(sound), rows)
