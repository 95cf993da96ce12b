"""Tuning on one task, and what it leaves: a folder a fold and seed, and `results.json` of them all.

```
runs/<name>/
  config.yaml                        as resolved
  origin.json                        the task, and hashes of backbone and corpus
  folds/fold-0-seed-1/result.json    chosen epoch, scores, every test prediction
  folds/fold-0-seed-1/tuned/         the trained tensors (`artifact.py`)
  results.json                       mean, deviation and interval of every score
```

A fold's folder appears by one rename when it is whole: a run that was killed goes on with the folds
that are missing, and with the one that it was at from where `course.py` has kept it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from data_pipeline.quarantine import Quarantine
from memo.evaluation.folds import Fold
from memo.evaluation.scores import SCORES, from_confusion, score
from memo.evaluation.statistics import by_fold_and_seed, summarise
from memo.evaluation.tuning_report import BLIND, blind_of
from memo.training.distributed import Ranks
from memo.training.progress import Display
from memo.tuning.artifact import TunedArtifact
from memo.tuning.baselines import baselines
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Keeping
from memo.tuning.fold import FoldResult, FoldRun, Predictions, train_fold, training_part
from memo.tuning.job import Job, Record
from memo.tuning.setup import Setup, set_up
from memo.tuning.task import LabelledCorpus
from memo.tuning.together import Divided
from memo.tuning.transform import Pattern, patterns


def fold_folder(folder: Path, fold: int, seed: int) -> Path:
    """Where the result of a fold with a seed lies."""
    return folder / "folds" / f"fold-{fold}-seed-{seed}"


def pattern_name(pattern: Pattern) -> str:
    """`text+speech`, ..."""
    return "+".join(pattern)


def fold_record(setup: Setup, fold: int, seed: int, result: FoldResult) -> dict[str, Any]:
    """The content of a fold's `result.json`."""
    data, used = setup.data, used_fold(setup, fold, seed)
    return {
        "fold": fold,
        "seed": seed,
        "epoch": result.epoch,
        "seconds": round(result.seconds, 2),
        "trained_parameters": result.parameters,
        "clips": {part: len(getattr(used, part)) for part in ("train", "valid", "test")},
        "valid": result.valid.to_json(),
        "test": {
            pattern_name(pattern): _pattern_record(data, predictions)
            for pattern, predictions in result.test.items()
        },
    }


def used_fold(setup: Setup, number: int, seed: int) -> Fold:
    """A fold with the part that a run with a seed trains on."""
    fold, fraction = setup.data.folds[number], setup.config.training.fraction
    return replace(fold, train=training_part(fold.train, setup.data.labels, fraction, seed))


def _pattern_record(data: LabelledCorpus, predictions: Predictions) -> dict[str, Any]:
    labels = data.labels[predictions.samples]
    scores = score(labels, predictions.classes, len(data.task.classes))
    return {
        "scores": scores.to_json(),
        "predictions": [
            {
                "key": data.samples.location(sample)[1],
                "speaker": data.groups.speaker[sample],
                "label": data.task.classes[label],
                "predicted": data.task.classes[predicted],
                "probabilities": [round(float(one), 5) for one in row],
            }
            for sample, label, predicted, row in zip(
                predictions.samples.tolist(),
                labels.tolist(),
                predictions.classes.tolist(),
                predictions.probabilities,
                strict=True,
            )
        ],
    }


