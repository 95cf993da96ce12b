"""YuNet: a small network of its form against formulas, and the real one on real faces."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.corpora.source import open_source
from data_pipeline.errors import UserError
from data_pipeline.features.detector import FaceDetector, load_detector, load_same_detector
from data_pipeline.features.face import _squares, align_faces, search_faces
from data_pipeline.features.haar import HaarDetector
from data_pipeline.features.tracks import join_faces
from data_pipeline.features.video import decode_frames
from data_pipeline.features.yunet import POINTS, YuNetDetector, _squares_of_points
from data_pipeline.shards.dataset import FaceSchema
from tests.data_pipeline.features.onnx_file import write_yunet

BOX = [0.5, 0.25, np.log(3), np.log(4)]
PLACES = [0.2, 0.3, 0.8, 0.3, 0.5, 0.6, 0.3, 0.9, 0.7, 0.9]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(write_yunet(BOX, PLACES))
    return path


@pytest.mark.parametrize("larger", [1, 2])
def test_faces_are_where_the_network_says(small: Path, larger: int) -> None:
    cell, cells = 16 * larger, [(2, 3), (9, 20)]  # row, column
    picture = np.zeros((200 * larger, 360 * larger), np.uint8)
    for row, column in cells:
        picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = 255
    found = YuNetDetector(small).find(picture)
    rows = []
    for row, column in cells:
        centre = np.array([column + 0.5, row + 0.25])
        points = np.reshape(PLACES, (5, 2)) + np.array([column, row])
        rows.append([*(centre - (1.5, 2)), 3, 4, *points.ravel()])
    np.testing.assert_allclose(found[found[:, 0].argsort()], np.array(rows) * cell, rtol=1e-5)
    assert YuNetDetector(small).find(picture[:cell]).shape == (0, 14)


@given(
    points=st.lists(st.floats(0, 200), min_size=10, max_size=10),
    x=st.floats(0, 200), y=st.floats(0, 200), side=st.floats(20, 100), angle=st.floats(-3, 3),
)  # fmt: skip
def test_squares_lay_the_points_over_those_of_fer2013(
    points: list[float], x: float, y: float, side: float, angle: float
) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    alike = POINTS @ (side * turn).T + (x, y)
    np.testing.assert_allclose(_squares_of_points(alike[None])[0], [x, y, side, angle], atol=1e-9)
    # Any points: the least squares of x' = a px - b py + x, y' = b px + a py + y.
    system = np.zeros((10, 4))
    system[0::2] = np.column_stack([POINTS[:, 0], -POINTS[:, 1], np.ones(5), np.zeros(5)])
    system[1::2] = np.column_stack([POINTS[:, 1], POINTS[:, 0], np.zeros(5), np.ones(5)])
    a, b, *centre = np.linalg.lstsq(system, np.array(points), rcond=None)[0]
    square = _squares_of_points(np.reshape(points, (1, 5, 2)))[0]
    cosines = square[2] * np.array([np.cos(square[3]), np.sin(square[3])])
    np.testing.assert_allclose([*square[:2], *cosines], [*centre, a, b], atol=1e-8)


@pytest.mark.parametrize("what", ["empty", "page", "cut off", "another network", "folder"])
def test_a_file_that_is_no_yunet_is_refused(tmp_path: Path, what: str, small: Path) -> None:
    path = tmp_path / "bad.onnx"
    if what == "folder":
        path.mkdir()
    else:
        whole = small.read_bytes()
        other = write_yunet(BOX, PLACES, scores=("cls", "sure"))
        contents = {"empty": b"", "page": b"<!DOCTYPE html>", "cut off": whole[: len(whole) // 2]}
        path.write_bytes(contents.get(what, other))
    with pytest.raises(UserError, match=r"--detector-weights: .*bad\.onnx") as refused:
        load_detector(path)
    assert "\n" not in str(refused.value)


def test_the_detector_of_a_dataset_is_asked_for(small: Path) -> None:
    haar = FaceSchema(dim=1, encoder="e", encoder_sha256="0", fps=10, classes=("a",))
    yunet = YuNetDetector(small)
    found = {"detector": yunet.name, "detector_sha256": yunet.sha256}
    by_yunet = FaceSchema.model_validate(haar.model_dump() | found)
    assert load_same_detector(haar, None).name == "haar"
    assert load_same_detector(by_yunet, small).sha256 == yunet.sha256
    with pytest.raises(UserError, match=r"found without a file, not by .*small"):
        load_same_detector(haar, small)
    with pytest.raises(UserError, match=r"found by yunet, .* not by the Haar cascades; give it"):
        load_same_detector(by_yunet, None)
    small.write_bytes(write_yunet(BOX, PLACES[::-1]))
    with pytest.raises(UserError, match=r"not by .*small"):
        load_same_detector(by_yunet, small)


def test_only_what_a_file_has_found_is_said_in_the_schema() -> None:
    haar = FaceSchema(dim=1, encoder="e", encoder_sha256="0", fps=10, classes=("a",))
    assert not {"detector", "detector_sha256"} & haar.model_dump().keys()
    assert "detector" not in haar.model_dump_json()
    yunet = haar.model_copy(update={"detector": "yunet", "detector_sha256": "1"})
    assert FaceSchema.model_validate_json(yunet.model_dump_json()) == yunet


@pytest.fixture(scope="session")
def real() -> YuNetDetector:
    place = Path(os.environ.get("MEMO_YUNET", "face_detection_yunet.onnx"))
    if not place.is_file():
        pytest.skip(f"YuNet (OpenCV Zoo: face_detection_yunet) is not at {place} (set MEMO_YUNET)")
    return YuNetDetector(place)


def squares(frames: NDArray[np.uint8], detector: FaceDetector) -> NDArray[np.float64]:
    """Of the one face that is followed, (T, 4)."""
    (track,) = join_faces(search_faces(frames, detector, 10.0), frames, 10.0)
    return _squares(track, frames, detector)


@pytest.mark.corpora
@pytest.mark.parametrize("clip", ["lgbs9a", "bbaf2n"])
def test_the_real_network_cuts_real_faces_as_the_cascades_do(
    shared: Path, real: YuNetDetector, clip: str
) -> None:
    media = open_source(shared / "data" / "grid_s1.tar").read(f"clips/{clip}.mp4")
    frames = decode_frames(media)
    ours, theirs = squares(frames, real), squares(frames, HaarDetector())
    sides = ours[:, 2] / theirs[:, 2]
    apart = np.hypot(*(ours - theirs)[:, :2].T) / theirs[:, 2]
    assert (sides > 0.9).all()
    assert (sides < 1.2).all()
    assert apart.max() < 0.08
    assert np.abs(ours[:, 3] - theirs[:, 3]).max() < 0.1
    dark = frames // 6
    assert align_faces(dark, 48, real, 10.0)[1].all()
    assert not align_faces(dark, 48, HaarDetector(), 10.0)[1].any()
