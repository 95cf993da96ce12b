"""The page: a dataset's facts, and the time lines of some of its clips."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from data_pipeline.clip import BadSampleError, Clip, Label
from data_pipeline.corpora.source import Source, open_source
from data_pipeline.errors import UserError
from data_pipeline.features.detector import FaceDetector, load_detector, load_same_detector
from data_pipeline.preview.clips import SampledClip, sample_clips
from data_pipeline.preview.facts import DatasetFacts, gather, shorten
from data_pipeline.preview.media import Media, decode_media
from data_pipeline.shards.dataset import DatasetInfo, FaceSchema, RowSchema
from data_pipeline.shards.place import Place
from data_pipeline.shards.reader import open_dataset
from data_pipeline.shards.remote import RANGES
from data_pipeline.whole_file import whole_file
from memo.preview.pictures import image_url
from memo.preview.tables import (
    coverage_table,
    dropped_tables,
    label_tables,
    length_histograms,
    score_histograms,
    split_table,
)
from memo.preview.tracks import Tracks, make_tracks

LONGEST_TEXT = 1000
"""Characters of a clip's text that are shown."""
MOST_NAMES = 40
"""Labels and tags of a clip that are shown."""
USUAL_FPS = 10.0
"""Pictures a second of a video whose dataset has no face rows."""


@dataclass(frozen=True)
class PreviewSettings:
    """What is shown.

    Attributes:
        dataset: where it lies.
        out: the page; must not exist.
        source: the raw corpus, to show what was seen and heard; None shows the features alone.
        clips: how many.
        seed: which.
        detector_weights: file of the detector that found the faces, if it has one.
    """

    dataset: Place
    out: Path
    source: Path | None = None
    clips: int = 12
    seed: int = 0
    detector_weights: Path | None = None


@dataclass(frozen=True)
class Raw:
    """The raw corpus, and what looked for faces in it."""

    source: Source
    detector: FaceDetector


@dataclass(frozen=True)
class ClipView:
    """A clip as the page shows it.

    Attributes:
        sampled: the clip, or why there is none.
        facts: name and value, where known.
        labels: task and value.
        tags: free tags.
        text: the beginning of its text.
        letters: how many the whole text has.
        image: `data:` URL of its image, "" without one.
        tracks: its time lines; None if nothing in it has a time.
        problems: what could not be shown.
    """

    sampled: SampledClip
    facts: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    text: str = ""
    letters: int = 0
    image: str = ""
    tracks: Tracks | None = None
    problems: tuple[str, ...] = ()


def write_preview(settings: PreviewSettings) -> None:
    """Write the page, whole or not at all.

    Raises:
        UserError: the page exists already or has no folder, clips or seed are too small, there is
            no such dataset or source, the faces were found by another detector, a shard is missing,
            or a server does not answer.
    """
    _check(settings)
    out = settings.out
    dataset = open_dataset(settings.dataset, RANGES)
    raw = _open_raw(settings, dataset.info.features.face)
    facts = gather(dataset, settings.seed)
    sampled = sample_clips(dataset, settings.clips, settings.seed)
    views = (view_clip(one, dataset.info, raw) for one in sampled)
    with whole_file(out) as file:
        parts = render(facts, views, settings.seed)
        file.writelines(part.encode("utf8", "replace") for part in parts)


def _check(settings: PreviewSettings) -> None:
    """What can be seen before anything is read."""
    out = settings.out
    if settings.clips < 1:
        raise UserError(f"--clips: {settings.clips}; a page shows 1 clip or more")
    if settings.seed < 0:
        raise UserError(f"--seed: {settings.seed}; a seed is 0 or more")
    if settings.detector_weights is not None and settings.source is None:
        raise UserError("--detector-weights: faces are looked for in the raw files; name --source")
    if out.exists():
        raise UserError(f"--out: {out} exists already; give a new file or remove it")
    if not out.parent.is_dir():
        raise UserError(f"--out: there is no folder {out.parent}; make it first")


def _open_raw(settings: PreviewSettings, face: FaceSchema | None) -> Raw | None:
    """The raw corpus, if it is to be decoded again."""
    if settings.source is None:
        return None
    weights = settings.detector_weights
    detector = load_same_detector(face, weights) if face else load_detector(None)
    return Raw(open_source(settings.source), detector)