class TaskJob(Job):
    """Tuning on one task.

    Args:
        setup: opened and checked.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.config = setup.config
        self.backbone = setup.backbone

    @classmethod
    def open(cls, config: FinetuneConfig) -> "TaskJob":
        """Open and check; nothing is written.

        Raises:
            UserError: anything that does not fit.
        """
        return cls(set_up(config))

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds to run."""
        return self.setup.folds

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each fold is trained once with each."""
        return self.setup.seeds

    @property
    def divided(self) -> list[Divided]:
        """See the base class."""
        data = self.setup.data
        return [Divided(data.task.name, data, data.folds)]

    def origin(self) -> dict[str, Any]:
        """Backbone, corpus and task."""
        return {
            "backbone": self.backbone.sha256,
            "dataset": self.setup.data.samples.fingerprint,
            "task": self.setup.data.task.model_dump(mode="json"),
        }

    def learn(
        self, fold: int, seed: int, ranks: Ranks, keeping: Keeping
    ) -> tuple[Record, list[TunedArtifact]]:
        """See the base class."""
        setup, config = self.setup, self.config
        part, name = setup.data.folds[fold], f"fold {fold}, seed {seed}"
        quarantine = Quarantine(config.folder / "quarantine.jsonl", config.max_quarantined)
        run = FoldRun(setup.inputs, part, seed, ranks, name, quarantine, keeping)
        with Display(name, run.steps, 0, ranks.first) as display:
            result = train_fold(run, display)
        artifact = TunedArtifact(
            "tuned", config, setup.data.task, seed, self.backbone, result.trained
        )
        return fold_record(setup, fold, seed, result), [artifact]

    def summarise(self, records: Sequence[Record]) -> Record:
        """See the base class."""
        return summarise_run(self.setup, records)

    def tables(self, results: Record) -> list[Table]:
        """Scores of every pattern, and the baselines."""
        table = Table(title=f"{results['task']}, {results['mode']}: {results['runs']} runs")
        table.add_column("visible")
        for title in (*SCORES.values(), BLIND):
            table.add_column(title, justify="right")
        for pattern, scores in results["scores"].items():
            cells = [f"{scores[name]['mean']:.3f} ± {scores[name]['std']:.3f}" for name in SCORES]
            table.add_row(pattern, *cells, blind_of(results, pattern))
        for name, scores in results["baselines"].items():
            table.add_row(f"baseline, {name}", *(f"{scores[one]:.3f}" for one in SCORES))
        return [table]


def summarise_run(setup: Setup, records: Sequence[Record]) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        setup: what all folds share.
        records: of the folds and seeds that are done, at least one.
    """
    config, data = setup.config, setup.data
    numbers = sorted({one["fold"] for one in records})
    tuned = fold_folder(config.folder, records[0]["fold"], records[0]["seed"]) / "tuned"
    return {
        "task": data.task.name,
        "mode": config.mode,
        "direct": config.direct,
        "classes": list(data.task.classes),
        "dataset": {"folder": str(data.task.dataset), "fingerprint": data.samples.fingerprint},
        "backbone": {"place": str(config.pretrained), "sha256": setup.backbone.sha256},
        "folds": len(numbers),
        "seeds": sorted({one["seed"] for one in records}),
        "runs": len(records),
        "trained_parameters": records[0]["trained_parameters"],
        "trained_bytes": sum(path.stat().st_size for path in tuned.glob("*.safetensors")),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "scores": {pattern: _summaries(setup, records, pattern) for pattern in records[0]["test"]},
        "baselines": baselines(data, _folds_of_baselines(setup, records)),
        **_blind(data, numbers),
    }


def _blind(data: LabelledCorpus, numbers: Sequence[int]) -> dict[str, Any]:
    """Test clips of some folds, and how many have nothing of a pattern; they are answered, too."""
    tested = np.concatenate([data.folds[number].test for number in numbers])
    lengths = [data.split.lengths(shard) for shard in range(len(data.split.shards))]
    has = {
        "text": np.concatenate([one.text_chars for one in lengths])[tested] > 0,
        "face": np.concatenate([one.face for one in lengths])[tested] > 0,
        "speech": np.concatenate([one.speech for one in lengths])[tested] > 0,
    }
    return {
        "test_clips": len(tested),
        "nothing_in_sight": {
            pattern_name(pattern): int((~np.any([has[one] for one in pattern], axis=0)).sum())
            for pattern in patterns(data.modalities)
        },
    }


def _folds_of_baselines(setup: Setup, records: Sequence[Record]) -> list[Fold]:
    """The folds that are done, each once; of a fraction each seed draws its own clips."""
    drawn = setup.config.training.fraction < 1
    runs = dict.fromkeys((one["fold"], one["seed"] if drawn else 0) for one in records)
    return [used_fold(setup, number, seed) for number, seed in runs]


def _summaries(setup: Setup, records: Sequence[Record], pattern: str) -> dict[str, Any]:
    """Every score of one pattern over folds and seeds, and the confusion of all test clips."""
    tests = [record["test"][pattern]["scores"] for record in records]
    summaries: dict[str, Any] = {}
    for name in SCORES:
        values = [
            (one["fold"], one["seed"], test[name]) for one, test in zip(records, tests, strict=True)
        ]
        summaries[name] = summarise(by_fold_and_seed(values)).to_json()
    confusion = np.sum([test["confusion"] for test in tests], axis=0)  # (C, C)
    recall = from_confusion(confusion).to_json()["recall"]
    assert isinstance(recall, list), "a value a class"
    summaries["recall"] = dict(zip(setup.data.task.classes, recall, strict=True))
    summaries["confusion"] = confusion.tolist()
    return summaries
