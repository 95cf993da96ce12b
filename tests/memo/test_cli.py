import shutil
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from data_pipeline.build import BuildSettings
from data_pipeline.build_report import BuildOrigin, BuildReport, BuildTally
from data_pipeline.corpora.demo import write_demo
from data_pipeline.errors import UserError
from data_pipeline.filters import Filters
from memo.cli import main
from memo.data_cli import data
from memo.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    write_demo(folder, train=20, valid=10)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of the `memo` command."""
    monkeypatch.setattr(sys, "argv", ["memo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_info_says_what_the_dataset_holds(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "data", "info", str(demo)) == 0
    lines = dict(line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines())
    found = {key.strip(): value.strip() for key, value in lines.items()}
    assert found["train: clips"] == "20"
    assert found["valid: clips"] == "10"


def test_check_fails_on_a_damaged_shard(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "data", "check", str(demo)) == 0
    shard = next(demo.glob("valid-*.tar"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    before = shard.read_bytes()
    shard.write_bytes(content)
    assert run(monkeypatch, "data", "check", str(demo)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(shard.name in line and ", byte " in line for line in lines)
    assert any(line.split() == ["changed", "since", "it", "was", "written", "2"] for line in lines)
    assert "2 problems found" in lines[-1]
    shard.write_bytes(before)


def test_repair_saves_what_is_sound(
    demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged, out = shutil.copytree(demo, tmp_path / "damaged"), tmp_path / "out"
    shard = next(damaged.glob("train-*.tar"))
    shard.write_bytes(shard.read_bytes().replace(b'"text"', b'"te\xff\xff"', 1))
    assert run(monkeypatch, "data", "repair", str(damaged), "--out", str(out)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["train", "19", "0", "0", "1"]
    assert lines[-1].startswith(f"wrote {out}: 29 clips")
    assert run(monkeypatch, "data", "check", str(out)) == 0
    assert run(monkeypatch, "data", "repair", str(damaged), "--out", str(out)) == 2
    assert "exists already" in capsys.readouterr().err


def test_tokenizer_of_a_dataset_has_every_word_whole(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "tokenizer")
    assert run(monkeypatch, "data", "tokenizer", str(demo), "--out", out) == 0
    assert load_tokenizer(tmp_path / "tokenizer").count("today") == 1
    assert run(monkeypatch, "data", "tokenizer", str(demo), "--out", out) == 2


def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "data", "info", str(tmp_path)) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert str(tmp_path) in captured.err
    assert captured.out == ""


def test_other_exceptions_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("data_pipeline.shards.check.describe", broken)
    monkeypatch.setattr("data_pipeline.shards.reader.open_dataset", lambda place, remote: place)
    monkeypatch.setattr(sys, "argv", ["memo", "data", "info", "."])
    with pytest.raises(ZeroDivisionError):
        main()
    assert not issubclass(ZeroDivisionError, UserError)


def test_the_options_of_build_are_shown_in_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "data", "build", "--help") == 0
    shown = capsys.readouterr().out
    groups = ("Options", "The corpus", "Encoders", "Words", "Filters")
    places = [shown.index(f" {group} ─") for group in groups]
    assert places == sorted(places)
    parts = [shown[a:b] for a, b in pairwise([*places, len(shown)])]
    own = ("--out ", "--transcripts ", "--speech-weights ", "--align-weights ", "--min-words ")
    assert [[option in part for option in own].index(True) for part in parts] == [0, 1, 2, 3, 4]
    command = typer.main.get_group(data).commands["build"]
    options = [one.opts[0] for one in command.params if one.opts[0].startswith("--")]
    assert len(options) > 25
    assert all(shown.count(f" {option} ") == 1 for option in options)


def test_build_hands_its_options_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[BuildSettings] = []
    origin = BuildOrigin(
        corpus="videos", corpus_sha256="0", filters=Filters(), samples_per_shard=100
    )

    def built(settings: BuildSettings) -> BuildReport:
        given.append(settings)
        return BuildTally().report(origin, None, [], "")

    with monkeypatch.context() as patched:
        patched.setattr("memo.build_command.build_dataset", built)
        command = ("data", "build", "videos", "--source", "in", "--out", "out")
        assert run(monkeypatch, *command) == 0
        corpus_options = ("--transcripts", "all.tsv", "--encoding", "cp949", "--licence", "mine")
        folders = ("--language", "en,ko", "--speaker-folder", "0")
        assert run(monkeypatch, *command, *corpus_options, *folders) == 0
        filters = ("--min-speech-dbfs", "-50", "--min-words", "2", "--require", "text, face")
        assert run(monkeypatch, *command, *filters) == 0
        assert run(monkeypatch, *command, "--part", "2/8", "--valid-share", "0.1") == 0
    texts = {"transcripts": Path("all.tsv"), "encoding": "cp949", "language": "en,ko"}
    options = {**texts, "speaker_folder": "0", "licence": "mine"}
    assert [one.options for one in given] == [{}, options, {}, {}]
    assert given[2].filters == Filters(2, min_speech_dbfs=-50, require=("text", "face"))
    assert [one.valid_share for one in given] == [None, None, None, 0.1]
    assert [one.out for one in given[2:]] == [Path("out"), Path("out.parts/2-of-8")]
    (tmp_path / "in").mkdir()
    for corpus, message in (
        ("grid", "--transcripts: not for corpus grid, but for videos"),
        ("videos", "videos: the source has no file in .mp4"),
    ):
        folders = ("--source", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
        asked = ("data", "build", corpus, *folders, "--transcripts", str(tmp_path / "in"))
        assert run(monkeypatch, *asked) == 2
        assert message in capsys.readouterr().err
    asked = ("data", "build", "grid", *folders, "--speaker-folder", "1")
    assert run(monkeypatch, *asked) == 2
    assert "--speaker-folder: not for corpus grid, but for videos" in capsys.readouterr().err
