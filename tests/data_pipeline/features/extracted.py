"""A clip of a recording's bytes, without a build."""

from data_pipeline.clip import Clip
from data_pipeline.corpora.base import Recording
from data_pipeline.features.extract import Extractor, Part


def clip_of(extractor: Extractor, recording: Recording, media: bytes) -> Clip:
    ((_, part),) = extractor.parts([recording], media)
    assert isinstance(part, Part)
    return extractor.clip(recording, part)
