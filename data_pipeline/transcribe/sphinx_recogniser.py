"""PocketSphinx as a recogniser: English out of the box, with a general model of word sequences.

It needs no weights of one's own and little time, and makes many mistakes.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.registry import Weights
from data_pipeline.transcribe.base import RECOGNISERS, Miss, Recognised
from data_pipeline.transcribe.sphinx_model import decode, find_model, pcm


@RECOGNISERS.register("pocketsphinx", Weights.OPTIONAL)
class SphinxRecogniser:
    """Decoding with n-grams.

    Args:
        weights: folder, see `find_model`; None is the package's English model.

    Raises:
        UserError: the package or a file is missing.
    """

    name = "pocketsphinx"

    def __init__(self, weights: Path | None) -> None:
        model = find_model(weights, "recognise")
        self._decoder = model.decoder(lm=str(model.language_model))
        self.sha256 = model.sha256(model.language_model)
        self.language = model.language

    def recognise(self, sound: NDArray[np.float32], language: str) -> Recognised | Miss:
        """The text of speech, in lower case; see `Recogniser`."""
        found = self._decoder.hyp() if decode(self._decoder, pcm(sound)) else None
        text = "" if found is None else " ".join(found.hypstr.split())
        return Recognised(text, self.language or language) if text else Miss.NOTHING
