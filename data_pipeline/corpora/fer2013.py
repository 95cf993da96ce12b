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


@register
class Fer2013(Corpus):
    """FER2013; the face network that ships with the project has seen its train split."""

    name = "fer2013"
    licence = "research only (FER2013)"

    def recordings(self, source: Source) -> Sequence[Recording]:
        """One recording a picture, by name."""
        paths = [PurePosixPath(name) for name in source.names()]
        faces = [one for one in paths if one.parts[-3:-2] in (("train",), ("test",))]
        if not faces:
            raise UserError(
                "FER2013: the source has no train/<class>/<image>; give that folder or archive, or "
                "fer2013.csv itself"
            )
        return [
            Recording(
                key=f"{split}-{emotion}-{face.stem.replace('.', '-')}",
                split=split,
                media=str(face),
                labels={"emotion": emotion},
                aligned_face=True,
            )
            for face in faces
            for split, emotion in [face.parts[-3:-1]]
        ]
