from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import UserError
from data_pipeline.features.speech import (
    average_rows,
    load_speech_encoder,
    register,
    speech_encoders,
)


@given(count=st.integers(0, 40), group=st.integers(1, 7), seed=st.integers(0, 99))
def test_average_rows_is_the_mean_of_each_group(count: int, group: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    means = [rows[at : at + group].mean(axis=0) for at in range(0, count, group)]
    averaged = average_rows(rows, group)
    assert averaged.shape == (len(means), 3)
    assert averaged.dtype == np.float32
    if means:
        np.testing.assert_allclose(averaged, np.stack(means), rtol=1e-5, atol=1e-6)


def test_every_encoder_is_found_with_its_folder() -> None:
    assert speech_encoders() == {
        "wav2vec2": "wav2vec2-base",
        "whisper": "whisper-tiny.en-encoder",
    }


def test_two_encoders_of_one_name_are_refused() -> None:
    speech_encoders()
    with pytest.raises(ValueError, match="two speech encoders are called 'whisper'"):
        register("whisper", "another")(lambda _: pytest.fail("is never loaded"))


def test_unknown_encoder_and_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known are: wav2vec2, whisper"):
        load_speech_encoder("wisper", tmp_path)
    with pytest.raises(UserError, match=r"no weights of whisper at .*absent; .* --speech-weights"):
        load_speech_encoder("whisper", tmp_path / "absent")
