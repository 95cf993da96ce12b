"""The shipped tasks of corpora that may not be shipped fit the labels that their readers write."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from data_pipeline.clip import Clip
from data_pipeline.corpora import crema_d, msp_improv
from data_pipeline.corpora.base import load_corpus
from data_pipeline.corpora.source import open_source
from data_pipeline.features.extract import describe
from data_pipeline.shards.dataset import FeatureSchema
from data_pipeline.shards.writer import ShardWriter
from memo.tuning.task import LabelledCorpus, load_task, open_task

IEMOCAP = ("ang", "hap", "exc", "sad", "neu", "fru", "fea", "sur", "dis", "oth", "xxx")


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def write_iemocap(root: Path) -> None:
    """Each emotion once of each of the ten speakers."""
    for session, sex in product(range(1, 6), "FM"):
        dialogue = f"Ses0{session}{sex}_impro01"
        turns = {f"{dialogue}_{sex}{at:03}": label for at, label in enumerate(IEMOCAP)}
        judged = [f"[1.0 - 2.0]\t{one}\t{label}\t[1, 2, 3]" for one, label in turns.items()]
        folder = root / f"Session{session}"
        write(folder / "dialog/EmoEvaluation", {f"{dialogue}.txt": "\n".join(judged)})
        said = "\n".join(f"{one} [1.0-2.0]: {one} spoke." for one in turns)
        write(folder / "dialog/transcriptions", {f"{dialogue}.txt": said})
        write(folder / "sentences/wav", {f"{one}.wav": "" for one in turns})


def write_msp_improv(root: Path) -> None:
    """Each emotion once of each of the twelve speakers."""
    letters = msp_improv.EMOTIONS
    turns = {
        f"IMPROV-S01A-{sex}0{pair}-P-FM{at:02}": letter
        for pair, sex, (at, letter) in product(range(1, 7), "FM", enumerate(letters))
    }
    write(root, {"Evalution.txt": "".join(f"UTD-{one}.avi; {turns[one]};\n" for one in turns)})
    write(root, {f"MSP-{one}.avi": "" for one in turns})


def write_crema_d(root: Path) -> None:
    """Each emotion once of each of 91 actors."""
    clips = product(range(1001, 1092), crema_d.EMOTIONS)
    write(root, {f"AudioWAV/{actor}_TIE_{emotion}_XX.wav": "" for actor, emotion in clips})


WRITERS = {"iemocap": write_iemocap, "msp_improv": write_msp_improv, "crema_d": write_crema_d}


def opened(task: str, corpus: str, folder: Path) -> LabelledCorpus:
    """The task on a small corpus in its own layout, built without its media."""
    WRITERS[corpus](folder / "raw")
    recordings = load_corpus(corpus).recordings(open_source(folder / "raw"))
    out = folder / "built"
    with ShardWriter(
        out,
        name=corpus,
        corpus=corpus,
        licence="",
        features=FeatureSchema(face=None, speech=None),
        samples_per_shard=1000,
    ) as writer:
        for one in recordings:
            writer.write(one.split, describe(Clip(one.key, text=one.key), one))
    return open_task(load_task(task).model_copy(update={"dataset": out}))


@pytest.mark.parametrize(
    ("task", "corpus", "folds", "counts", "left_out"),
    [
        ("iemocap4", "iemocap", 10, {"anger": 10, "happy": 20, "neutral": 10, "sad": 10}, 60),
        ("iemocap6", "iemocap", 5, dict.fromkeys(("happy", "excited", "frustrated"), 10), 50),
        ("msp_improv4", "msp_improv", 12, dict.fromkeys(("anger", "happy", "sad"), 12), 24),
        ("crema_d", "crema_d", 5, dict.fromkeys(crema_d.EMOTIONS.values(), 91), 0),
    ],
)
def test_classes_and_folds_fit_what_the_reader_writes(
    tmp_path: Path, task: str, corpus: str, folds: int, counts: dict[str, int], left_out: int
) -> None:
    data = opened(task, corpus, tmp_path)
    found = Counter(data.classes[label] for label in data.labels.tolist() if label >= 0)
    assert {name: found[name] for name in counts} == counts
    assert int((data.labels < 0).sum()) == left_out
    assert len(data.folds) == folds
    tested = Counter(number for fold in data.folds for number in fold.test.tolist())
    assert set(tested.values()) == {1}, "every clip is tested once"
    assert len(tested) == sum(found.values())


@pytest.mark.parametrize(
    ("task", "corpus"), [("iemocap4", "iemocap"), ("msp_improv4", "msp_improv")]
)
def test_partners_of_a_scene_are_not_trained_on(tmp_path: Path, task: str, corpus: str) -> None:
    data = opened(task, corpus, tmp_path)
    for fold in data.folds:
        sessions = {data.groups.session[number] for number in fold.test.tolist()}
        trained = {data.groups.session[number] for number in fold.train.tolist()}
        assert len(sessions) == 1
        assert not sessions & trained
