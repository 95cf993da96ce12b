"""Posts and clips of three modalities: what is there of each, and the states of what is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_pipeline.clip import FACE, SPEECH, BadSampleError, Clip
from data_pipeline.packing import Example, PackedBatch, Targets, TargetSpec
from memo.config import Limits, ModelSpec
from memo.heads.base import LABEL
from memo.heads.trimodal import PooledTags, PooledText
from memo.model.inputs import cut_rows
from memo.model.memobert import MemoBert
from memo.multitask.images import ImageNetwork, decode_image
from memo.multitask.texts import Cut, TextStates, fill_up
from memo.objectives.masking import generator
from memo.words.vocabulary import PAD, UNKNOWN, Vocabulary

PRESENT, IMAGE, TAGS = "present", "image", "tags"
"""Names in a batch: which modalities a sample has; images, or rows of them; numbers of tags."""
POST = ("image", "text", "tags")
CLIP = ("text", "face", "speech")


@dataclass(frozen=True)
class Losing:
    """Modalities that training samples lose for good, to see what that does.

    Attributes:
        share: of the samples; each loses one of those it has, unless it has no other.
        seed: of the draw.
    """

    share: float
    seed: int

    def keep(self, present: NDArray[np.bool_], sample: int) -> NDArray[np.bool_]:
        """What is left of a sample's modalities, bool (M,)."""
        rng = generator(self.seed, 0, sample)
        if rng.random() >= self.share or present.sum() < 2:
            return present
        left = present.copy()
        left[rng.choice(np.flatnonzero(present))] = False
        return left


class PostTransform:
    """A post -> words, tags, and its image; a post without words stands there as one PAD.

    Args:
        cut: text -> word numbers.
        tags: the tags' vocabulary, a word each.
        longest_tags: tags of a post that are read.
        labels: int64 (n,), by the sample's number in the stream.
        rows: float32 (n, D), of the images; None where they are decoded.
        size: of decoded images, in pixels.
        losing: what is left out.
    """

    def __init__(
        self,
        cut: Cut,
        tags: Vocabulary,
        longest_tags: int,
        labels: NDArray[np.int64],
        rows: NDArray[np.float32] | None,
        size: int,
        losing: Losing,
    ) -> None:
        self._cut = cut
        self._tags = tags
        self._longest_tags = longest_tags
        self._labels = labels
        self._rows = rows
        self._size = size
        self._losing = losing

    def __call__(self, clip: Clip, sample: int, epoch: int) -> Example:
        """The example of a post.

        Raises:
            BadSampleError: an image that does not decode, or nothing at all.
        """
        del epoch
        has = [clip.image is not None, bool(clip.text and clip.text.strip()), bool(clip.tags)]
        if not any(has):
            raise BadSampleError("", "has no image, no text and no tag")
        present = self._losing.keep(np.array(has), sample)
        words = self._cut(clip.text or "") if present[1] else np.array([PAD])
        tags = list(clip.tags[: self._longest_tags]) if present[2] else []
        numbers = [self._tag_number(tag.lower()) for tag in tags]
        image = self._image(clip, sample) if present[0] else None
        beside = {
            LABEL: _beside(np.array([[self._labels[sample]]])),
            PRESENT: _beside(present[None]),
            TAGS: _beside(np.array(numbers, dtype=np.int64)),
        }
        if image is not None:
            beside[IMAGE] = _beside(image[None])
        return _example(sample, clip.key, words, beside)

    def _tag_number(self, tag: str) -> int:
        """Of a tag, written `#so` or `so`."""
        number = self._tags.number(tag)
        return self._tags.number(tag.removeprefix("#")) if number == UNKNOWN else number

    def _image(self, clip: Clip, sample: int) -> NDArray[np.generic]:
        assert clip.image is not None, "it is present"
        if self._rows is None:
            return decode_image(clip.image, self._size)
        row: NDArray[np.float32] = self._rows[sample]
        if np.isnan(row).any():
            raise BadSampleError("jpg", "does not decode")
        return row


