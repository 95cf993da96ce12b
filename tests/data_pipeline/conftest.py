"""What every test of a build needs: small encoders, and one thread instead of processes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline import build_pool
from data_pipeline.features import extract
from data_pipeline.features.extract import ExtractSettings
from data_pipeline.features.face import Aligned
from tests.data_pipeline.small_encoders import write_small_encoders


@pytest.fixture(scope="session")
def extract_settings(tmp_path_factory: pytest.TempPathFactory) -> ExtractSettings:
    """A random face network and a random wav2vec 2.0, both small."""
    return write_small_encoders(tmp_path_factory.mktemp("weights"))


class Awaited(ThreadPoolExecutor):
    """Ends with what has begun: a thread that goes on would do so while a test looks around."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        del wait
        super().shutdown(True, cancel_futures=cancel_futures)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread instead of processes."""

    def thread(_: int, __: object, initializer: Any, arguments: Any) -> Awaited:  # noqa: ANN401
        return Awaited(1, initializer=initializer, initargs=arguments)

    monkeypatch.setattr(build_pool, "ProcessPoolExecutor", thread)


@pytest.fixture
def in_process(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread instead of processes, and a face in every frame but the first."""

    def whole_frames(frames: NDArray[np.uint8], size: int, *_: object) -> Aligned:
        return Aligned(frames[:, :size, :size].copy(), np.arange(len(frames)) > 0, 1.5)

    monkeypatch.setattr(extract, "align_faces", whole_frames)
