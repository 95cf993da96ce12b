"""What a frozen network says of images: each is read once, and a run that is ended goes on.

```
$MEMO_CACHE/images/
  <hash>.npy              all rows, (n, D)
  <hash>.parts/00000512.npy   until then: those of the samples from 512 on
```
"""

import hashlib
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.cache_folder import cache_folder
from data_pipeline.clip import BadSampleError
from data_pipeline.shards.index import file_sha256
from data_pipeline.shards.reader import Split
from data_pipeline.whole_file import whole_file
from memo.multitask.config import ImageSettings
from memo.multitask.images import ImageNetwork, decode_image
from memo.training.distributed import Ranks
from memo.training.signals import StopSignals
from memo.tuning.course import stop_if_asked

BATCH = 32
"""Images encoded at a time."""
PART = 8 * BATCH
"""Samples whose rows are kept together, and after which a rank says that it gets on."""


def image_rows(
    split: Split, settings: ImageSettings, ranks: Ranks, signals: StopSignals
) -> NDArray[np.float32]:
    """What a frozen network says of each sample's image, (n, D); all ranks call it together.

    Rows of samples without an image, or with one that does not decode, are NaN.

    Args:
        split: whose images they are of.
        settings: of the network.
        ranks: this process among the others.
        signals: that ask to stop.

    Raises:
        AgreedError: the network or its weights cannot be used, or the cache's folder not written.
        StoppedError: a signal has come; what is read by then is kept.
    """
    with ranks.together():
        kept = _Kept(split, settings, _path(split, settings))
    if all(ranks.gather(kept.path.is_file())):
        return _load(kept.path)
    for begin in kept.begins:
        stop_if_asked(ranks, signals)
        # The first one encodes for all who share its cache; the others have one of another node.
        for mine in (ranks.first, True):
            ranks.does(f"encoding images, {begin} of {len(split)}")
            with ranks.together():
                if mine:
                    kept.keep(begin)
    with ranks.together():
        rows = kept.join()
        if ranks.first:
            kept.finish(rows)
    with ranks.together():  # all have read the parts
        kept.finish(rows)
        kept.clear()
    return rows


@dataclass(frozen=True)
class _Kept:
    """The rows of a split as they stand in the cache.

    Attributes:
        split: whose images they are of.
        settings: of the network.
        path: of all rows.
    """

    split: Split
    settings: ImageSettings
    path: Path

    @property
    def begins(self) -> range:
        """The first sample of each part."""
        return range(0, len(self.split), PART)

    @cached_property
    def _network(self) -> ImageNetwork:
        return ImageNetwork(self.settings).eval()

    @property
    def _parts(self) -> Path:
        return self.path.with_suffix(".parts")

    def keep(self, begin: int) -> None:
        """Encode the part from a sample on, unless that is done."""
        path = self._parts / f"{begin:08}.npy"
        if path.is_file() or self.path.is_file():
            return
        rows = self._encode(begin)
        try:
            _save(path, rows)
        except OSError:  # another run may have finished the same rows, and removed the parts
            if not self.path.is_file():
                raise

    def join(self) -> NDArray[np.float32]:
        """All rows."""
        if self.path.is_file():
            return _load(self.path)
        return np.concatenate([self._part(begin) for begin in self.begins])

    def finish(self, rows: NDArray[np.float32]) -> None:
        """Write all rows, unless they are there."""
        if not self.path.is_file():
            _save(self.path, rows)

    def clear(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def _part(self, begin: int) -> NDArray[np.float32]:
        try:
            return _load(self._parts / f"{begin:08}.npy")
        except FileNotFoundError:  # another run has finished the same rows meanwhile
            return self._encode(begin)

    @torch.no_grad()
    def _encode(self, begin: int) -> NDArray[np.float32]:
        end = min(begin + PART, len(self.split))
        rows = np.full((end - begin, self._network.width), np.nan, np.float32)
        for first in range(begin, end, BATCH):
            numbers, images = [], []
            for sample in range(first, min(first + BATCH, end)):
                try:
                    content = self.split.read(sample).image
                    if content is not None:
                        images.append(decode_image(content, self.settings.size))
                        numbers.append(sample - begin)
                except BadSampleError:
                    continue  # it is named when it is trained on
            if numbers:
                rows[numbers] = self._network(torch.from_numpy(np.stack(images))).numpy()
        return rows


def _path(split: Split, settings: ImageSettings) -> Path:
    assert settings.weights is not None, "a frozen network has weights"
    name = f"{split.fingerprint} {settings.model} {settings.size} {file_sha256(settings.weights)}"
    return cache_folder() / "images" / f"{hashlib.sha256(name.encode()).hexdigest()}.npy"


def _load(path: Path) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return found


def _save(path: Path, rows: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        np.save(file, rows, allow_pickle=False)
