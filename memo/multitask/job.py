"""A run of a system, and what it leaves: records fold by fold, and `results.json` of them all."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from data_pipeline.quarantine import Quarantine
from data_pipeline.shards.index import file_sha256
from memo.evaluation.scores import majority_scores
from memo.evaluation.statistics import by_fold_and_seed, interval, summarise
from memo.evaluation.systems import COMMON, MAIN, answered_of, main_name, on_common
from memo.evaluation.traits import score_traits
from memo.multitask.artifact import TABLE, SystemArtifact
from memo.multitask.fold import Answers, SystemResult, learn, scores_of
from memo.multitask.members import Member
from memo.multitask.setup import SystemFold, SystemSetup, View, open_fold, set_up_system
from memo.multitask.texts import SharedStates
from memo.training.distributed import Ranks
from memo.tuning.config import FinetuneConfig
from memo.tuning.course import Keeping
from memo.tuning.job import Job, Record
from memo.tuning.together import Divided

_log = logging.getLogger(__name__)


class SystemJob(Job):
    """Learning several tasks at once.

    Args:
        setup: opened and checked.
    """

    def __init__(self, setup: SystemSetup) -> None:
        self.setup = setup
        self.config = setup.config
        self._told = False

    @classmethod
    def open(cls, config: FinetuneConfig, states: SharedStates) -> "SystemJob":
        """Open and check; nothing is written.

        Args:
            config: the settings.
            states: what frozen layers have read for other runs of this process.

        Raises:
            UserError: anything that does not fit.
        """
        return cls(set_up_system(config, states))

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds to run."""
        return self.config.folds or tuple(range(self.setup.fold_count))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Each fold is learned once with each."""
        return self.config.seeds or self.setup.system.seeds

    @property
    def divided(self) -> list[Divided]:
        """See the base class."""
        return [one.divided for one in self.setup.members]

    def check_ranks(self, ranks: int) -> None:
        """See the base class; an episode is not divided, every rank takes the whole of it."""
        if self.setup.recipe.sampling(self.config) != "episodes":
            super().check_ranks(ranks)

    def origin(self) -> dict[str, Any]:
        """Backbone, corpora and tasks."""
        setup, members = self.setup, self.setup.members
        files = (self.config.words.vectors, self.config.trimodal.image.weights)
        return {
            "backbone": setup.backbone and setup.backbone.sha256,
            "dataset": [one.corpus.samples.fingerprint for one in members],
            "word or image file": [path and file_sha256(path) for path in files],
            "task": [
                setup.system.model_dump(mode="json"),
                *(one.corpus.task.model_dump(mode="json") for one in members),
            ],
        }

    def learn(
        self, fold: int, seed: int, ranks: Ranks, keeping: Keeping
    ) -> tuple[Record, list[SystemArtifact]]:
        """See the base class."""
        config = self.config
        quarantine = Quarantine(config.folder / "quarantine.jsonl", config.max_quarantined)
        opened = open_fold(self.setup, fold, seed, ranks, quarantine, keeping)
        if ranks.first:
            self._tell_coverage(opened)
        result = learn(opened, ranks.first)
        tensors = dict(result.trained)
        if opened.vocabulary is not None:  # nowhere else to be had; half as precise and no worse
            tensors |= {
                name: one.half() if name.endswith(TABLE) else one
                for name, one in result.kept.items()
            }
        else:
            buffers = [name for name, _ in result.model.named_buffers() if "backbone." not in name]
            tensors |= {name: result.kept[name] for name in buffers}
        first = replace(opened, setup=self.setup.recipe.first(self.setup))
        return _record(opened, result), [SystemArtifact("system", first, tensors)]

    def _tell_coverage(self, fold: SystemFold) -> None:
        """Once a run, for it is much the same in every fold."""
        if fold.coverage is None or self._told:
            return
        self._told = True
        place, file = f"{self.config.folder}: {fold.name}", self.config.words.vectors
        told = "%s: %s have a vector in %s; the others are drawn"
        _log.warning(told, place, fold.coverage, file)

    def summarise(self, records: Sequence[Record]) -> Record:
        """See the base class."""
        setup = self.setup
        of_folds = list({one["fold"]: one for one in records}.values())
        return {
            "task": setup.system.name,
            "system": setup.system.system,
            "mode": self.config.mode,
            "backbone": self.config.backbone,
            "members": {
                view.name: {
                    "task": setup.members[view.task].name,
                    "answers": list(setup.members[view.task].answers),
                    "multi_label": bool(setup.members[view.task].traits),
                    "scores": _summaries(
                        records, [one["tasks"][view.name]["scores"] for one in records]
                    ),
                    **_answered(setup.members[view.task], of_folds, view.name),
                    **_common(records, view.name),
                }
                for view in setup.views
            },
            "average": _average(records, [view.name for view in setup.views]),
            "examined": _examined(records),
            **_vectors(of_folds, self.config.words.vectors),
            "folds": len(of_folds),
            "seeds": sorted({one["seed"] for one in records}),
            "runs": len(records),
            "trained_parameters": records[0]["trained_parameters"],
            "seconds": round(sum(one["seconds"] for one in records), 1),
        }

    def tables(self, results: Record) -> list[Table]:
        """Every task's scores, and their average; patterns on the same samples, if they differ."""
        title = f"{results['task']}, {results['backbone']}: {results['runs']} runs"
        table = _table(title, results["members"])
        table.add_row("average", *_cells(results["average"]), "", "")
        common = on_common(results["members"])
        return [table, _table(COMMON, common)] if common else [table]


