"""`--valid-share`: who of a corpus without a validation part validates."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from data_pipeline.corpora.base import Recording
from data_pipeline.errors import UserError, some

SEED = 0


def hold_out(recordings: Sequence[Recording], share: float) -> list[Recording]:
    """The recordings, with some of those of the split train in a split valid.

    Who validates does not train: speakers are drawn, of recordings that name none sessions, then
    files. The same recordings give the same ones. Whom subtitles inside a file name is not known
    then; see `doubled_lines`.

    Args:
        recordings: of the whole corpus.
        share: of the speakers; at least one is drawn.

    Raises:
        UserError: the share is none, there is a split valid already, or nobody would be left.
    """
    if not 0 < share < 1:
        raise UserError(f"--valid-share: {share:g}; give more than 0 and less than 1")
    if any(one.split == "valid" for one in recordings):
        raise UserError("--valid-share: the corpus has a split valid; leave it out")
    units = sorted({_unit(one) for one in recordings if one.split == "train"})
    if len(units) < 2:
        raise UserError(
            "--valid-share: all that trains is of one speaker or recording; name speakers, or "
            "leave it out"
        )
    count = min(max(round(share * len(units)), 1), len(units) - 1)
    drawn = {units[at] for at in np.random.default_rng(SEED).permutation(len(units))[:count]}
    return [
        replace(one, split="valid") if one.split == "train" and _unit(one) in drawn else one
        for one in recordings
    ]


def doubled_lines(recordings: Iterable[Recording]) -> list[str]:
    """Of speakers who train and validate, as recordings that have been cut name them, a line."""
    splits: dict[str, set[str]] = {}
    for one in recordings:
        splits.setdefault(one.speaker, set()).add(one.split)
    both = sorted(name for name, of in splits.items() if name and {"train", "valid"} <= of)
    if not both:
        return []
    return [
        f"--valid-share: speakers who train and validate: {len(both):,} ({some(both)}); subtitles "
        "inside several files name them, some of which were held out before they were read: lay "
        "the subtitles beside the files to hold out by who speaks"
    ]


def _unit(recording: Recording) -> str:
    """What is not divided."""
    return recording.speaker or recording.session or recording.media or recording.key
