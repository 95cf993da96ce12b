"""PocketSphinx (Huggins-Daines et al., ICASSP 2006) and its models, which both plugins share."""

import json
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import UserError
from data_pipeline.transcribe.base import files_sha256

FILLERS = ("<", "[", "+")
"""How the names of silence and noise begin."""
TRIAL = """
import json, sys
from pocketsphinx import Decoder
try:
    Decoder(**json.loads(sys.argv[1]), loglevel="ERROR", mmap=False)
except (RuntimeError, ValueError) as error:
    sys.exit(str(error))
"""
"""Loads a decoder; files that are mapped into memory would not be read to their ends."""


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
        arguments = {**files, **options}
        if flaw := _definition_flaw(self.acoustic / "mdef") or _trial_flaw(arguments):
            raise UserError(f"{self.acoustic.parent} cannot be read by pocketsphinx ({flaw})")
        return Decoder(**arguments, loglevel="FATAL")


def _definition_flaw(file: Path) -> str:
    """Whether a binary model definition ends too early: the library would read on in its memory."""
    content = file.read_bytes()
    if not content.startswith(b"BMDF"):
        return ""  # text, which the library looks at line by line
    try:
        at = 12 + struct.unpack_from("<I", content, 8)[0]  # behind a description of the form
        counts = struct.unpack_from("<10I", content, at)
        phones, entries, states, *_, sequences, _, nodes, _ = counts
        names = at = at + 40
        for _ in range(phones):
            at = content.index(b"\0", at) + 1
        at += -(at - names) % 4 + 8 * nodes + 12 * entries
        (numbers,) = struct.unpack_from("<I", content, at)
    except (struct.error, ValueError):
        return f"{file} is cut off"
    end = at + 4 + 2 * numbers + (0 if states else sequences)
    return "" if len(content) >= end else f"{file} is cut off: {len(content):,} of {end:,} bytes"


def _trial_flaw(arguments: Mapping[str, object]) -> str:
    """Why a decoder cannot be made; "" if it can.

    It is made in another process, for the library ends its own where a file is damaged.
    """
    command = [sys.executable, "-P", "-c", TRIAL, json.dumps(arguments)]
    trial = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    if not trial.returncode:
        return ""
    said = " ".join(trial.stderr.decode("utf8", "replace").split())[:300]
    return said or f"it ends with status {trial.returncode}"


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
