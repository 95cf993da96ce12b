"""FER2013 (Goodfellow et al., ICONIP 2013) as a corpus: one face row a clip, seven expressions.

Layout: `train/<class>/*.jpg` and `test/<class>/*.jpg`; or `fer2013.csv` itself, as Kaggle hands it
out, whose `PublicTest` and `PrivateTest` are the pictures of `test` (`face_table.py`). The pictures
are faces already, so nothing is looked for in them.

Labels: `emotion`, the folder's name: angry, disgust, fear, happy, neutral, sad, surprise.

Speakers and sessions: not known. Splits: the folders', 28,709 and 7,178 pictures.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from data_pipeline.corpora.base import Corpus, Recording, register
from data_pipeline.corpora.source import Source
from data_pipeline.errors import UserError

SPLITS = ("train", "test")
UNOFFICIAL = ("validation", "valid", "val")
"""Folders of copies that somebody has divided anew."""


@register
class Fer2013(Corpus):
    """FER2013; the face network that ships with the project has seen its train split."""

    name = "fer2013"
    licence = "research only (FER2013)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a picture, by name."""
        return [
            Recording(
                key=f"{split}-{emotion}-{face.stem.replace('.', '-')}",
                split=split,
                media=str(face),
                labels={"emotion": emotion},
                aligned_face=True,
            )
            for face in official_faces(source)
            for split, emotion in [face.parts[-3:-1]]
        ]


def official_faces(source: Source) -> list[PurePosixPath]:
    """The pictures of `train/<class>` and `test/<class>`, by name, in whatever folder.

    Raises:
        UserError: there are none, or another division, or the corpus twice.
    """
    paths = [path for path in map(PurePosixPath, source.names()) if len(path.parts) > 2]
    faces = [path for path in paths if path.parts[-3] in SPLITS]
    if not faces:
        raise UserError(
            "FER2013: the source has no train/<class>/<image>; give that folder or archive, or "
            "fer2013.csv itself"
        )
    if others := sorted({one.parts[-3] for one in paths}.intersection(UNOFFICIAL)):
        raise UserError(
            f"FER2013: beside train/ is {others[0]}/, of another division than the official one; "
            "give the copy with train/ and test/, or fer2013.csv itself"
        )
    roots = sorted({str(face.parents[2]) for face in faces})
    if len(roots) > 1:
        raise UserError(f"FER2013: {roots[0]} and {roots[1]} both have it; give one of them")
    return faces
