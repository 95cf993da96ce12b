"""FER2013's reader and the training loop, on a handful of drawn images."""

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_pipeline.errors import UserError
from data_pipeline.features.fer2013 import SIZE, read_fer2013
from data_pipeline.features.train_denseface import (
    SHIFT,
    FaceTraining,
    _Run,
    augment,
    resize,
    size_at,
    train_face,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Eight faces to train, two to test: dark above or dark below."""
    for split, count in (("train", 4), ("test", 1)):
        for name, top in (("above", 20), ("below", 220)):
            folder = tmp_path / "fer" / split / name
            folder.mkdir(parents=True)
            image = np.full((SIZE, SIZE), 240 - top, np.uint8)
            image[: SIZE // 2] = top
            for number in range(count):
                cv2.imwrite(str(folder / f"{number}.jpg"), image)
    return tmp_path / "fer"


def settings(corpus: Path, **changes: int) -> FaceTraining:
    return FaceTraining(
        source=corpus, out=corpus.parent / "f.safetensors", **{"epochs": 2, "batch": 4, **changes}
    )


def test_reads_folder_and_archive_alike(corpus: Path) -> None:
    archive = corpus.parent / "fer.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(corpus, "fer2013")
    for train, test in (read_fer2013(corpus), read_fer2013(archive)):
        assert train.classes == test.classes == ("above", "below")
        assert train.labels.tolist() == [0] * 4 + [1] * 4
        assert train.faces.shape == (8, SIZE, SIZE)
        dark_above = train.faces[:, :20].float().mean((1, 2)) < 100
        assert dark_above.tolist() == [True] * 4 + [False] * 4


def test_refuses_what_is_not_fer2013(corpus: Path) -> None:
    (corpus / "train" / "above" / "0.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train/above/0\.jpg is not an image of 48x48"):
        read_fer2013(corpus)
    with pytest.raises(UserError, match="has no train/<class>"):
        read_fer2013(corpus / "test")
    with pytest.raises(UserError, match="there is no"):
        read_fer2013(corpus / "nowhere")


def test_refuses_splits_of_different_classes(corpus: Path) -> None:
    (corpus / "test" / "above").rename(corpus / "test" / "beside")
    with pytest.raises(UserError, match="above, below, test has below, beside"):
        read_fer2013(corpus)


def test_augmented_faces_are_shifted_or_mirrored_windows() -> None:
    face = torch.randint(0, 256, (12, 12), generator=torch.manual_seed(3)).float()
    padded = np.pad(face.numpy(), SHIFT, mode="edge")
    windows = [
        padded[y : y + 12, x : x + 12] for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1)
    ]
    known = {window.tobytes() for window in windows}
    mirrored = {np.ascontiguousarray(window[:, ::-1]).tobytes() for window in windows}
    results = augment(face.expand(64, 12, 12), torch.manual_seed(0)).numpy()
    kinds = [(row.tobytes() in known, row.tobytes() in mirrored) for row in results]
    assert all(plain or flipped for plain, flipped in kinds)
    assert 16 < sum(flipped for _, flipped in kinds) < 48
    assert len({row.tobytes() for row in results}) > 20


def test_the_last_quarter_of_the_epochs_sees_whole_faces() -> None:
    assert [size_at(epoch / 20) for epoch in range(20)] == [32] * 12 + [40] * 3 + [48] * 5
    assert size_at(0.0) == 32


def test_smaller_faces_are_averages_of_what_they_cover() -> None:
    faces = torch.rand(3, 48, 48, generator=torch.manual_seed(1))
    assert resize(faces, 48) is faces
    centres = (torch.arange(32) + 0.5) * 1.5 - 0.5  # of the small pixels, in the large ones
    weights = (1 - (torch.arange(48) - centres[:, None]).abs() / 1.5).clamp(min=0)  # a triangle
    weights = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(resize(faces, 32), weights @ faces @ weights.T)


def test_an_interrupted_run_ends_as_one_never_interrupted(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = settings(corpus)
    card = train_face(plan)
    whole, lines = plan.out.read_bytes(), capsys.readouterr().out.splitlines()
    plan.out.unlink()

    save = _Run.save

    def save_and_stop(run: _Run) -> None:
        save(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(_Run, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_face(plan)
    assert not plan.out.exists()
    with pytest.raises(UserError, match="was begun with"):
        train_face(settings(corpus, seed=1))
    capsys.readouterr()

    assert train_face(plan) == card
    assert plan.out.read_bytes() == whole
    (resumed,) = capsys.readouterr().out.splitlines()
    assert resumed.rpartition(",")[0] == lines[1].rpartition(",")[0]  # all but the speed
    assert sorted(path.name for path in corpus.parent.iterdir()) == ["f.safetensors", "fer"]


def test_refuses_unfit_settings_before_training(corpus: Path) -> None:
    with pytest.raises(UserError, match="--epochs"):
        train_face(settings(corpus, epochs=0))
    with pytest.raises(UserError, match="7 faces to train; 9 are needed"):
        train_face(settings(corpus, batch=9))
    with pytest.raises(UserError, match="there is no folder"):
        train_face(FaceTraining(corpus, corpus / "nowhere" / "f.safetensors"))


def test_refuses_a_foreign_partial_file(corpus: Path) -> None:
    plan = settings(corpus)
    plan.out.with_name("f.safetensors.partial").write_bytes(b"something else")
    with pytest.raises(UserError, match="is no unfinished training run"):
        train_face(plan)
