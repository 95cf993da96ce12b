from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.clip import Word
from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.base import ALIGNERS, RECOGNISERS, Miss, Recognised, Span
from data_pipeline.transcribe.transcriber import Transcriber, TranscribeSettings

RATE = 16_000
RECORDING = Recording("k", "train", "k.wav")


@dataclass
class Counts:
    """A recogniser that tells how long each sound is."""

    language: str = ""
    answer: Recognised | Miss | None = None
    asked: list[tuple[float, str]] = field(default_factory=list)
    name = "counts"
    sha256 = "1" * 64

    def recognise(self, sound: NDArray[np.float32], language: str) -> Recognised | Miss:
        self.asked.append((len(sound) / RATE, language))
        return self.answer or Recognised(f"{len(self.asked)}!", "ko")


@dataclass
class Divides:
    """An aligner that gives each word its share of the sound."""

    language: str = ""
    beyond_s: float = 0.0
    name = "divides"
    sha256 = "2" * 64

    def align(self, sound: NDArray[np.float32], words: Sequence[str]) -> list[Span] | Miss:
        if "?" in words[0]:
            return Miss.UNKNOWN_WORD
        share = (len(sound) / RATE + self.beyond_s) / len(words)
        return [(at * share, (at + 1) * share) for at in range(len(words))]


def speech(*parts: float) -> NDArray[np.float32]:
    """Loud and quiet noise in turn, of so many seconds each."""
    rng = np.random.default_rng(0)
    loud = [rng.normal(0, (0.2, 1e-4)[at % 2], round(s * RATE)) for at, s in enumerate(parts)]
    return np.concatenate(loud).astype(np.float32)


def test_words_are_those_of_the_text_with_case_and_signs() -> None:
    recording = replace(RECORDING, text=' So - "what"\n now?! ')
    told, outcomes = Transcriber(None, Divides()).transcribe(recording, speech(1.5))
    assert told.words == (Word("So", 0, 0.5), Word('"what"', 0.5, 1), Word("now?!", 1, 1.5))
    assert told == replace(recording, words=told.words)
    assert outcomes == ("words: aligned",)


def test_words_end_with_the_sound() -> None:
    told, _ = Transcriber(None, Divides(beyond_s=0.02)).transcribe(
        replace(RECORDING, text="a b"), speech(1.0)
    )
    assert told.words == (Word("a", 0, 0.51), Word("b", 0.51, 1.0))


@pytest.mark.parametrize(
    ("text", "language", "seconds", "reason"),
    [
        ("", "en", 1, Miss.NO_TEXT),
        (None, "en", 1, Miss.NO_TEXT),
        (" ... ", "en", 1, Miss.NO_TEXT),
        ("so", "ko", 1, Miss.LANGUAGE),
        ("so", "en", 61, Miss.TOO_LONG),
        ("so", "en", None, Miss.NO_SOUND),
        ("?so", "", 1, Miss.UNKNOWN_WORD),
    ],
)
def test_what_cannot_be_aligned_keeps_its_text_and_is_counted(
    text: str | None, language: str, seconds: float | None, reason: Miss
) -> None:
    recording = replace(RECORDING, text=text, language=language)
    sound = None if seconds is None else speech(seconds)
    told, outcomes = Transcriber(None, Divides("en")).transcribe(recording, sound)
    assert (told, outcomes) == (recording, (f"words: {reason.value}",))


def test_what_the_corpus_says_stays() -> None:
    recording = replace(RECORDING, text="so", words=(Word("so", 0.1, 0.2),))
    told, outcomes = Transcriber(Counts(), Divides()).transcribe(recording, speech(1))
    assert (told, outcomes) == (recording, ("text: given", "words: given"))


def test_a_recognised_text_is_aligned() -> None:
    told, outcomes = Transcriber(Counts(), Divides()).transcribe(RECORDING, speech(0.8, 0.2))
    assert (told.text, told.language, told.words) == ("1!", "ko", (Word("1!", 0, 1),))
    assert outcomes == ("text: recognised", "words: aligned")


@pytest.mark.parametrize(
    ("language", "sound", "answer", "reason"),
    [
        ("ko", speech(1), None, Miss.LANGUAGE),
        ("", None, None, Miss.NO_SOUND),
        ("", np.zeros(RATE, np.float32), None, Miss.SILENT),
        ("en", speech(0.8, 0.2), Miss.NOTHING, Miss.NOTHING),
        ("en", speech(13, 1, 13), Miss.NOTHING, Miss.NOTHING),
    ],
)
def test_what_cannot_be_recognised_has_no_text_and_is_counted(
    language: str, sound: NDArray[np.float32] | None, answer: Miss | None, reason: Miss
) -> None:
    recording = replace(RECORDING, language=language)
    told, outcomes = Transcriber(Counts("en", answer), Divides()).transcribe(recording, sound)
    assert told == recording
    assert outcomes == (f"text: {reason.value}", f"words: {Miss.NO_TEXT.value}")


def test_long_speech_is_recognised_between_its_pauses_in_one_language() -> None:
    recogniser = Counts()
    told, _ = Transcriber(recogniser, None).transcribe(RECORDING, speech(8, 1, 8, 1, 8, 1))
    assert (told.text, told.language) == ("1! 2! 3!", "ko")
    assert [language for _, language in recogniser.asked] == ["", "ko", "ko"]
    np.testing.assert_allclose([s for s, _ in recogniser.asked], [8, 8, 8], atol=0.2)


def test_models_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ALIGNERS.names() == ["ctc", "pocketsphinx"]
    assert RECOGNISERS.names() == ["pocketsphinx", "whisper"]
    assert TranscribeSettings().find(tmp_path) == TranscribeSettings()
    sphinx = TranscribeSettings(ModelChoice("pocketsphinx"), ModelChoice("pocketsphinx"))
    assert sphinx.find(tmp_path) == sphinx
    monkeypatch.setenv("MEMO_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"no weights of whisper at .*; .* --recognise-weights"):
        TranscribeSettings(recognise=ModelChoice("whisper")).find(tmp_path)
    (tmp_path / "wav2vec2-base-960h").mkdir()
    found = TranscribeSettings(align=ModelChoice("ctc")).find(tmp_path)
    assert found.align == ModelChoice("ctc", tmp_path / "wav2vec2-base-960h")


@pytest.mark.parametrize(
    ("task", "name", "known"),
    [
        ("align", "kaldi", "ctc, pocketsphinx"),
        ("recognise", "ctc", "pocketsphinx, whisper"),
        ("align", "package.module:Class", "ctc, pocketsphinx"),
    ],
)
def test_models_that_there_are_not_are_refused(task: str, name: str, known: str) -> None:
    settings = replace(TranscribeSettings(), **{task: ModelChoice(name)})
    with pytest.raises(UserError, match=f"^--{task}: no model '{name}'; known are {known}$"):
        settings.find(Path("source"))


def test_weights_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match="no weights of ctc at absent; name them with --align-w"):
        Transcriber.load(TranscribeSettings(align=ModelChoice("ctc", Path("absent"))))
    with pytest.raises(ValueError, match="two align models are called 'ctc'"):
        ALIGNERS.register("ctc", "")(lambda _: pytest.fail("is never loaded"))
