"""HuBERT against transformers' HubertModel and torchaudio's converter, with random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.features.device import CPU
from data_pipeline.features.hubert import HubertEncoder
from data_pipeline.features.speech import SPEECH
from data_pipeline.features.wav2vec2 import Wav2Vec2Encoder
from data_pipeline.registry import ModelChoice
from tests.data_pipeline.features.small_wav2vec2 import BASE, LARGE, small_net


def noise(samples: int = 8000) -> NDArray[np.float32]:
    """Of variance 1, so that the epsilons of two normalisations do not show."""
    return np.random.default_rng(1).normal(0.5, 1, samples).astype(np.float32)


def last_hidden_state(net: Any, sound: NDArray[np.float32], normalise: bool) -> NDArray[np.float32]:  # noqa: ANN401
    if normalise:
        sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.inference_mode():
        return np.asarray(net(torch.from_numpy(sound)[None]).last_hidden_state[0])


@pytest.mark.parametrize("mode", [BASE, LARGE], ids=["group", "layer"])
@pytest.mark.parametrize("do_normalize", [True, False])
def test_hugging_face_folder_gives_transformers_output(
    mode: dict[str, object], do_normalize: bool, tmp_path: Path
) -> None:
    net = small_net("Hubert", **mode)
    net.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    encoder = SPEECH.load(ModelChoice("hubert", tmp_path), CPU)
    rows = encoder.encode(noise())
    np.testing.assert_allclose(rows, last_hidden_state(net, noise(), do_normalize), atol=1e-4)
    assert (encoder.name, encoder.dim, encoder.rows_per_s) == ("hubert", 64, 50.0)
    assert rows.dtype == np.float32


@pytest.mark.parametrize("mode", [BASE, LARGE], ids=["group", "layer"])
def test_torchaudio_file_gives_transformers_output(mode: dict[str, object], tmp_path: Path) -> None:
    net = small_net("Hubert", **mode)
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    torch.save(import_huggingface_model(net).state_dict(), tmp_path / "hubert.pth")
    rows = HubertEncoder(tmp_path / "hubert.pth").encode(noise())
    expected = last_hidden_state(net, noise(), normalise=mode is LARGE)
    np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_names_of_a_whole_recogniser_are_understood(tmp_path: Path) -> None:
    net = small_net("Hubert", **BASE)
    net.save_pretrained(tmp_path)
    rows = HubertEncoder(tmp_path).encode(noise())
    long = {f"hubert.{name}": value for name, value in net.state_dict().items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save(long | {"lm_head.weight": torch.ones(5, 64)}, tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(HubertEncoder(tmp_path).encode(noise()), rows)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 0 files of HuBERT weights"):
        HubertEncoder(tmp_path)
    small_net("Hubert", **BASE).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"no wav2vec 2\.0 network .*has the model_type 'hubert'"):
        Wav2Vec2Encoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"conv_pos_batch_norm": True}, {"feat_proj_layer_norm": False}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=f"no HuBERT network .*{next(iter(change))}"):
            HubertEncoder(tmp_path)


def test_rows_are_made_on_the_device(tmp_path: Path) -> None:
    small_net("Hubert", **LARGE).save_pretrained(tmp_path)
    encoder = HubertEncoder(tmp_path, torch.device("meta"))  # where nothing is computed
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        encoder.encode(noise())