def view_clip(sampled: SampledClip, info: DatasetInfo, raw: Raw | None) -> ClipView:
    """Draw a clip.

    Args:
        sampled: the clip.
        info: `dataset.json`.
        raw: the raw corpus, if it is to be decoded again.
    """
    clip = sampled.clip
    if clip is None:
        return ClipView(sampled, problems=(f"cannot be read: {sampled.problem}",))
    media = _media(clip, info, raw)
    image, problems = "", list(media.problems)
    if clip.image is not None:
        try:
            image = image_url(clip.image)
        except BadSampleError as error:
            problems.append(str(error))
    text = clip.text or ""
    return ClipView(
        sampled=sampled,
        facts=tuple(_facts(clip)),
        labels=tuple(
            (shorten(name), _said(label)) for name, label in islice(clip.labels.items(), MOST_NAMES)
        ),
        tags=tuple(map(shorten, clip.tags[:MOST_NAMES])),
        text=shorten(text, LONGEST_TEXT),
        letters=len(text),
        image=image,
        tracks=make_tracks(clip, info.features, media),
        problems=tuple(problems),
    )


def render(facts: DatasetFacts, views: Iterator[ClipView], seed: int) -> Iterator[str]:
    """The parts of the page.

    Args:
        facts: of the dataset.
        views: of its clips; each is drawn when the page has come to it.
        seed: that they were drawn with.
    """
    environment = Environment(
        loader=PackageLoader("memo.preview", "."),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("preview.html.j2").generate(
        info=facts.info,
        summary=list(_summary(facts)),
        tables=[split_table(facts), coverage_table(facts)],
        labels=list(label_tables(facts)),
        scores=list(score_histograms(facts)),
        lengths=list(length_histograms(facts)),
        dropped=list(dropped_tables(facts)),
        notes=[*_samples(facts), *facts.notes],
        views=views,
        seed=seed,
    )


def _media(clip: Clip, info: DatasetInfo, raw: Raw | None) -> Media:
    """What can be decoded of a clip that was made from a video or a sound file."""
    if raw is None or not clip.duration_s > 0:
        return Media()
    if not clip.source:
        return Media(problems=("does not say which file it was made from",))
    face = info.features.face
    return decode_media(clip, raw.source, raw.detector, face.fps if face else USUAL_FPS)


def _facts(clip: Clip) -> Iterator[tuple[str, str]]:
    if clip.duration_s > 0:
        yield "seconds", f"{clip.duration_s:,.4g}"
    for name in ("speaker", "session", "language", "source"):
        if value := getattr(clip, name):
            yield name, shorten(value)
    if clip.span is not None:
        yield "span", "{:,.3f} to {:,.3f} s".format(*clip.span)


def _said(label: Label) -> str:
    """A label in words."""
    if isinstance(label, list):
        return shorten(", ".join(map(str, label)))
    return f"{label:g}" if isinstance(label, float) else shorten(str(label))


def _summary(facts: DatasetFacts) -> Iterator[tuple[str, str]]:
    """What stands at the top."""
    info = facts.info
    yield "clips", f"{sum(one.samples for one in facts.splits):,}"
    yield "splits", ", ".join(info.splits)
    yield "corpus", info.corpus
    yield "licence", info.licence
    if face := info.features.face:
        yield "face", f"{_encoder(face)}, {face.fps:g} a second"
    if speech := info.features.speech:
        yield "speech", f"{_encoder(speech)}, {speech.rows_per_s:.4g} a second"


def _encoder(schema: RowSchema) -> str:
    return f"{schema.encoder}, {schema.dim} numbers"


def _samples(facts: DatasetFacts) -> Iterator[str]:
    """Splits of which not all was looked at."""
    for one in facts.splits:
        if one.looked_at < one.samples:
            yield (
                f"Of {one.name}, {one.looked_at:,} of its {one.samples:,} clips were looked at, in "
                f"{one.opened:,} of its {one.shards:,} shards; all figures of it are of these."
            )
