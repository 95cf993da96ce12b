from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.corpora.base import Recording
from data_pipeline.features.extract import Extractor, ExtractSettings, Part
from data_pipeline.features.speech import SpeechEncoder
from data_pipeline.features.video import MediaError
from tests.data_pipeline.features.extracted import clip_of
from tests.data_pipeline.features.media import make_sound, make_video, voice


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


@pytest.mark.parametrize("length_s", [0, 1, 4])
def test_what_lies_behind_the_end_is_told_whether_pictures_are_asked_for_or_not(
    extract_settings: ExtractSettings, length_s: int
) -> None:
    """Of a video whose sound is shorter, or not there, the pictures have the last word."""
    extractor = Extractor.load(extract_settings)
    sound = voice([(0, length_s)], length_s) if length_s else None
    media = make_video(range(0, 4000, 40), [90] * 100, sound)
    spans = [(0.2, 0.8), (2.0, 3.0), (9.0, 10.0)]
    cues = [Recording(str(span), "train", "v.mp4", span=span) for span in spans]
    flaws = []
    for pictures in (True, False):
        found = {one.key: part for one, part in extractor.parts(cues, media, pictures=pictures)}
        flaws.append([isinstance(found[one.key], MediaError) for one in cues])
    assert flaws == [[False, False, True]] * 2


def test_without_pictures_none_are_decoded_where_there_is_sound(
    extract_settings: ExtractSettings,
) -> None:
    media = make_video(range(0, 4000, 40), [90] * 100, voice([(0, 4)], 4))
    cue = Recording("a", "train", "v.mp4", span=(1.0, 2.0))
    ((_, part),) = Extractor.load(extract_settings).parts([cue], media, pictures=False)
    assert isinstance(part, Part)
    assert len(part.frames) == 0


def test_rows_that_float16_cannot_hold_are_refused(extract_settings: ExtractSettings) -> None:
    def encode(sound: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.full((len(sound) // 320, 8), 1e6, np.float32)

    loud = cast("SpeechEncoder", SimpleNamespace(rows_per_s=50.0, encode=encode))
    known = Extractor.load(extract_settings)
    extractor = Extractor(None, loud, known.face_fps, known.detector)
    with pytest.raises(MediaError, match="speech rows are not finite in float16"):
        clip_of(extractor, Recording("a", "train", "a.wav"), make_sound(voice([(0, 1)], 1)))
