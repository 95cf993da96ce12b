"""Trained systems in use: answers to texts, posts and clips, and the states that tasks share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.packing import Example, PackedBatch, pack
from data_pipeline.shards.dataset import FeatureSchema
from memo.multitask.artifact import Saved, read_system
from memo.multitask.asp_mtl import AspSystem
from memo.multitask.images import ImageNetwork, decode_image
from memo.multitask.posts import CLIP, ClipTransform, Losing, PostTransform, clip_specs, post_specs
from memo.multitask.texts import TextTransform, label_specs
from memo.multitask.trimodal import TrimodalSystem, image_form, pattern_names


class TrainedTexts:
    """A system of texts, ready for use.

    Args:
        saved: as a run has left it.

    Attributes:
        answers: task -> names of its classes or traits.
        several: tasks whose texts may have several of them, or none: those of traits.
    """

    def __init__(self, saved: Saved) -> None:
        self.answers: Mapping[str, Sequence[str]] = saved.answers
        self.several = frozenset(one["name"] for one in saved.tasks if one["multi_label"])
        self._saved = saved

    @torch.no_grad()
    def predict(self, texts: Sequence[str], task: str) -> list[dict[str, float]]:
        """Probabilities of the classes, or of each trait, of some texts.

        Raises:
            UserError: there is no such task.
            BadSampleError: a text is empty.
        """
        number = self._number(task)
        (found,) = self._saved.model.answers(self._batch(texts, number), number).values()
        return _by_name(self.answers[task], found)

    @torch.no_grad()
    def shared_states(self, texts: Sequence[str], task: str) -> Tensor:
        """What the shared encoder of an ASP-MTL network says of some texts, (n, d): features.

        Raises:
            UserError: there is no such task, or nothing is shared.
            BadSampleError: a text is empty.
        """
        model = self._saved.model
        if not isinstance(model, AspSystem) or model.network.shared is None:
            raise UserError("this system has no shared encoder")
        return model.network.shared_states(self._batch(texts, self._number(task)))

    def _number(self, task: str) -> int:
        if task not in self.answers:
            raise UserError(f"there is no task {task!r}; known are: {', '.join(self.answers)}")
        return list(self.answers).index(task)

    def _batch(self, texts: Sequence[str], task: int) -> PackedBatch:
        targets = np.zeros((len(texts), 1), dtype=np.int64)
        transform = TextTransform(self._saved.cut(task), targets, *self._saved.dims)
        clips = [Clip(str(at), text=text) for at, text in enumerate(texts)]
        examples = [transform(clip, at, 0) for at, clip in enumerate(clips)]
        return pack(examples, label_specs(1), *self._saved.dims)


class TrainedTrimodal:
    """A system of posts or clips, ready for use.

    Args:
        saved: as a run has left it.

    Attributes:
        classes: their names.
        features: what made the rows of clips; None of a system of posts.
        limits: what is read of a clip.
    """

    def __init__(self, saved: Saved) -> None:
        self.classes: Sequence[str] = next(iter(saved.answers.values()))
        backbone = saved.backbone
        self.features: FeatureSchema | None = backbone.checkpoint.features if backbone else None
        self.limits = saved.config.limits
        self._saved = saved
        self._images: ImageNetwork | None = None
        settings = saved.config.trimodal.image
        if saved.backbone is None and settings.frozen:
            self._images = ImageNetwork(settings).eval()

    @torch.no_grad()
    def predict(self, clips: Sequence[Clip]) -> list[dict[str, float]]:
        """Probabilities of the classes by what is there of each.

        Args:
            clips: with any of `image`, `text` and `tags`; of a system with a backbone any of
                `text`, `face` and `speech`.

        Raises:
            BadSampleError: nothing is there, or an image that does not decode.
        """
        model = self._saved.model
        assert isinstance(model, TrimodalSystem), "it was opened as one"
        batch = self._posts(clips) if self._saved.backbone is None else self._clips(clips)
        whole, *_ = pattern_names(model.network.modalities)
        return _by_name(self.classes, model.answers(batch, 0)[whole])

    def _posts(self, posts: Sequence[Clip]) -> PackedBatch:
        config, labels = self._saved.config.trimodal, np.zeros(len(posts), dtype=np.int64)
        rows = None
        if self._images is not None:
            rows = np.zeros((len(posts), self._images.width), np.float32)
            for at, post in enumerate(posts):
                if post.image is not None:
                    image = torch.from_numpy(decode_image(post.image, config.image.size))
                    rows[at] = self._images(image[None])[0].numpy()
        transform = PostTransform(
            self._saved.cut(0),
            self._saved.tags,
            config.longest_tags,
            labels,
            rows,
            config.image.size,
            _NOTHING_LOST,
        )
        specs = post_specs(image_form(config.image, rows))
        return pack(_examples(transform, posts), specs, *self._saved.dims)

    def _clips(self, clips: Sequence[Clip]) -> PackedBatch:
        saved, labels = self._saved, np.zeros(len(clips), dtype=np.int64)
        assert saved.backbone is not None, "clips are read with one"
        limits, spec = saved.config.limits, saved.backbone.spec
        transform = ClipTransform(saved.cut(0), limits, spec, labels, CLIP, _NOTHING_LOST)
        return pack(_examples(transform, clips), clip_specs(), *saved.dims)


_NOTHING_LOST = Losing(share=0.0, seed=0)


def _examples(transform: PostTransform | ClipTransform, clips: Sequence[Clip]) -> list[Example]:
    return [transform(clip, at, 0) for at, clip in enumerate(clips)]


def _by_name(names: Sequence[str], rows: Tensor) -> list[dict[str, float]]:
    """Rows (n, C) as what each name has."""
    return [dict(zip(names, row, strict=True)) for row in rows.tolist()]


def open_system(
    folder: Path, pretrained: Path | None = None, images: Path | None = None
) -> TrainedTexts | TrainedTrimodal:
    """A system of whichever kind.

    Args:
        folder: `folds/*/system` of a run.
        pretrained: the backbone's checkpoint, where it is not where it was.
        images: likewise the weights of a frozen image network.

    Raises:
        UserError: there is none, it was altered, or the backbone or a frozen image network is
            another.
    """
    saved = read_system(folder, pretrained, images)
    return (
        TrainedTrimodal(saved) if isinstance(saved.model, TrimodalSystem) else TrainedTexts(saved)
    )


def open_texts(folder: Path, pretrained: Path | None = None) -> TrainedTexts:
    """A system of texts, SoG or ASP-MTL.

    Args:
        folder: `folds/*/system` of a run.
        pretrained: the backbone's checkpoint, where it is not where it was.

    Raises:
        UserError: there is none, it was altered, is of posts, or the backbone is another.
    """
    opened = open_system(folder, pretrained)
    if not isinstance(opened, TrainedTexts):
        raise UserError(f"{folder} is a system of posts or clips, not of texts")
    return opened


def open_trimodal(
    folder: Path, pretrained: Path | None = None, images: Path | None = None
) -> TrainedTrimodal:
    """A system of posts or clips.

    Args:
        folder: `folds/*/system` of a run.
        pretrained: the backbone's checkpoint, where it is not where it was.
        images: likewise the weights of a frozen image network.

    Raises:
        UserError: there is none, it was altered, is of texts, or the backbone or a frozen image
            network is another.
    """
    opened = open_system(folder, pretrained, images)
    if not isinstance(opened, TrainedTrimodal):
        raise UserError(f"{folder} is a system of texts, not of posts or clips")
    return opened
