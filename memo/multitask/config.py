"""Settings of the systems that learn several tasks at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from memo.heads.gates import GateName
from memo.heads.sog import Place
from memo.settings import Settings


class WordSettings(Settings):
    """Texts as whole words with vectors, for the original backbones.

    Attributes:
        vectors: GloVe, word2vec or fastText file, in which a contraction may stand as its parts
            (`do` and `n't`); null trains vectors on the texts of the training parts and on
            unlabelled ones.
        width: of vectors that are trained.
        most: words of the vocabulary, the most frequent ones.
        fewest: times that a word of the vocabulary occurs in these texts. The others are all one
            unknown word, in the test part as well: a file's vectors of words that the training
            part lacks would not be there when the saved model meets new texts.
        spread: a word without a vector gets one from -spread..spread (0.25 in SoG, 0.1 in ASP-MTL).
        frozen: leave the vectors as they are.
    """

    vectors: Path | None = None
    width: int = Field(200, ge=1)
    most: int = Field(50_000, ge=1)
    fewest: int = Field(2, ge=1)
    spread: float = Field(0.25, ge=0)
    frozen: bool = True


class MamlSettings(Settings):
    """The MAML-like step (`memo/heads/maml.py`).

    Attributes:
        rate: of the inner step.
        weight: of the other task's loss at the place that the inner step leads to.
        batches: k, of the other task.
        first_order: take the inner gradient for a constant.
    """

    rate: float = Field(1e-2, gt=0)
    weight: float = Field(3.0, gt=0)
    batches: int = Field(1, ge=1)
    first_order: bool = False


class SogSettings(Settings):
    """SoG (Li et al., 2022).

    Attributes:
        gate: `none` lets nothing through.
        places: where gates stand, each once.
        published_dense: the form of the dense gate in the published code.
        training: `joint`: every step sees a batch of each task; `alternating`: one task's, in turn;
            `maml`: see `MamlSettings`. A single task is trained with `members=[NAME]`.
        widths: words that a filter sees; null: 3, 4 and 5 on words, 1 on a backbone's states.
        filters: of each width.
        dropout: of the dense vector.
        pooling: of the convolutions over the text; `max` in the paper.
        layer: of a frozen backbone, whose states are read, 0 its embeddings; null: the last.
    """

    gate: GateName | Literal["none"] = "sog"
    places: tuple[Place, ...] = Field(("convolution", "pooling", "dense"), min_length=1)
    published_dense: bool = False
    training: Literal["joint", "alternating", "maml"] = "joint"
    maml: MamlSettings = MamlSettings()
    widths: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    filters: int = Field(256, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    pooling: Literal["max", "mean"] = "max"
    layer: int | None = Field(None, ge=0)

    @field_validator("places")
    @classmethod
    def _each_once(cls, places: tuple[Place, ...]) -> tuple[Place, ...]:
        if len(set(places)) < len(places):
            raise ValueError("a place stands there twice")
        return places


class AspSettings(Settings):
    """ASP-MTL (Liu, Qiu and Huang, 2017).

    Attributes:
        sharing: `alone`: a network a task; `fs`, `sp`, `asp` (`memo/heads/asp_mtl.py`).
        encoder: of words: `lstm`, `bilstm`, `stacked` (two layers), `cnn` (MT-CNN), `dnn` (means of
            vectors, MT-DNN). A backbone has adapters instead: one shared, one a task.
        upper_layers: of a backbone, those that have adapters; what lies below reads a text once for
            the shared and the private encoder. Null: all.
        hidden: width of an encoder's state, of one direction; of `cnn` filters of each of 3 widths.
        adversary: lambda, weight of the gradient reversal.
        difference: gamma, weight of the orthogonality.
        normalised: form of the orthogonality.
        steepness: of the reversal's growth; 0 has it whole from the beginning, as in the paper.
        unlabelled: let unlabelled texts enter the adversarial losses.
        sampling: `uniform`: a step is of one task, drawn; `proportional`: drawn by the tasks'
            sizes; `all`: a step has a batch of each. Null: `all` for `asp`, whose discriminator
            learns from steps of one task only which task came last; else `uniform`.
        weights: task -> alpha, factor of its loss; 1 where it is not named.
        dropout: before the output layer, of a task that is left out as well.
        one_output: tasks of as many classes share one output layer (MAN, Chen and Cardie, 2018);
            each has its own in the paper.
        leave_out: a task that the others are trained without; it is then learned on the frozen
            shared encoder, alone and with a private one beside it.
    """

    sharing: Literal["alone", "fs", "sp", "asp"] = "asp"
    encoder: Literal["lstm", "bilstm", "stacked", "cnn", "dnn"] = "lstm"
    upper_layers: int | None = Field(None, ge=1)
    hidden: int = Field(200, ge=1)
    adversary: float = Field(0.05, ge=0)
    difference: float = Field(0.01, ge=0)
    normalised: bool = False
    steepness: float = Field(0.0, ge=0)
    unlabelled: bool = False
    sampling: Literal["uniform", "proportional", "all"] | None = None
    weights: Mapping[str, Annotated[float, Field(ge=0)]] = {}
    dropout: float = Field(0.0, ge=0, lt=1)
    one_output: bool = False
    leave_out: str | None = None


class ImageSettings(Settings):
    """The network that reads images.

    Attributes:
        model: a name of timm's.
        weights: safetensors or torch file; null draws them anew.
        size: height and width of the images, in pixels.
        frozen: leave the network as it is; images are then read once.
    """

    model: str = "densenet121"
    weights: Path | None = None
    size: int = Field(160, ge=32)
    frozen: bool = False

    @model_validator(mode="after")
    def _frozen_weights(self) -> Self:
        if self.frozen and self.weights is None:
            raise ValueError("frozen=true needs weights that are worth keeping: give weights")
        return self


class TrimodalSettings(Settings):
    """Three modalities (Page Fortin and Chaib-draa, 2019).

    Attributes:
        fusion: `seven`, `concat`, `mean`, `late` (`memo/multitask/trimodal.py`).
        lost: share of the training samples that lose one of their modalities.
        image: reads images, of an original backbone.
        width: of each modality's state.
        tag_width: of a tag's vector.
        longest_tags: tags of a post that are read.
        filters: of each width of the text's convolutions.
        dropout: of the word vectors.
    """

    fusion: Literal["seven", "concat", "mean", "late"] = "seven"
    lost: float = Field(0.0, ge=0, le=1)
    image: ImageSettings = ImageSettings()
    width: int = Field(300, ge=1)
    tag_width: int = Field(250, ge=1)
    longest_tags: int = Field(10, ge=1)
    filters: int = Field(100, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
