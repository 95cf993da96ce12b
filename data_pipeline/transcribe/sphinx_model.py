"""PocketSphinx (Huggins-Daines et al., ICASSP 2006) and its models, which both plugins share."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.transcribe.base import files_sha256

FILLERS = ("<", "[", "+")
"""How the names of silence and noise begin."""


@dataclass(frozen=True)
class SphinxModel:
    """The files of a model.

    Attributes:
        acoustic: folder of the acoustic model.
        dictionary: how words are pronounced.
        language_model: n-grams of words.
    """

    acoustic: Path
    dictionary: Path
    language_model: Path

    @property
    def language(self) -> str:
        """What the acoustic model's folder begins with, as of `en-us`; "" of another name."""
        match = re.fullmatch(r"([a-z]{2})(-.*)?", self.acoustic.name)
        return match[1] if match else ""

    def sha256(self, *others: Path) -> str:
        """Hash of the acoustic model, the dictionary and other files."""
        files = [file for file in self.acoustic.iterdir() if file.is_file()]
        return files_sha256([*files, self.dictionary, *others])

    def decoder(self, **options: object) -> Any:  # noqa: ANN401
        """PocketSphinx with this model.

        Raises:
            UserError: a file cannot be read.
        """
        from pocketsphinx import Decoder  # noqa: PLC0415  (an extra)

        files = {"hmm": str(self.acoustic), "dict": str(self.dictionary)}
        try:
            return Decoder(**files, loglevel="FATAL", **options)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.acoustic.parent} cannot be read by pocketsphinx ({error})"
            ) from None


def find_model(folder: Path | None, option: str) -> SphinxModel:
    """The files of a folder in the form of the package's own model.

    Args:
        folder: with one acoustic model in a folder (`en-us/mdef`), one `*.dict` and one `*.lm.bin`
            beside it; None is the English model that the package has.
        option: of the command line that asks for the model.

    Raises:
        UserError: the package is not installed, or there are none or several of a kind.
    """
    try:
        from pocketsphinx import get_model_path  # noqa: PLC0415  (an extra)
    except ImportError:
        raise UserError(
            f"--{option} pocketsphinx needs the package pocketsphinx; install memo[align]"
        ) from None
    folder = folder or Path(get_model_path("en-us"))
    return SphinxModel(
        _only(folder, "*/mdef").parent, _only(folder, "*.dict"), _only(folder, "*.lm.bin")
    )


def _only(folder: Path, pattern: str) -> Path:
    """The one file of this pattern; a model of phones is none of words."""
    found = [path for path in folder.glob(pattern) if not path.name.endswith("-phone.lm.bin")]
    if len(found) != 1:
        raise UserError(f"{folder} has {len(found)} files {pattern}; a model has one")
    return found[0]


def decode(decoder: Any, samples: bytes) -> bool:  # noqa: ANN401
    """Search through a whole sound; False if it ends before the text that is aligned does.

    Args:
        decoder: of `SphinxModel.decoder`.
        samples: see `pcm`.
    """
    decoder.reinit_feat()  # means of the last sound would change what is found in this one
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    try:
        decoder.end_utt()
    except RuntimeError:
        return False
    return True


def pcm(sound: NDArray[np.float32]) -> bytes:
    """Sound in [-1, 1] as 16-bit samples."""
    samples: NDArray[np.int16] = (np.clip(sound, -1, 1) * 32767).astype("<i2")
    return samples.tobytes()
