from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline.clip import Word
from data_pipeline.corpora.base import load_corpus
from data_pipeline.corpora.grid import parse_alignment, parse_word_times
from data_pipeline.corpora.source import open_source
from data_pipeline.errors import UserError


def write_grid(root: Path, clips: int) -> Path:
    (root / "clips").mkdir(parents=True)
    lines = ["clip\ttext\tword_times_s"]
    for number in range(clips):
        (root / "clips" / f"c{number}.mp4").write_bytes(b"")
        lines.append(f"c{number}\tbin blue\tsil:0.00-0.95 bin:0.95-1.18 blue:1.18-1.36")
    (root / "transcripts.tsv").write_text("\n".join(lines) + "\n")
    return root


def test_word_times_leave_silence_out() -> None:
    assert parse_word_times("c1", "sil:0-0.95 f:0.95-1.18 sp:1.18-1.2 sil:1.2-3") == (
        Word("f", 0.95, 1.18),
    )


def test_a_ninth_validates_and_speaker_comes_from_the_name(tmp_path: Path) -> None:
    recordings = load_corpus("grid").recordings(open_source(write_grid(tmp_path / "grid_s3", 18)))
    assert Counter(recording.split for recording in recordings) == {"train": 16, "valid": 2}
    assert {recording.speaker for recording in recordings} == {"s3"}
    assert recordings[0].media == "clips/c0.mp4"


def test_missing_video_and_missing_table_are_named(tmp_path: Path) -> None:
    root = write_grid(tmp_path / "grid_s3", 3)
    (root / "clips" / "c1.mp4").unlink()
    with pytest.raises(UserError, match=r"no video of clip c1 \(1 are missing\)"):
        load_corpus("grid").recordings(open_source(root))
    (root / "transcripts.tsv").unlink()
    with pytest.raises(UserError, match=r"no transcripts\.tsv"):
        load_corpus("grid").recordings(open_source(root))


def test_the_published_layout_has_many_speakers(tmp_path: Path) -> None:
    alignment = "0 23750 sil\n23750 29500 bin\n29500 30000 sp\n30000 34000 blue\n"
    names = ["s1/video/mpg_6000/bbaf2n.mpg", "s1/align/bbaf2n.align", "s2/bbaf2n.mpg"]
    for name in [*names, "alignments/s2/bbaf2n.align", "alignments/s3/bbaf2n.align"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(alignment)
    first, second = load_corpus("grid").recordings(open_source(tmp_path))
    assert (first.key, first.speaker, first.media) == ("s1-bbaf2n", "s1", names[0])
    assert (second.key, second.speaker, second.media) == ("s2-bbaf2n", "s2", names[2])
    assert first.text == "bin blue"
    assert first.words == (Word("bin", 0.95, 1.18), Word("blue", 1.2, 1.36))
    alone = load_corpus("grid").recordings(open_source(tmp_path / "s1"))
    assert [clip.key for clip in alone] == ["s1-bbaf2n"]
    (tmp_path / "alignments/s2/bbaf2n.align").unlink()
    with pytest.raises(UserError, match=r"no alignment of clip s2/bbaf2n \(1 are missing\)"):
        load_corpus("grid").recordings(open_source(tmp_path))


def test_alignments_in_another_speakers_folder_are_found(tmp_path: Path) -> None:
    """As in the record on Zenodo; of both speakers there is a clip `both`."""
    clips = {"s5": ("both", "five"), "s6": ("both", "six"), "s7": ("both", "seven")}
    folders = {"s5": "s6", "s6": "s5", "s7": "s7"}
    for speaker, names in clips.items():
        for name in names:
            video = tmp_path / "videos" / speaker / f"{name}.mpg"
            alignment = tmp_path / "alignments" / folders[speaker] / f"{name}.align"
            for path in (video, alignment):
                path.parent.mkdir(parents=True, exist_ok=True)
            video.write_bytes(b"")
            alignment.write_text(f"0 25000 {speaker}\n")
    found = load_corpus("grid").recordings(open_source(tmp_path))
    assert [(one.key, one.text) for one in found] == [
        (f"{speaker}-{name}", speaker) for speaker, names in clips.items() for name in names
    ]


@pytest.mark.parametrize("read", [parse_alignment, parse_word_times])
def test_malformed_times_are_named(read: Callable[[str, str], object]) -> None:
    with pytest.raises(UserError, match=r"bbaf2n.*: 'bin' is no word with its times"):
        read("bbaf2n", "bin")


def test_unknown_corpus_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"known are: .*grid"):
        load_corpus("gird")


@pytest.mark.corpora
def test_real_grid(shared: Path) -> None:
    recordings = load_corpus("grid").recordings(open_source(shared / "data" / "grid_s1.tar"))
    assert Counter(recording.split for recording in recordings) == {"train": 800, "valid": 100}
    for recording in recordings:
        assert recording.text == " ".join(word.text for word in recording.words)
        times = [time for word in recording.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
