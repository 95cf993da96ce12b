"""The cross-modal transformer: three embedders and one encoder, after MEmoBERT (ICASSP 2022)."""

import torch
from torch import Tensor, nn

from data_pipeline.packing import PackedBatch
from memo.config import ModelSpec
from memo.model.attention import Backend
from memo.model.embedders import FrameEmbedder, TextEmbedder
from memo.model.encoder import Encoder

FRAME_POSITION_STD = 0.4
"""Initial standard deviation of the face and speech positions.

They are added to LayerNormed features, whose values have standard deviation 1; at BERT's 0.02 a
frame's place is invisible for the first hundreds of steps (docs/results.md, frame positions).
"""


class MemoBert(nn.Module):
    """Hidden states of packed `[CLS] text [SEP] face speech` sequences, any subset of them present.

    Weights are drawn from normal(0, init_std) with torch's default generator, those of the frames'
    positions from normal(0, `FRAME_POSITION_STD`); biases are zero.

    Args:
        spec: the model's sizes.
        attention: backend of `packed_attention`.
        recompute: activation checkpointing of the encoder's layers.

    Attributes:
        text, face, speech: the embedders.
        encoder: the transformer.
    """

    def __init__(
        self, spec: ModelSpec, attention: Backend = "auto", recompute: bool = False
    ) -> None:
        super().__init__()
        self.spec = spec
        self.text = TextEmbedder(spec)
        self.face = FrameEmbedder(spec, spec.face_dim, spec.max_face, "face")
        self.speech = FrameEmbedder(spec, spec.speech_dim, spec.max_speech, "speech")
        self.encoder = Encoder(spec, attention, recompute)
        initialise(self, spec.init_std)
        for embedder in (self.face, self.speech):
            nn.init.normal_(embedder.position.weight, std=FRAME_POSITION_STD)

    def embed(self, batch: PackedBatch) -> Tensor:
        """The encoder's input (N, D), in sequence order."""
        text = self.text(batch.text_ids, batch.text_positions)
        face = self.face(batch.face, batch.face_positions, batch.face_masked)
        speech = self.speech(batch.speech, batch.speech_positions, batch.speech_masked)
        return torch.cat((text, face, speech)).index_select(0, batch.order)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Hidden states of all tokens.

        Args:
            batch: S packed sequences of N tokens; N may be 0, and every parameter still gets a
                gradient.

        Returns:
            (N, D).
        """
        return self.states(batch)[-1]

    def states(self, batch: PackedBatch) -> list[Tensor]:
        """The embeddings and every layer's output, (N, D) each; see `forward`."""
        return self.encoder.states(self.embed(batch), batch.cu_seqlens, batch.seqlens)


def initialise(module: nn.Module, std: float) -> None:
    """BERT's initialisation: normal(0, std) weights, zero biases, LayerNorm at one and zero."""
    norms = {id(p) for m in module.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    for name, parameter in module.named_parameters():
        if id(parameter) in norms:
            nn.init.constant_(parameter, float(name.endswith("weight")))
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=std)
