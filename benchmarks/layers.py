"""In which layer the emotion is: logistic regression on each layer's mean hidden state.

    python -m benchmarks.layers --task ravdess --pretrained runs/grid_korean [key=value ...]

With `direct=true` the weights are random.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.packing import PackedBatch
from data_pipeline.quarantine import Quarantine
from data_pipeline.stream import eval_batches
from memo.evaluation.scores import rows_scores
from memo.heads.classifier import mean_of_sequences
from memo.model.memobert import MemoBert
from memo.settings import load_config
from memo.training.distributed import Ranks
from memo.training.signals import StopSignals
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Keeping
from memo.tuning.fold import FoldRun
from memo.tuning.setup import Setup, build_model, set_up
from memo.tuning.transform import patterns


def batches(setup: Setup) -> Iterator[PackedBatch]:
    """Every labelled clip, all its modalities in sight."""
    labelled = np.flatnonzero(setup.data.labels >= 0)
    with tempfile.TemporaryDirectory() as folder:
        quarantine = Quarantine(Path(folder) / "quarantine.jsonl", cap=0)
        ranks = Ranks(0, 1, torch.device("cpu"))
        keeping = Keeping(Path(folder), StopSignals())
        run = FoldRun(setup.inputs, setup.data.folds[0], 1, ranks, "layers", quarantine, keeping)
        yield from eval_batches(run.maker(labelled, patterns(setup.data.modalities)[:1]))
        quarantine.check()


@torch.no_grad()
def mean_states(backbone: MemoBert, setup: Setup) -> NDArray[np.float32]:
    """Mean state of every clip in every layer, (L + 1, clips, D); zeros of unlabelled ones."""
    spec = setup.backbone.spec
    means = np.zeros((spec.layers + 1, len(setup.data.labels), spec.hidden), np.float32)
    labelled = np.flatnonzero(setup.data.labels >= 0)
    for batch in batches(setup):
        clips = labelled[batch.samples.numpy()]
        for layer, states in enumerate(backbone.states(batch)):
            means[layer, clips] = mean_of_sequences(states, batch.cu_seqlens).numpy()
    return means


def main() -> None:
    """Print a line a layer, and all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True)
    parser.add_argument("--pretrained", required=True)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    named = [f"task={arguments.task}", f"pretrained={arguments.pretrained}"]
    setup = set_up(load_config(FinetuneConfig, None, [*named, *arguments.settings]))
    data, classes = setup.data, len(setup.data.classes)
    backbone = build_model(setup.inputs, 1, torch.ones(classes)).backbone.eval()
    means, found = mean_states(backbone, setup), []
    for layer, rows in enumerate(means):
        scores = [
            rows_scores(
                rows[fold.train], data.labels[fold.train],
                rows[fold.test], data.labels[fold.test], classes,
            ).uar
            for fold in data.folds
        ]  # fmt: skip
        found.append(round(float(np.mean(scores)), 4))
        print(f"layer {layer}: UAR {found[-1]:.3f}")
    print("RESULT", json.dumps({"task": arguments.task, "uar": found}))


if __name__ == "__main__":
    main()
