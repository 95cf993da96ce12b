import subprocess
import sys

import pytest
import torch

PROGRAM = """
from data_pipeline import cpu_torch
cpu_torch.install()
cpu_torch.install()
import timm, torchaudio, torchvision
from transformers import Wav2Vec2Model, WhisperFeatureExtractor
assert timm.create_model("resnet18", num_classes=2).num_classes == 2
WhisperFeatureExtractor()
import torch
assert torchaudio.functional.resample(torch.zeros(1, 320), 32000, 16000).shape == (1, 160)
try:
    torchaudio.functional.forced_align(torch.zeros(1, 3, 4), torch.ones(1, 2, dtype=torch.int32))
except RuntimeError as error:
    print(error)
"""


@pytest.mark.skipif(torch.version.cuda is not None, reason="a complete torch needs no help")
def test_packages_import_beside_a_cpu_torch() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == (
        "torchaudio's forced_align needs its extension, which a CPU-only torch cannot load"
    )
