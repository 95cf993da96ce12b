import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.corpora.base import Recording, load_corpus
from data_pipeline.corpora.source import open_source
from data_pipeline.errors import UserError
from data_pipeline.features.video import decode_sound
from data_pipeline.registry import ModelChoice
from data_pipeline.transcribe.base import ALIGNERS, RECOGNISERS, Aligner, Miss, Recognised

pocketsphinx = pytest.importorskip(
    "pocketsphinx", reason="the package pocketsphinx is not installed (memo[align])"
)


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return ALIGNERS.load(ModelChoice("pocketsphinx"))


@pytest.fixture(scope="module")
def clips(shared: Path) -> list[tuple[Recording, NDArray[np.float32]]]:
    """Eight sentences of GRID."""
    source = open_source(shared / "data" / "grid_s1.tar")
    pairs = []
    for recording in load_corpus("grid").recordings(source)[1::115]:
        assert recording.media is not None
        with source.open(recording.media) as media:
            sound = decode_sound(media)
        assert sound is not None
        pairs.append((recording, sound))
    return pairs


def noise(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    count = round(seconds * 16_000)
    return np.random.default_rng(seed).normal(0, 0.05, count).astype(np.float32)


@pytest.mark.corpora
def test_words_are_found_where_the_corpus_has_them(
    aligner: Aligner, clips: list[tuple[Recording, NDArray[np.float32]]]
) -> None:
    errors = []
    for recording, sound in clips:
        words = [f"“{word.text.upper()}”," for word in recording.words]
        spans = aligner.align(sound, words)
        assert not isinstance(spans, Miss)
        assert all(begin < end for begin, end in spans)
        assert sorted(time for span in spans for time in span) == [
            t for span in spans for t in span
        ]
        known = [(word.start_s, word.end_s) for word in recording.words]
        errors.append(np.abs(np.array(spans) - known))
    assert np.median(np.concatenate(errors)) < 0.04


@pytest.mark.corpora
def test_what_was_aligned_before_changes_nothing(
    aligner: Aligner, clips: list[tuple[Recording, NDArray[np.float32]]]
) -> None:
    spans = [aligner.align(sound, (one.text or "").split()) for one, sound in clips]
    assert aligner.align(noise(1), ["hello"]) is Miss.MISFIT
    fresh = ALIGNERS.load(ModelChoice("pocketsphinx"))
    again = [fresh.align(sound, (one.text or "").split()) for one, sound in reversed(clips)]
    assert again == spans[::-1]


@pytest.mark.corpora
def test_a_text_that_nobody_says_has_no_times(
    aligner: Aligner, clips: list[tuple[Recording, NDArray[np.float32]]]
) -> None:
    for recording, sound in clips:
        for text in (
            "kids are talking by the door",
            f"{recording.text} and this was never said by anybody",
            "yesterday elephants",
        ):
            assert aligner.align(sound, text.split()) is Miss.MISFIT
        assert (
            aligner.align(sound[: len(sound) // 3], (recording.text or "").split()) is Miss.MISFIT
        )


def test_silence_noise_and_short_sounds_have_no_words(aligner: Aligner) -> None:
    for sound in (noise(3), np.zeros(48_000, np.float32), noise(0.05), noise(0)):
        assert aligner.align(sound, ["hello", "world"]) is Miss.MISFIT
    assert aligner.align(noise(3), ["word"] * 10_000) is Miss.MISFIT


@pytest.mark.parametrize("word", ["Qwxzt", "23", "안녕", "a\0b", "x" * 5000, "a\ud800b", "a(2)b"])
def test_a_word_that_the_dictionary_lacks_is_said(aligner: Aligner, word: str) -> None:
    assert aligner.align(noise(2), ["hello", word]) is Miss.UNKNOWN_WORD


@settings(max_examples=40)
@given(
    words=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6), seed=st.integers(0, 9)
)
def test_no_text_breaks_the_search(words: list[str], seed: int, aligner: Aligner) -> None:
    spoken = [word for word in words if any(map(str.isalnum, word))] or ["a"]
    found = aligner.align(noise(0.5, seed), [*spoken, "hello"])
    assert isinstance(found, Miss) or len(found) == len(spoken) + 1


@pytest.mark.corpora
@pytest.mark.slow
def test_speech_is_recognised_whatever_was_heard_before(
    clips: list[tuple[Recording, NDArray[np.float32]]],
) -> None:
    recogniser = RECOGNISERS.load(ModelChoice("pocketsphinx"))
    recording, sound = clips[0]
    heard = recogniser.recognise(sound, "")
    assert isinstance(heard, Recognised)
    assert heard.language == "en"
    assert set(heard.text.split()) & set((recording.text or "").split())
    assert recogniser.recognise(np.zeros(1600, np.float32), "en") is Miss.NOTHING
    assert recogniser.recognise(sound, "") == heard


def test_the_hash_is_of_the_models_files(aligner: Aligner) -> None:
    folder = Path(pocketsphinx.get_model_path("en-us"))
    files = sorted([*(folder / "en-us").iterdir(), folder / "cmudict-en-us.dict"])
    lines = [f"{one.name} {hashlib.sha256(one.read_bytes()).hexdigest()}\n" for one in files]
    assert aligner.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert aligner.language == "en"


def copy_model(folder: Path, damaged: str, content: Callable[[bytes], bytes]) -> Path:
    """The package's model, of which one file is replaced."""
    whole = Path(pocketsphinx.get_model_path("en-us"))
    (folder / "en-us").mkdir(parents=True)
    for file in (path for path in whole.rglob("*") if path.is_file()):
        copied = folder / file.relative_to(whole)
        if file.name == damaged:
            copied.write_bytes(content(file.read_bytes()))
        else:
            copied.symlink_to(file)
    return folder


def test_a_model_of_ones_own_is_read(tmp_path: Path, aligner: Aligner) -> None:
    folder = copy_model(tmp_path / "m", "mdef", lambda whole: whole)
    assert ALIGNERS.load(ModelChoice("pocketsphinx", folder)).sha256 == aligner.sha256


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("mdef", lambda whole: b"", "Empty file"),
        ("mdef", lambda whole: whole[:20], "mdef is cut off"),
        ("mdef", lambda whole: whole[:1200], "mdef is cut off"),
        ("mdef", lambda whole: whole[: len(whole) // 2], "mdef is cut off"),
        ("mdef", lambda whole: whole[:-1], r"mdef is cut off: 2,959,175 of 2,959,176 bytes"),
        ("mdef", lambda whole: b"\xff" * 999, "mdef"),
        ("means", lambda whole: whole[:-1], "chksum"),
        ("means", lambda whole: bytes(999), "means"),
        ("transition_matrices", lambda whole: whole[:-1], "chksum"),
        ("sendump", lambda whole: whole[: len(whole) // 2], "sendump"),
        ("sendump", lambda whole: whole[:-1], "sendump"),
        ("feat.params", lambda whole: whole[:20], "upperf"),
    ],
)
def test_a_damaged_model_ends_in_one_line_and_not_in_the_library(
    tmp_path: Path, name: str, content: Callable[[bytes], bytes], reason: str
) -> None:
    folder = copy_model(tmp_path / "m", name, content)
    with pytest.raises(UserError, match=rf"/m cannot be read by pocketsphinx \(.*{reason}") as one:
        ALIGNERS.load(ModelChoice("pocketsphinx", folder))
    assert "\n" not in str(one.value)


def test_a_damaged_language_model_ends_in_one_line(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "m", "en-us.lm.bin", lambda whole: whole[:-1])
    with pytest.raises(UserError, match="/m cannot be read by pocketsphinx"):
        RECOGNISERS.load(ModelChoice("pocketsphinx", folder))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 0 files \*/mdef; a model has one"):
        ALIGNERS.load(ModelChoice("pocketsphinx", tmp_path))
    (tmp_path / "fr").mkdir()
    for name in ("fr/mdef", "fr.lm.bin", "fr-phone.lm.bin"):
        (tmp_path / name).write_text("none")
    for models in (ALIGNERS, RECOGNISERS):
        with pytest.raises(UserError, match=r"has 0 files \*\.dict; a model has one"):
            models.load(ModelChoice("pocketsphinx", tmp_path))
