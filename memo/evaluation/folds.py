"""Folds without leaks: who is trained on, who chooses the model, who is tested.

The published numbers of several systems rest on a validation part that is the test part, or on
speakers that stand on both sides (MEmoBERT's public scripts collect the best test score). Here a
fold is checked before anything is trained, and refused with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from data_pipeline.errors import UserError
from memo.settings import Settings

FOLD_SEED = 12
"""Deals groups into folds, and draws the validation groups; that of the ETRI baseline."""


@dataclass(frozen=True)
class Fold:
    """Sample numbers, int64, ascending.

    Attributes:
        train: weights are fitted on these.
        valid: the step is chosen on these.
        test: scores are reported on these, and nothing else is done with them.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]


class NamedFold(Settings):
    """One fold written out: names of groups; all other groups train.

    Attributes:
        valid, test: groups (speakers, sessions or splits).
    """

    valid: tuple[str, ...]
    test: tuple[str, ...]


class FoldSettings(Settings):
    """How a corpus is divided.

    Attributes:
        by: `speaker` or `session`: groups that stay together; `text`: clips of equal text do, in a
            corpus that knows no speakers; `official`: the corpus's splits train, valid and test.
        count: folds that the groups are dealt into; null leaves one group out at a time.
        valid_groups: speakers or sessions of each fold's training part that validate instead.
        valid_share: of the training part validates instead, by `text`; and where there is no
            official split `valid`, by speaker where speakers are known.
        named: the folds written out, instead of `count`.
        shared_speakers: why speakers may stand on both sides, e.g. in an official split; empty
            refuses such folds.
    """

    by: Literal["speaker", "session", "text", "official"]
    count: int | None = Field(None, ge=2)
    valid_groups: int = Field(1, ge=1)
    valid_share: float = Field(0.1, gt=0, lt=1)
    named: tuple[NamedFold, ...] = ()
    shared_speakers: str = ""


@dataclass(frozen=True)
class Groups:
    """What is known of every sample; all lists have n entries.

    Attributes:
        speaker, session: "" where unknown.
        split: the dataset's.
        text: a name that clips of equal text share.
    """

    speaker: Sequence[str]
    session: Sequence[str]
    split: Sequence[str]
    text: Sequence[str]


def make_folds(settings: FoldSettings, groups: Groups) -> list[Fold]:
    """Divide a corpus.

    Raises:
        UserError: groups that are missing or too few, an empty part, a leak, or a setting that
            such folds do not heed.
    """
    _check_heeded(settings)
    folds = _official(settings, groups) if settings.by == "official" else _grouped(settings, groups)
    for number, fold in enumerate(folds):
        check_fold(fold, groups, settings.shared_speakers, number)
    return folds


def _check_heeded(settings: FoldSettings) -> None:
    """Refuse what would be passed over in silence."""
    how = "named" if settings.named and settings.by != "official" else f"by {settings.by}"
    for name in _IDLE[how]:
        if getattr(settings, name) != FoldSettings.model_fields[name].default:
            raise UserError(f"folds.{name}: folds {how} do not heed it; leave it out")


_IDLE = {
    "named": ("count", "valid_groups", "valid_share"),
    "by speaker": ("valid_share",),
    "by session": ("valid_share",),
    "by text": ("valid_groups",),
    "by official": ("count", "valid_groups", "named"),
}
"""How a corpus is divided -> settings that have no effect then."""


def check_fold(fold: Fold, groups: Groups, shared_speakers: str, number: int) -> None:
    """Refuse a fold that would flatter the model.

    Raises:
        UserError: an empty part, a sample or a speaker in two parts; names them.
    """
    parts = {one.name: getattr(fold, one.name) for one in fields(fold)}
    for name, part in parts.items():
        if not len(part):
            raise UserError(f"fold {number}: its {name} part is empty")
    for (one, first), (other, second) in combinations(parts.items(), 2):
        if np.array_equal(first, second):
            raise UserError(f"fold {number} leaks: its {one} and {other} parts are the same")
        both = np.intersect1d(first, second)
        if len(both):
            raise UserError(f"fold {number} leaks: {len(both)} clips are in {one} and in {other}")
        speakers = _speakers(first, groups) & _speakers(second, groups)
        if speakers and not shared_speakers:
            raise UserError(
                f"fold {number} leaks: speaker {min(speakers)!r} is in {one} and in {other} "
                f"({len(speakers)} such); divide by speaker, or give the reason in "
                "folds.shared_speakers"
            )


def _speakers(part: NDArray[np.int64], groups: Groups) -> set[str]:
    """The speakers of a part, as far as they are known."""
    return {groups.speaker[sample] for sample in part.tolist()} - {""}


def _grouped(settings: FoldSettings, groups: Groups) -> list[Fold]:
    """Folds by speaker, session or text."""
    of_sample: Sequence[str] = getattr(groups, settings.by)
    if "" in of_sample:
        raise UserError(f"folds.by={settings.by}, but clips of the corpus have no {settings.by}")
    known = sorted(set(of_sample))
    named = settings.named or _dealt(settings, known)
    unknown = {name for fold in named for name in (*fold.valid, *fold.test)} - set(known)
    if unknown:
        raise UserError(
            f"folds.named: there is no {settings.by} {min(unknown)!r}; known are: "
            f"{', '.join(known)}"
        )
    return [_fold(one, np.array(of_sample)) for one in named]


def _fold(named: NamedFold, of_sample: NDArray[np.str_]) -> Fold:
    valid, test = np.isin(of_sample, named.valid), np.isin(of_sample, named.test)
    return Fold(*(np.flatnonzero(part) for part in (~valid & ~test, valid, test)))


def _dealt(settings: FoldSettings, known: Sequence[str]) -> list[NamedFold]:
    """Deal the groups into test parts, and draw each fold's validation groups from the others."""
    count, validating = settings.count or len(known), settings.valid_groups
    if settings.by == "text":
        validating = max(round(settings.valid_share * len(known) * (count - 1) / count), 1)
    if len(known) < max(count, validating + 2):
        raise UserError(
            f"folds: {len(known)} groups ({settings.by}) are too few for {count} folds with "
            f"{validating} to validate"
        )
    order = np.random.default_rng(FOLD_SEED).permutation(len(known))
    folds = []
    for number in range(count):
        test = {known[at] for at in order[number::count]}
        others = [name for name in known if name not in test]
        if len(others) <= validating:
            raise UserError("folds.valid_groups leaves nothing to train on; lower it")
        rng = np.random.default_rng((FOLD_SEED, number))
        valid = rng.choice(len(others), validating, replace=False)
        folds.append(
            NamedFold(valid=tuple(others[at] for at in sorted(valid)), test=tuple(sorted(test)))
        )
    return folds


def _official(settings: FoldSettings, groups: Groups) -> list[Fold]:
    """The corpus's own splits; `valid` is drawn from `train` where there is none."""
    split = np.array(groups.split)
    train, valid, test = (np.flatnonzero(split == name) for name in ("train", "valid", "test"))
    if not len(train) or not len(test):
        raise UserError(
            f"folds.by=official, but the corpus has the splits {', '.join(sorted(set(split)))}; "
            "train and test are needed"
        )
    if not len(valid):
        units = np.array([groups.speaker[at] or str(at) for at in train.tolist()])
        names = np.unique(units)
        drawn = np.random.default_rng(FOLD_SEED).permutation(len(names))
        chosen = names[drawn[: max(round(len(names) * settings.valid_share), 1)]]
        valid, train = train[np.isin(units, chosen)], train[~np.isin(units, chosen)]
    return [Fold(train, valid, test)]
