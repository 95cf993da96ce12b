import pytest
import torch

from memo.config import ModelSpec
from memo.model.memobert import MemoBert
from memo.objectives import build_objectives
from memo.objectives.pretraining_model import PretrainingModel
from memo.tokenizer import Tokenizer, train_sentencepiece
from memo.training.state import TrainingState
from tests.memo.training.small_checkpoint import CONFIG


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_sentencepiece(["a b c d e f"], tmp_path_factory.mktemp("tokenizer") / "t", 30)


@pytest.fixture(scope="module")
def spec(tokenizer: Tokenizer) -> ModelSpec:
    sizes = {"hidden": 8, "layers": 1, "heads": 2, "ffn": 16, "max_positions": 40}
    return ModelSpec(
        vocab_size=tokenizer.vocab_size, face_dim=3, face_classes=2, speech_dim=4, **sizes
    )


@pytest.fixture(scope="module")
def model(spec: ModelSpec) -> PretrainingModel:
    torch.manual_seed(0)
    return PretrainingModel(MemoBert(spec), build_objectives(CONFIG.objectives, spec))


@pytest.fixture(scope="module")
def state(model: PretrainingModel) -> TrainingState:
    moments = {
        f"{key}.{name}": torch.randn_like(parameter)
        for name, parameter in model.named_parameters()
        for key in ("exp_avg", "exp_avg_sq")
    }
    return TrainingState(dict(model.state_dict()), moments, updates=5)
