"""HuBERT (Hsu et al., TASLP 2021) as a frozen speech encoder.

Its network is that of wav2vec 2.0, trained to tell clusters instead of quantised frames: weights
are taken in the same forms, and rows are the last hidden state as well (see `wav2vec2.py`). Hugging
Face's variants with batch norm before the positions, or without layer norm before the projection,
are other networks, and are refused.
"""

from typing import ClassVar

from data_pipeline.features.speech import SPEECH
from data_pipeline.features.wav2vec2 import Wav2Vec2Encoder


@SPEECH.register("hubert", "hubert-base")
class HubertEncoder(Wav2Vec2Encoder):
    """The whole network; rows are its last hidden state."""

    name = "hubert"
    title: ClassVar[str] = "HuBERT"
