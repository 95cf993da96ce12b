"""PocketSphinx as an aligner: English out of the box, 100 frames a second.

A first pass finds the words with pauses between them; a text that does not lead through the sound
ends there, as the search does not reach its last word. A second pass scores the path phone by
phone, which tells what fits from what the search could only squeeze in.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.registry import Weights
from data_pipeline.transcribe.base import ALIGNERS, Miss, Span
from data_pipeline.transcribe.spelling import dictionary_words
from data_pipeline.transcribe.sphinx_model import FILLERS, decode, find_model, pcm

FRAME_S = 0.01
SHORTEST_S = 0.03
"""Of a word: one phone of three states."""
WORST_SCORE = -35.0
"""Mean log-likelihood of a frame of speech, in PocketSphinx's units against its best phone. Of 300
clips of GRID and RAVDESS with their text one was below; of 377 with three random words, three
were above."""


@ALIGNERS.register("pocketsphinx", Weights.OPTIONAL)
class SphinxAligner:
    """Forced alignment with a pronunciation dictionary.

    Args:
        weights: folder, see `find_model`; None is the package's English model.

    Raises:
        UserError: the package or a file is missing.
    """

    name = "pocketsphinx"

    def __init__(self, weights: Path | None) -> None:
        model = find_model(weights, "align")
        # With its search for the best path in the word graph, some alignments begin within silence.
        self._decoder = model.decoder(lm=None, bestpath=False)
        self.sha256 = model.sha256()
        self.language = model.language

    def __contains__(self, entry: object) -> bool:
        """Whether the dictionary has a word; variants and fillers have brackets in their names."""
        if not isinstance(entry, str) or not entry.isprintable() or set(entry) & set("()<>[]+"):
            return False
        return bool(entry) and self._decoder.lookup_word(entry) is not None

    def align(self, sound: NDArray[np.float32], words: Sequence[str]) -> list[Span] | Miss:
        """When each word is said; see `Aligner`."""
        spelled = [dictionary_words(word, self) for word in words]
        entries = [entry for one in spelled for entry in one or ()]
        if not all(spelled):
            return Miss.UNKNOWN_WORD
        if len(entries) * SHORTEST_S * 16_000 > len(sound):
            return Miss.MISFIT
        spans = self._find(pcm(sound), entries)
        if spans is None:
            return Miss.MISFIT
        left = iter(spans)
        parts = [[next(left) for _ in one or ()] for one in spelled]
        return [(part[0][0], part[-1][1]) for part in parts]

    def _find(self, samples: bytes, entries: Sequence[str]) -> list[Span] | None:
        """Begin and end of each entry of the dictionary; None if they do not fit."""
        self._decoder.set_align_text(" ".join(entries))
        if not decode(self._decoder, samples):
            return None
        found = [one for one in self._decoder.seg() or () if not one.word.startswith(FILLERS)]
        if [one.word.partition("(")[0] for one in found] != list(entries):
            return None
        spans = [(one.start_frame * FRAME_S, (one.end_frame + 1) * FRAME_S) for one in found]
        return spans if self._score(samples) > WORST_SCORE else None

    def _score(self, samples: bytes) -> float:
        """Mean score of a frame of the words that were found last."""
        self._decoder.set_alignment()
        if not decode(self._decoder, samples):
            return -np.inf
        words = [one for one in self._decoder.get_alignment() if not one.name.startswith(FILLERS)]
        return float(sum(one.score for one in words) / sum(one.duration for one in words))
