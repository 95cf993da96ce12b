"""How well each objective does under each set of visible modalities: `memo evaluate`.

The hidden words and rows of a clip depend on (seed, repetition, sample) alone, so they are the same
under every set of visible modalities, and the same for every checkpoint of a run. A chosen word is
always replaced by [MASK]: one left in sight, as a tenth is in training, would be counted as
predicted.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import ceil
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from data_pipeline.clip import BadSampleError
from data_pipeline.errors import UserError, check_place
from data_pipeline.packing import pack
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import Split, open_dataset
from data_pipeline.whole_file import write_atomically
from memo.config import PretrainConfig
from memo.evaluation.metrics import Condition, Tally, new_tally
from memo.objectives.base import MODALITIES, Modality
from memo.objectives.masking import MaskedClip
from memo.objectives.pretraining_model import PretrainingModel
from memo.objectives.transform import PretrainTransform
from memo.tokenizer import Tokenizer
from memo.training.checkpoint import check_encoders, load_model, open_checkpoint

MASKED_CLIPS = 500
"""Masked copies of clips per objective that a small split is repeated to reach.

A clip hides about one word in seven; 500 copies give an accuracy a standard error of 2 points at
most.
"""


@dataclass(frozen=True)
class ObjectiveReport:
    """One objective on one split.

    Attributes:
        name: of the objective.
        hidden: the modality that it hides.
        conditions: one for each set of visible modalities.
    """

    name: str
    hidden: Modality
    conditions: tuple[Condition, ...]

    def table(self) -> Table:
        """Rows: sets of visible modalities; columns: figures, then baselines."""
        unit = "words" if self.hidden == "text" else "rows"
        table = Table("visible", "clips", unit, title=f"{self.name}: {self.hidden} hidden")
        alone = self.conditions[0]  # every clip of another condition is in this one
        for name in alone.figures:
            table.add_column(name, justify="right")
        for name in alone.baselines:
            table.add_column(f"{next(iter(alone.figures))}: {name}", justify="right", style="dim")
        for one in self.conditions:
            values = (*one.figures.values(), *one.baselines.values())
            counts = (" + ".join(one.visible), f"{one.clips:,}", f"{one.positions:,}")
            table.add_row(*counts, *(f"{value:.4f}" for value in values))
        return table


@dataclass(frozen=True)
class EvaluationReport:
    """All objectives on one split.

    Attributes:
        split: name of the split.
        clips: samples in it; a condition's `clips` says how many have its modalities.
        repeats: masked copies of each clip.
        objectives: in the order of the run's settings.
    """

    split: str
    clips: int
    repeats: int
    objectives: tuple[ObjectiveReport, ...]

    def to_json(self) -> str:
        """All figures as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def tables(self) -> list[Table]:
        """A table for each objective."""
        return [objective.table() for objective in self.objectives]


@dataclass(frozen=True)
class _Work:
    """A handful of clips to mask and score: which modality, which repetition, which samples."""

    hidden: Modality
    repetition: int
    samples: range


