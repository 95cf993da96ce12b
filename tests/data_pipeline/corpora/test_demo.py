"""The demo corpus: what is hidden can be told from another modality, and not from its own."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.clip import Clip
from data_pipeline.corpora.demo import EMOTIONS, FACE_FPS, SPEECH_ROWS_PER_S, VOCABULARY, write_demo
from data_pipeline.errors import UserError
from data_pipeline.shards.check import check_dataset
from data_pipeline.shards.reader import open_dataset
from memo.config import Limits

Rows = NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "demo"
    write_demo(out, train=300, valid=60)
    return out


def _read(folder: Path, split: str) -> list[Clip]:
    samples = open_dataset(folder).split(split)
    return [samples.read(number) for number in range(len(samples))]


@pytest.fixture(scope="module")
def train(folder: Path) -> list[Clip]:
    return _read(folder, "train")


@pytest.fixture(scope="module")
def valid(folder: Path) -> list[Clip]:
    return _read(folder, "valid")


def test_the_dataset_is_sound(folder: Path, train: list[Clip], valid: list[Clip]) -> None:
    assert list(check_dataset(folder)) == []
    assert (len(train), len(valid)) == (300, 60)
    assert not {clip.speaker for clip in train} & {clip.speaker for clip in valid}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_demo(tmp_path / name, seed, train=20, valid=5)
    first, second, third = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"
    )
    assert first == second
    assert all(first[name] != third[name] for name in first)


def test_nothing_is_overwritten(folder: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        write_demo(folder)


def test_it_takes_seconds(tmp_path: Path) -> None:
    begin = time.process_time()
    write_demo(tmp_path / "demo")
    assert time.process_time() - begin < 10


def test_clips_fit_the_models_limits_and_their_own_words(train: list[Clip]) -> None:
    limits = Limits()
    for clip in train:
        assert clip.face is not None
        assert clip.speech is not None
        assert clip.text == " ".join(word.text for word in clip.words)
        assert 10 <= len(clip.face) <= limits.face
        assert len(clip.face) == int(clip.duration_s * FACE_FPS)
        assert len(clip.speech) <= limits.speech
        assert abs(len(clip.speech) - clip.duration_s * SPEECH_ROWS_PER_S) <= 1
        times = [time for word in clip.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert times[-1] < clip.duration_s


def test_all_words_and_emotions_come(train: list[Clip]) -> None:
    assert {word.text for clip in train for word in clip.words} == set(VOCABULARY)
    assert {clip.labels["emotion"] for clip in train} == set(EMOTIONS)


def _words(clips: list[Clip], modality: str) -> Iterator[tuple[str, Rows]]:
    """Each word with the mean of its rows, less the mean of the clip (that is, the speaker)."""
    rate = FACE_FPS if modality == "face" else SPEECH_ROWS_PER_S
    for clip in clips:
        rows = np.asarray(getattr(clip, modality), np.float64)
        times = (np.arange(len(rows)) + 0.5) / rate
        for word in clip.words:
            inside = (times > word.start_s) & (times < word.end_s)
            yield word.text, rows[inside].mean(axis=0) - rows.mean(axis=0)


def _nearest(train: list[Clip], valid: list[Clip], modality: str) -> float:
    """Accuracy with which the nearest class mean of the training words tells a word."""
    groups = defaultdict(list)
    for name, row in _words(train, modality):
        groups[name].append(row)
    names = list(groups)
    means = np.stack([np.mean(groups[name], axis=0) for name in names])
    found = [
        names[int(((means - row) ** 2).sum(axis=1).argmin())] == name
        for name, row in _words(valid, modality)
    ]
    return float(np.mean(found))


def test_speech_tells_the_words_and_lips_some_of_them(train: list[Clip], valid: list[Clip]) -> None:
    assert _nearest(train, valid, "speech") > 0.95
    assert 0.1 < _nearest(train, valid, "face") < 0.7


def test_text_does_not_tell_a_masked_word(train: list[Clip], valid: list[Clip]) -> None:
    """From the words beside it, the best guess of a table of the training set."""
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for before, word, after in _triples(train):
        counts[before, after][word] += 1
    right = [
        max(counts[before, after], key=counts[before, after].__getitem__, default="") == word
        for before, word, after in _triples(valid)
    ]
    assert np.mean(right) < 0.3


def _triples(clips: list[Clip]) -> Iterator[tuple[str, str, str]]:
    """Each word with its neighbours."""
    for clip in clips:
        texts = ["", *(word.text for word in clip.words), ""]
        yield from zip(texts, texts[1:], texts[2:], strict=False)


def test_the_expression_follows_the_emotion_and_changes(train: list[Clip]) -> None:
    agree, moves = [], []
    for clip in train:
        posterior = np.asarray(clip.expression, np.float64)
        emotion = EMOTIONS.index(str(clip.labels["emotion"]))
        agree.append(
            posterior.max(axis=0).argmax() == emotion or clip.labels["emotion"] == "neutral"
        )
        moves.append(np.ptp(posterior[:, emotion]))
    assert np.mean(agree) > 0.8
    assert np.mean(moves) > 0.3


def _span_error(clips: list[Clip], modality: str, guess: Callable[[Rows, int], Rows]) -> float:
    """Mean squared error of a guess of three neighbouring rows, over the rows' variance."""
    tracks = [np.asarray(getattr(clip, modality), np.float64) for clip in clips]
    variance = np.concatenate(tracks).var(axis=0).mean()
    errors = [
        ((rows[at : at + 3] - guess(rows, at)) ** 2).mean()
        for rows in tracks
        for at in range(1, len(rows) - 4, 3)
    ]
    return float(np.mean(errors) / variance)