def _table(title: str, members: Mapping[str, Any]) -> Table:
    head = "task", "accuracy", "error", "95 % interval of accuracy", "majority", "answered"
    table = Table(*head, title=title)
    for name, one in members.items():
        accuracy = one["scores"][main_name(one)]
        table.add_row(name, *_cells(accuracy), f"{one['majority']:.4f}", answered_of(one))
    return table


def _cells(accuracy: Mapping[str, Any]) -> list[str]:
    mean = accuracy["mean"]
    return [f"{mean:.4f} ± {accuracy['std']:.4f}", f"{100 * (1 - mean):.2f} %", interval(accuracy)]


def _record(fold: SystemFold, result: SystemResult) -> dict[str, Any]:
    """The content of a fold's `result.json`."""
    return {
        "fold": fold.number,
        "seed": fold.seed,
        "epoch": result.epoch,
        "seconds": round(result.seconds, 2),
        "trained_parameters": sum(one.numel() for one in result.trained.values()),
        "traces": list(result.traces),
        "examined": dict(result.examined),
        **({"vectors": asdict(fold.coverage)} if fold.coverage else {}),
        "tasks": {
            view.name: {
                "texts": {
                    part: len(getattr(fold.part(view.task), part))
                    for part in ("train", "valid", "test")
                },
                "valid": result.valid[view.name],
                "scores": scores_of(fold, view.task, result.test[view.name]),
                "answers": _answers(fold.setup.members[view.task], result.test[view.name]),
                **_common_record(fold, result.test, view),
            }
            for view in fold.setup.views
        },
    }


def _answers(member: Member, answers: Answers) -> dict[str, Any]:
    """Every test text's targets and probabilities."""
    numbers = answers.samples.tolist()
    return {
        "keys": [member.corpus.samples.location(one)[1] for one in numbers],
        "targets": member.targets[answers.samples].tolist(),
        "probabilities": [[round(float(one), 5) for one in row] for row in answers.probabilities],
    }


