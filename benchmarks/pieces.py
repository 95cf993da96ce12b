"""The pieces of a pretraining run, for benchmarks that take its steps themselves."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_pipeline.stream import Step, TrainStream
from memo.config import Distribution, ModelSpec, PretrainConfig
from memo.objectives.pretraining_model import PretrainingModel
from memo.training.checkpoint import Progress
from memo.training.distributed import Ranks
from memo.training.engine import Engine
from memo.training.saving import write_checkpoint
from memo.training.setup import (
    Data,
    Makers,
    batch_makers,
    build_model,
    build_transform,
    first_state,
    model_spec,
    open_data,
    prepare_demo,
    step_size,
)
from memo.training.state import TrainingState


@dataclass(frozen=True)
class Pieces:
    """What a run is made of, before it has a model.

    Attributes:
        config: the settings.
        ranks: this process among the others.
        data: what is read.
        spec: the model's sizes.
        makers: make this rank's micro-batches.
    """

    config: PretrainConfig
    ranks: Ranks
    data: Data
    spec: ModelSpec
    makers: Makers

    @property
    def weights(self) -> dict[str, float]:
        """Objective name -> factor of its loss."""
        return {name: one.weight for name, one in self.config.objectives.items()}

    def model(self) -> PretrainingModel:
        """With its initial weights: the same bits each time, on every rank."""
        return build_model(self.config, self.spec, self.data)

    def engine(self, stage: int, state: TrainingState | None = None) -> Engine:
        """A new one at a ZeRO stage, in float32, from the beginning or from a state."""
        model = self.model()
        if state is not None:
            model.load_state_dict(dict(state.model))
        there = Distribution.model_validate({"zero_stage": stage, "precision": "fp32"})
        optimizer, seed = self.config.optimizer, self.config.seed
        engine = Engine(model, self.weights, optimizer, there, self.ranks, seed)
        if state is not None:
            engine.restore(state)
        return engine

    def start(self) -> Progress:
        """Before the first step."""
        return Progress(0, 0, first_state(self.config, self.data))

    def steps(self, progress: Progress, count: int) -> list[Step]:
        """The next ones of the stream."""
        size = step_size(self.config)
        with TrainStream(self.makers.train, progress.stream, size) as stream:
            return list(islice(stream, count))

    def write(self, root: Path, state: TrainingState, progress: Progress) -> Path:
        """A checkpoint, as a run writes it; on the first rank alone."""
        features, tokenizer = self.data.features, self.data.tokenizer
        return write_checkpoint(root, state, progress, self.config, self.spec, features, tokenizer)


def open_pieces(config: PretrainConfig, ranks: Ranks) -> Pieces:
    """Open the data, after the first rank has made the demo corpus if it is asked for."""
    with ranks.together():
        if ranks.first:
            prepare_demo(config)
    with ranks.together():
        data = open_data(config)
        spec = model_spec(config, data)
        transform = build_transform(config, build_model(config, spec, data), data.tokenizer)
        makers = batch_makers(config, data, transform, spec, ranks.placement)
    return Pieces(config, ranks, data, spec, makers)