def _mean_of_the_rest(rows: Rows, at: int) -> Rows:
    return np.asarray(np.delete(rows, range(at, at + 3), axis=0).mean(axis=0))


def _interpolated(rows: Rows, at: int) -> Rows:
    share = np.arange(1, 4)[:, None] / 4
    return np.asarray((1 - share) * rows[at - 1] + share * rows[at + 3])


@pytest.mark.parametrize("modality", ["face", "speech"])
def test_masked_rows_cannot_be_told_from_those_around(valid: list[Clip], modality: str) -> None:
    """A third of the variance is far above the noise, which is a sixteenth of a word's."""
    assert _span_error(valid, modality, _mean_of_the_rest) > 0.6
    assert _span_error(valid, modality, _interpolated) > 0.33


def _spoken_rows(clips: list[Clip], modality: str) -> Iterator[tuple[tuple[str, int], Rows]]:
    """Each row with the word that is spoken and the half of it."""
    rate = FACE_FPS if modality == "face" else SPEECH_ROWS_PER_S
    for clip in clips:
        for at, row in enumerate(np.asarray(getattr(clip, modality), np.float64)):
            for word in clip.words:
                passed = ((at + 0.5) / rate - word.start_s) / (word.end_s - word.start_s)
                if 0 <= passed < 1:
                    yield (word.text, int(passed * 2)), row


@pytest.mark.parametrize(("modality", "most"), [("face", 0.7), ("speech", 0.45)])
def test_the_words_and_their_times_tell_masked_rows(
    train: list[Clip], valid: list[Clip], modality: str, most: float
) -> None:
    """What the words leave open is the emotion, which stands in all three modalities."""
    groups = defaultdict(list)
    for word, row in _spoken_rows(train, modality):
        groups[word].append(row)
    means = {word: np.mean(rows, axis=0) for word, rows in groups.items()}
    pairs = list(_spoken_rows(valid, modality))
    rows = np.stack([row for _, row in pairs])
    error = ((rows - np.stack([means[word] for word, _ in pairs])) ** 2).mean()
    assert error / rows.var(axis=0).mean() < most