class ClipTransform:
    """A clip -> its text, face and speech rows, as the backbone takes them.

    Args:
        cut: text -> [CLS] pieces [SEP].
        limits: longest rows.
        spec: the model's sizes.
        labels: int64 (n,), by the sample's number in the stream.
        modalities: those that the task has.
        losing: what is left out.
    """

    def __init__(
        self,
        cut: Cut,
        limits: Limits,
        spec: ModelSpec,
        labels: NDArray[np.int64],
        modalities: Sequence[str],
        losing: Losing,
    ) -> None:
        self._cut = cut
        self._limits = limits
        self._spec = spec
        self._labels = labels
        self._has = np.array([name in modalities for name in CLIP])
        self._losing = losing

    def __call__(self, clip: Clip, sample: int, epoch: int) -> Example:
        """The example of a clip.

        Raises:
            BadSampleError: rows of another size than the model's, or nothing at all.
        """
        del epoch
        limits, spec = self._limits, self._spec
        face = cut_rows(FACE, clip.face, limits.face, spec.face_dim)
        speech = cut_rows(SPEECH, clip.speech, limits.speech, spec.speech_dim)
        text = self._cut(clip.text) if clip.text and clip.text.strip() else np.zeros(0, np.int64)
        present = np.array([len(part) > 0 for part in (text, face, speech)]) & self._has
        if not present.any():
            raise BadSampleError("", "has no modality")
        present = self._losing.keep(present, sample)
        lengths = [len(part) for part in (text, face, speech)] * present
        beside = {
            LABEL: _beside(np.array([[self._labels[sample]]])),
            PRESENT: _beside(present[None]),
        }
        return _example(
            sample, clip.key, text[: lengths[0]], beside, face[: lengths[1]], speech[: lengths[2]]
        )


def _beside(values: NDArray[np.generic]) -> Targets:
    """Values that stand beside a sample, at its first place."""
    return Targets(np.zeros(len(values), dtype=np.int64), values)


_NO_ROWS = np.zeros((0, 0), np.float16)


def _example(
    sample: int,
    key: str,
    text: NDArray[np.int64],
    beside: Mapping[str, Targets],
    face: NDArray[np.float16] = _NO_ROWS,
    speech: NDArray[np.float16] = _NO_ROWS,
) -> Example:
    return Example(
        sample=sample,
        key=key,
        text_ids=text,
        face=face,
        face_masked=np.zeros(len(face), dtype=bool),
        speech=speech,
        speech_masked=np.zeros(len(speech), dtype=bool),
        targets=beside,
    )


def post_specs(image: TargetSpec) -> dict[str, TargetSpec]:
    """What stands beside posts; `image` is the form of one of them."""
    return {**clip_specs(), TAGS: TargetSpec(torch.int64, ()), IMAGE: image}


def clip_specs() -> dict[str, TargetSpec]:
    """What stands beside clips."""
    label, present = TargetSpec(torch.int64, (1,)), TargetSpec(torch.bool, (3,))
    return {LABEL: label, PRESENT: present}


def owners(batch: PackedBatch, name: str) -> Tensor:
    """Which sequence of the batch each of some values stands beside, int64 (M,)."""
    positions = batch.targets[name].positions
    return torch.searchsorted(batch.cu_seqlens.long(), positions, right=True) - 1


