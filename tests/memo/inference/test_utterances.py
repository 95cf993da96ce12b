from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import UserError
from memo.inference.utterances import LONGEST_S, RATE, Utterance, find_utterances, read_subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i>
there.

2
00:00:02,000 --> 00:00:04,000
{\\an8}Again

3
00:00:03,000 --> 00:00:03,500
inside the one before

4
01:00:05.25 --> 01:00:06.5

"""
VTT = "WEBVTT\n\nNOTE a comment\n\n00:01.000 --> 00:02.000 align:start\nWell\n"


def test_subtitles_are_utterances_in_order_without_overlap(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text(SRT)
    assert read_subtitles(path) == [
        Utterance(1.0, 2.5, "Hello there."),
        Utterance(2.5, 4.0, "Again"),
        Utterance(3605.25, 3606.5, None),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + SRT.replace("\n", "\r\n").encode())
    assert len(read_subtitles(path)) == 3
    path.write_text(VTT)
    assert read_subtitles(path) == [Utterance(1.0, 2.0, "Well")]


@pytest.mark.parametrize("content", [b"", b"no subtitles", b"\xff\xfe\x00"])
def test_what_is_no_subtitle_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.srt"):
        read_subtitles(path)


def sound(*spans: tuple[float, float], length_s: float) -> "np.ndarray":
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 1e-4, round(length_s * RATE))
    for begin_s, end_s in spans:
        part = slice(round(begin_s * RATE), round(end_s * RATE))
        signal[part] += rng.normal(0, 0.1, part.stop - part.start)
    return signal.astype(np.float32)


def test_pauses_part_utterances_and_clicks_are_none() -> None:
    heard = sound((1.0, 2.0), (2.3, 3.0), (4.0, 4.1), (5.0, 7.0), length_s=8)
    found = find_utterances(heard)
    times = [(one.begin_s, one.end_s) for one in found]
    np.testing.assert_allclose(times, [(1.0, 3.0), (5.0, 7.0)], atol=0.03)


def test_long_speech_is_cut_into_equal_pieces() -> None:
    found = find_utterances(sound((1.0, 26.0), length_s=30))
    assert len(found) == 3
    lengths = [one.end_s - one.begin_s for one in found]
    np.testing.assert_allclose(lengths, 25 / 3, atol=0.05)
    assert max(lengths) <= LONGEST_S
    assert [one.end_s for one in found[:-1]] == [one.begin_s for one in found[1:]]


@pytest.mark.parametrize("samples", [0, 100, RATE])
def test_silence_has_no_utterance(samples: int) -> None:
    assert find_utterances(np.zeros(samples, np.float32)) == []