def _common_record(fold: SystemFold, test: Mapping[str, Answers], view: View) -> dict[str, Any]:
    """A view on the texts that every view of its task answers, if it has several and there are any.

    Patterns of visible modalities answer different ones; on these they can be compared.
    """
    answered = [test[one.name].samples for one in fold.setup.views if one.task == view.task]
    common = reduce(np.intersect1d, answered)
    if len(answered) < 2 or not len(common):
        return {}
    own, member = test[view.name], fold.setup.members[view.task]
    chosen = np.isin(own.samples, common)
    scores = scores_of(fold, view.task, Answers(common, own.probabilities[chosen]))
    majority = _majority(member, fold.number, member.targets[common])
    return {"common": {"answered": len(common), "majority": majority, "scores": scores}}


def _common(records: Sequence[Record], name: str) -> dict[str, Any]:
    """Of a view in all folds, what `_common_record` has of each; nothing where none has it."""
    having = [one for one in records if "common" in one["tasks"][name]]
    if not having:
        return {}
    of_folds = {one["fold"]: one["tasks"][name]["common"] for one in having}.values()
    return {
        "common": {
            "answered": sum(one["answered"] for one in of_folds),
            "majority": float(np.mean([one["majority"] for one in of_folds])),
            "scores": _summaries(
                having, [one["tasks"][name]["common"]["scores"] for one in having]
            ),
        }
    }


def _summaries(records: Sequence[Record], tests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every score of one view over folds and seeds; `tests` has those of each record."""
    found: dict[str, Any] = {}
    for score, first in tests[0].items():
        if isinstance(first, float):
            values = [
                (one["fold"], one["seed"], test[score])
                for one, test in zip(records, tests, strict=True)
            ]
            found[score] = summarise(by_fold_and_seed(values)).to_json()
    if "of_trait" in tests[0]:
        found["of_trait"] = np.mean([one["of_trait"] for one in tests], axis=0).tolist()
    else:
        found["confusion"] = np.sum([one["confusion"] for one in tests], axis=0).tolist()
    return found


def _average(records: Sequence[Record], names: Sequence[str]) -> dict[str, Any]:
    """Mean accuracy of the tasks."""
    values = [
        (
            one["fold"],
            one["seed"],
            float(np.mean([_accuracy(one["tasks"][name]["scores"]) for name in names])),
        )
        for one in records
    ]
    return summarise(by_fold_and_seed(values)).to_json()


def _examined(records: Sequence[Record]) -> dict[str, float]:
    """Means of what was measured of the trained models."""
    names = [name for name, one in records[0]["examined"].items() if isinstance(one, float)]
    return {name: float(np.mean([one["examined"][name] for one in records])) for name in names}


def _vectors(records: Sequence[Record], file: Path | None) -> dict[str, Any]:
    """How many words have a vector in a file, means over the folds that say so; {} if none does."""
    found = [one["vectors"] for one in records if "vectors" in one]
    if not found:
        return {}
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return {"vectors": {"file": str(file), **means}}


def _accuracy(scores: Mapping[str, Any]) -> float:
    return float(next(scores[name] for name in MAIN.values() if name in scores))


def _answered(member: Member, records: Sequence[Record], name: str) -> dict[str, Any]:
    """Of a view in all folds: test texts, those it has an answer to, and the majority of these."""
    of_view = [one["tasks"][name] for one in records]
    return {
        "texts": sum(one["texts"]["test"] for one in of_view),
        "answered": sum(len(one["answers"]["keys"]) for one in of_view),
        "majority": float(
            np.mean(
                [
                    _majority(member, one["fold"], np.array(of["answers"]["targets"]))
                    for one, of in zip(records, of_view, strict=True)
                ]
            )
        ),
    }


def _majority(member: Member, number: int, test: NDArray[np.int64]) -> float:
    """Accuracy of the most frequent answer of the training part on targets (n, T) of a view."""
    train = member.targets[member.folds[number].train]
    if not member.traits:
        return majority_scores(train[:, 0], test[:, 0], member.outputs).wa
    usual = train.mean(axis=0) > 0.5  # (K,)
    return score_traits(test.astype(bool), np.broadcast_to(usual, test.shape)).accuracy
