"""`fer2013.csv` is the same corpus as its form with folders."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.build import BuildSettings, build_dataset
from data_pipeline.corpora.base import load_corpus
from data_pipeline.corpora.source import open_source
from data_pipeline.errors import UserError
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.features.fer2013 import read_fer2013
from data_pipeline.shards.reader import open_dataset

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "PublicTest", "PrivateTest")

Row = tuple[int, NDArray[np.uint8], str]


@pytest.fixture
def rows() -> list[Row]:
    """Each expression in each part."""
    faces = np.random.default_rng(0).integers(0, 256, (21, 48, 48), dtype=np.uint8)
    kinds = [(emotion, usage) for usage in USAGES for emotion in range(7)]
    return [(emotion, face, usage) for (emotion, usage), face in zip(kinds, faces, strict=True)]


def write_table(path: Path, rows: Sequence[Row], header: str = "emotion,pixels,Usage") -> Path:
    lines = [
        f"{emotion},{' '.join(map(str, face.ravel().tolist()))},{usage}"
        for emotion, face, usage in rows
    ]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def write_folders(root: Path, rows: Sequence[Row]) -> Path:
    for number, (emotion, face, usage) in enumerate(rows, start=2):
        split = "train" if usage == "Training" else "test"
        path = root / split / EMOTIONS[emotion] / f"{usage}-{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), face)
    return root


def test_both_forms_have_the_same_faces_of_the_same_splits(tmp_path: Path, rows: list[Row]) -> None:
    table, folders = write_table(tmp_path / "t.csv", rows), write_folders(tmp_path / "in", rows)
    of_table, of_folders = open_source(table), open_source(folders)
    assert of_table.names() == of_folders.names()
    recordings = load_corpus("fer2013").recordings(of_table)
    assert recordings == load_corpus("fer2013").recordings(of_folders)
    write_folders(tmp_path / "out" / "archive", rows)
    deeper = load_corpus("fer2013").recordings(open_source(tmp_path / "out"))
    assert [f"archive/{one.media}" for one in recordings] == [one.media for one in deeper]
    assert [one.split for one in recordings] == ["test"] * 14 + ["train"] * 7
    assert "test-sad-PrivateTest-00020" in {one.key for one in recordings}
    for one, other in zip(read_fer2013(table), read_fer2013(tmp_path / "out"), strict=True):
        assert one.classes == other.classes
        assert one.faces.equal(other.faces)
        assert one.labels.equal(other.labels)
    stamps = {of_table.stamp(name) for name in of_table.names()}
    assert len(stamps) == len(rows)


def test_kaggles_other_header_is_read(tmp_path: Path, rows: list[Row]) -> None:
    first = rows[4]
    table = write_table(tmp_path / "icml.csv", [])
    pixels = " ".join(map(str, first[1].ravel().tolist()))
    table.write_text(f"emotion, Usage, pixels\r\n{first[0]},{first[2]},{pixels}\r\n\r\n")
    source = open_source(table)
    assert source.names() == ["train/sad/Training-00002.png"]
    picture = cv2.imdecode(
        np.frombuffer(source.read(source.names()[0]), np.uint8), cv2.IMREAD_GRAYSCALE
    )
    assert picture is not None
    assert np.array_equal(picture, first[1])


@pytest.mark.parametrize(
    "line", ["7,0 1,Training", "x,0 1,Training", "3,0 1,Valid", "3,0 1", "3,0,1,Training"]
)
def test_lines_that_say_no_face_are_named(tmp_path: Path, rows: list[Row], line: str) -> None:
    table = write_table(tmp_path / "fer2013.csv", rows[:1])
    table.write_text(table.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"FER2013: line 3 of fer2013\.csv: it should have an emo"):
        open_source(table)


@pytest.mark.parametrize("pixels", ["1 2 3", "256 " * 2304, "-1 " * 2304, "x " * 2304])
def test_pixels_that_are_none_are_of_one_face_alone(
    tmp_path: Path, rows: list[Row], pixels: str
) -> None:
    table = write_table(tmp_path / "fer2013.csv", rows[:1])
    table.write_text(table.read_text() + f"0,{pixels},PublicTest\n")
    source = open_source(table)
    with pytest.raises(OSError, match="line 3 should have 48 x 48 numbers from 0 to 255"):
        source.read("test/angry/PublicTest-00003.png")
    assert source.read("train/angry/Training-00002.png")
    with pytest.raises(UserError, match=r"PublicTest-00003\.png cannot be read \(line 3 should"):
        read_fer2013(table)
    with pytest.raises(KeyError):
        source.read("test/angry/PublicTest-00004.png")


def test_other_tables_of_faces_are_refused(tmp_path: Path, rows: list[Row]) -> None:
    table = write_table(tmp_path / "train.csv", rows, "emotion,pixels,split")
    with pytest.raises(UserError, match=r"no train/<class>/<image>; .* or fer2013\.csv itself"):
        load_corpus("fer2013").recordings(open_source(table))


@pytest.mark.usefixtures("in_process")
def test_a_table_is_built_as_its_pictures_are(
    tmp_path: Path, rows: list[Row], extract_settings: ExtractSettings
) -> None:
    pictures = replace(extract_settings, speech=None)
    some = [rows[0], rows[10], rows[20]]
    sources = write_table(tmp_path / "t.csv", some), write_folders(tmp_path / "in", some)
    faces = []
    for number, source in enumerate(sources):
        settings = BuildSettings("fer2013", source, tmp_path / f"out{number}", pictures)
        assert build_dataset(settings).samples == {"test": 2, "train": 1}
        split = open_dataset(settings.out).split("test")
        faces.append([split.read(at).face for at in range(len(split))])
    for one, other in zip(*faces, strict=True):
        assert one is not None
        assert np.array_equal(one, other)


def test_copies_that_are_not_the_official_division_are_refused(
    tmp_path: Path, rows: list[Row]
) -> None:
    write_folders(tmp_path / "one", rows)
    for folder, message in (
        ("one/validation/sad/1.png", r"beside train/ is validation/, of another division"),
        ("one/copy/test/sad/1.png", r"FER2013: \. and copy both have it; give one of them"),
    ):
        path = tmp_path / folder
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        for read in (lambda at: load_corpus("fer2013").recordings(open_source(at)), read_fer2013):
            with pytest.raises(UserError, match=message):
                read(tmp_path / "one")
        path.unlink()