class PostEncoder(nn.Module):
    """States of image, text and tags, (S, 3, width); zero where there is nothing.

    Args:
        images: the network; None where rows of a frozen one are given.
        image_width: D of its rows.
        words: vectors of words.
        tags: how many there are.
        tag_width: of a tag's vector.
        filters: of each width of the text's convolutions.
        width: of the states.
        dropout: of the word vectors.
    """

    def __init__(
        self,
        images: ImageNetwork | None,
        image_width: int,
        words: TextStates,
        tags: int,
        tag_width: int,
        filters: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.images = images
        self.image_norm = nn.LayerNorm(image_width)
        self.image_output = nn.Linear(image_width, width)
        self.words = words
        self.text = PooledText(words.width, filters, width, dropout)
        self.tag_vectors = nn.Embedding(tags, tag_width, padding_idx=PAD)
        self.tags = PooledTags(tag_width, width)

    def forward(self, batch: PackedBatch) -> Tensor:
        """See the class."""
        samples = len(batch.seqlens)
        text = self.text(*self.words(batch))[:samples]
        parts = torch.stack([self._image(batch), text, self._tags(batch)], dim=1)
        return parts * batch.targets[PRESENT].values[:, :, None].to(parts.dtype)

    def _image(self, batch: PackedBatch) -> Tensor:
        rows = batch.targets[IMAGE].values
        if self.images is not None:
            rows = self.images(rows)
        states: Tensor = self.image_output(self.image_norm(rows.to(self.image_output.weight.dtype)))
        empty = states.new_zeros(len(batch.seqlens), states.shape[1])
        return empty.index_copy(0, owners(batch, IMAGE), states)

    def _tags(self, batch: PackedBatch) -> Tensor:
        samples = len(batch.seqlens)
        vectors = self.tag_vectors(batch.targets[TAGS].values)  # (M, D)
        counts = torch.bincount(owners(batch, TAGS), minlength=max(samples, 1))
        filled = fill_up(vectors, counts, int(counts.max()) + 1)  # a tag at least
        states: Tensor = self.tags(filled, counts.clamp(min=1))
        return states[:samples]


class ClipEncoder(nn.Module):
    """States of text, face and speech, each read by the backbone on its own, (S, 3, width).

    Args:
        backbone: the model.
        width: of the states.
    """

    def __init__(self, backbone: MemoBert, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.outputs = nn.ModuleList(nn.Linear(backbone.spec.hidden, width) for _ in CLIP)

    def forward(self, batch: PackedBatch) -> Tensor:
        """See the class."""
        states = [output(self._mean(batch, at)) for at, output in enumerate(self.outputs)]
        parts = torch.stack(states, dim=1)  # (S, 3, width)
        return parts * batch.targets[PRESENT].values[:, :, None].to(parts.dtype)

    def _mean(self, batch: PackedBatch, modality: int) -> Tensor:
        """Mean hidden state of one modality of each sample, (S, D)."""
        alone, owner = only(batch, modality)
        hidden = self.backbone(alone)  # (N', D)
        zeros = hidden.new_zeros(len(batch.seqlens), hidden.shape[1])
        sums: Tensor = zeros.index_add(0, owner, hidden)
        counts = torch.bincount(owner, minlength=len(batch.seqlens)).clamp(min=1)
        return sums / counts[:, None]


def only(batch: PackedBatch, modality: int) -> tuple[PackedBatch, Tensor]:
    """The tokens of one modality, and which sample each is of.

    Args:
        batch: S sequences of text, face and speech.
        modality: number in `CLIP`.

    Returns:
        A batch of the sequences that have it, and int64 (N',), numbers below S.
    """
    sizes = (len(batch.text_ids), len(batch.face), len(batch.speech))
    ends = np.cumsum(sizes)
    first, end = int(ends[modality] - sizes[modality]), int(ends[modality])
    chosen = torch.nonzero((batch.order >= first) & (batch.order < end))[:, 0]  # (N',)
    owner = torch.searchsorted(batch.cu_seqlens[1:].long(), chosen, right=True)
    counts = torch.bincount(owner, minlength=len(batch.seqlens))
    seqlens = tuple(counts[counts > 0].tolist())
    starts = torch.tensor([0, *np.cumsum(seqlens)], dtype=torch.int32, device=owner.device)
    emptied = {
        name: getattr(batch, name)[:0] if number != modality else getattr(batch, name)
        for number, names in enumerate(_FIELDS)
        for name in names
    }
    order = torch.arange(len(chosen), device=owner.device)
    alone = replace(batch, **emptied, order=order, cu_seqlens=starts, seqlens=seqlens)
    return alone, owner


_FIELDS: Sequence[tuple[str, ...]] = (
    ("text_ids", "text_positions"),
    ("face", "face_positions", "face_masked"),
    ("speech", "speech_positions", "speech_masked"),
)
"""Of each of `CLIP`."""