@torch.no_grad()
def evaluate(
    model: PretrainingModel,
    tokenizer: Tokenizer,
    config: PretrainConfig,
    split: Split,
    repeats: int | None = None,
    *,
    show_progress: bool = False,
) -> EvaluationReport:
    """Mask every clip of a split and score each objective under each set of visible modalities.

    A clip counts under a set of modalities if it has all of them.

    Args:
        model: with weights, on the device to use; left in evaluation mode.
        tokenizer: the checkpoint's.
        config: the run's; limits, masking and seed are used, `masking.drop_probability` is not.
        split: what to evaluate on; every clip is used exactly `repeats` times an objective.
        repeats: masked copies of each clip; None takes 1 for 500 clips and more, and for fewer as
            many as make up 500.
        show_progress: draw a progress bar on stderr.

    Raises:
        UserError: a sample cannot be read.
    """
    repeats = repeats or ceil(MASKED_CLIPS / len(split))
    ratios = {name: one.ratio for name, one in config.objectives.items()}
    transform = PretrainTransform(
        tokenizer, config.limits, config.masking, model.by_name, ratios, config.seed
    )
    scorer = _Scorer(model.eval(), transform)
    at_once = max(config.batch.token_budget // config.limits.longest, 1)
    work = list(_work(transform.modalities, repeats, len(split), at_once))
    console = Console(stderr=True)
    for one in track(
        work, "evaluating", console=console, transient=True, disable=not show_progress
    ):
        scorer.add(_masked(transform, split, one), one.hidden)
    return EvaluationReport(split.name, len(split), repeats, scorer.reports())


def visible_sets(hidden: Modality) -> list[tuple[Modality, ...]]:
    """The sets of modalities that contain the hidden one: alone, with each other one, all."""
    others = [name for name in MODALITIES if name != hidden]
    chosen = [{hidden, *some} for size in range(3) for some in combinations(others, size)]
    return [tuple(name for name in MODALITIES if name in some) for some in chosen]


def _work(
    modalities: Sequence[Modality], repeats: int, samples: int, at_once: int
) -> Iterator[_Work]:
    for hidden in modalities:
        for repetition in range(repeats):
            for begin in range(0, samples, at_once):
                yield _Work(hidden, repetition, range(begin, min(begin + at_once, samples)))


def _masked(transform: PretrainTransform, split: Split, work: _Work) -> list[MaskedClip]:
    """The clips of one piece of work that have something to predict."""
    clips = []
    for sample in work.samples:
        try:
            clip = transform.mask(split.read(sample), sample, work.repetition, work.hidden)
        except BadSampleError as error:
            shard, key = split.location(sample)
            raise UserError(f"{shard}, {key}: {error}; see 'memo data check'") from None
        clips.append(clip)
    return [clip for clip in clips if clip.hidden is not None]


class _Scorer:
    """Runs the model and adds each objective's scores up, by set of visible modalities.

    Args:
        model: in evaluation mode.
        transform: makes examples of masked clips.
    """

    def __init__(self, model: PretrainingModel, transform: PretrainTransform) -> None:
        self._model = model
        self._transform = transform
        self._tallies: dict[str, dict[tuple[Modality, ...], Tally]] = {
            name: {
                visible: new_tally(objective, model.backbone)
                for visible in visible_sets(objective.modality)
            }
            for name, objective in model.by_name.items()
        }

    def add(self, clips: Sequence[MaskedClip], hidden: Modality) -> None:
        """Score clips of which this modality is hidden under every set of visible ones."""
        for visible in visible_sets(hidden):
            shown = [clip.keep(visible) for clip in clips if set(visible) <= set(clip.present)]
            if shown:
                self._score(shown, hidden, visible)

    def reports(self) -> tuple[ObjectiveReport, ...]:
        """The figures of all that was added, in the order of the objectives."""
        return tuple(
            ObjectiveReport(
                name,
                objective.modality,
                tuple(tally.condition(visible) for visible, tally in self._tallies[name].items()),
            )
            for name, objective in self._model.by_name.items()
        )

    def _score(
        self, clips: Sequence[MaskedClip], hidden: Modality, visible: tuple[Modality, ...]
    ) -> None:
        backbone = self._model.backbone
        examples = [self._transform.example(clip) for clip in clips]
        batch = pack(
            examples, self._transform.specs, backbone.spec.face_dim, backbone.spec.speech_dim
        ).to(next(backbone.parameters()).device)
        states = backbone(batch)  # (N, D)
        for name, objective in self._model.by_name.items():
            if objective.modality == hidden:
                targets = batch.targets[name]
                at_targets = states.index_select(0, targets.positions)
                scores = objective.scores(at_targets, targets.values, backbone)
                self._tallies[name][visible].add(scores, clips)


def run_evaluation(checkpoint: Path, dataset: Place, split: str, json_out: Path | None) -> None:
    """The `memo evaluate` command: print a table for each objective, and write the figures.

    Args:
        checkpoint: folder of a checkpoint or of a run.
        dataset: folder with `dataset.json`, or its URL.
        split: its name.
        json_out: where to write the report as JSON; None does not.

    Raises:
        UserError: a checkpoint or dataset that cannot be used, or that do not fit each other.
    """
    check_place("--json", json_out)
    found, opened = open_checkpoint(checkpoint), open_dataset(dataset)
    check_encoders(found, opened.info.features, dataset, ("face", "speech"))
    model, tokenizer = load_model(found)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    report = evaluate(model, tokenizer, found.config, opened.split(split), show_progress=True)
    console = Console()
    console.print(f"{split}: {report.clips:,} clips, each masked {report.repeats} times")
    for table in report.tables():
        console.print(table)
    if json_out is not None:
        write_atomically(json_out, report.to_json().encode())
