import numpy as np

from data_pipeline.corpora.base import Recording
from data_pipeline.features.extract import Extractor, ExtractSettings
from tests.data_pipeline.features.extracted import clip_of
from tests.data_pipeline.features.media import make_sound, make_video


def test_a_clip_has_only_what_the_recording_has(extract_settings: ExtractSettings) -> None:
    extractor = Extractor.load(extract_settings)
    text = extractor.clip(Recording("t", "train", None, text="안녕", language="ko"), None)
    assert (text.text, text.language, text.face, text.speech) == ("안녕", "ko", None, None)
    short = make_sound(np.zeros(300, np.float32))
    click = clip_of(extractor, Recording("c", "train", "c.wav", speaker="s"), short)
    assert (click.speaker, click.face, click.speech) == ("s", None, None)
    still = make_video([0, 40], [9, 9], None)
    silent = clip_of(extractor, Recording("v", "train", "v.mp4"), still)
    assert (silent.face, silent.speech, silent.source) == (None, None, "v.mp4")
