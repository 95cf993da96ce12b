"""`memo predict` answers texts, posts and clips with a trained system as its run did."""

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.clip import Clip
from data_pipeline.errors import UserError
from data_pipeline.shards.reader import open_dataset
from memo.cli import main
from memo.inference import predict as prediction
from memo.inference.command import find_system
from memo.inference.encoders import Given, GivenEncoders, load_extractor
from memo.inference.system_clips import ClipSystem
from memo.inference.system_rows import Asked, run_rows
from memo.multitask.trained import open_texts, open_trimodal
from memo.tuning.results import fold_folder
from memo.tuning.run import finetune
from tests.data_pipeline.features.media import make_sound, make_video
from tests.memo.inference.stand_in import Encoders, rows_of
from tests.memo.multitask.small_system import (
    system_config,
    write_sog,
    write_system,
    write_trimodal,
)
from tests.memo.tuning.small_tuning import write_backbone, write_corpus, write_task

SYSTEM = Path("folds", "fold-0-seed-1", "system")
POST = ("image", "text", "tags")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of traits and moods."""
    folder = tmp_path_factory.mktemp("texts")
    finetune(system_config(write_sog(folder), folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("posts")
    finetune(system_config(write_trimodal(folder), folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    corpus = write_corpus(folder / "demo")
    backbone = write_backbone(corpus, folder / "backbone")
    task = write_task(folder / "small.yaml", corpus)
    system = write_system(folder / "clips.yaml", "trimodal", task)
    memo = ["backbone=memo", f"pretrained={backbone}", "training.epochs=1"]
    finetune(system_config(system, folder / "run", *memo))
    return folder / "run"


def predict(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `memo predict`."""
    monkeypatch.setattr(sys, "argv", ["memo", "predict", *map(str, arguments)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def answered(monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: object) -> list[Any]:
    """The JSON lines of `memo predict`."""
    assert predict(monkeypatch, *arguments, "--json", out) == 0
    return [json.loads(line) for line in out.read_text("utf8").splitlines()]


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def record(run: Path) -> dict[str, Any]:
    """Of each view what the run has answered in its test."""
    found = json.loads((fold_folder(run, 0, 1) / "result.json").read_text())
    tasks: dict[str, Any] = found["tasks"]
    return tasks


def read_clips(data: Path, keys: Sequence[str]) -> list[Clip]:
    """Those of these keys, in this order."""
    split = open_dataset(data).whole()
    numbers = {split.location(at)[1]: at for at in range(len(split))}
    return [split.read(numbers[key]) for key in keys]


def test_texts_of_a_table_are_answered_as_the_run_did(
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """More of them than are read at a time, and a blank one among them."""
    answers = record(texts)["moods"]["answers"]
    known = read_clips(texts.parent / "moods_data", answers["keys"])
    said = [one.text or "" for one in known] * 3
    expected = answers["probabilities"] * 3
    assert len(said) > 32
    rows = [[str(at), text] for at, text in enumerate(said)]
    table = write_table(tmp_path / "a.csv", ["id", "text"], [*rows[:5], ["x", " "], *rows[5:]])
    found = answered(monkeypatch, tmp_path / "out", texts / SYSTEM, table, "--task", "moods")
    assert [one["line"] for one in found] == [*range(2, len(said) + 3)]
    blank = found.pop(5)
    nothing = {"text": None, "used": [], "missing": ["text"], "emotion": None}
    assert blank == {"file": str(table), "line": 7, **nothing, "probabilities": {}}
    assert "nothing to use" in capsys.readouterr().out
    for one, text, of_run in zip(found, said, expected, strict=True):
        assert (one["text"], one["used"], one["missing"]) == (text.strip(), ["text"], [])
        assert list(one["probabilities"]) == ["good", "bad"]
        np.testing.assert_allclose(list(one["probabilities"].values()), of_run, atol=1e-4)
        assert one["emotion"] == ["good", "bad"][int(np.argmax(of_run))]
    assert np.std(expected, axis=0).max() > 1e-3  # one in the place of another would be seen


def test_the_table_has_the_beginning_of_texts_without_blanks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(f"{'好' * 300}\nso  glad\n", "utf8")
    asked = Asked(("text",), several=False, ask=lambda rows: [{"good": 1.0}] * len(rows))
    run_rows(asked, [tmp_path / "a.txt"], "utf-8", None)
    shown = capsys.readouterr().out
    assert shown.count("好") == 99
    assert "…" in shown
    assert "so glad" in shown


def test_a_text_may_have_several_traits_or_none(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text a line, with the line ends of any machine; the run's folder has one system."""
    said = ["slowly the cat went", "a dog , shouting", "slowly shouting", "home today"]
    (tmp_path / "a.txt").write_bytes("\ufeff{}\r\n{}\r\n\r\n{}\r\n{}\r\n".format(*said).encode())
    found = answered(monkeypatch, tmp_path / "out", texts, tmp_path / "a.txt", "--task", "people")
    assert [one["line"] for one in found] == [1, 2, 3, 4, 5]
    assert (found[2]["traits"], found[2]["used"]) == ([], [])
    told = open_texts(texts / SYSTEM).predict(said, "people")
    for one, expected in zip([*found[:2], *found[3:]], told, strict=True):
        assert "emotion" not in one
        assert one["probabilities"] == {name: round(of, 4) for name, of in expected.items()}
        assert one["traits"] == [name for name, of in expected.items() if of > 0.5]


def test_a_post_is_answered_by_what_is_there_of_it(
    posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of one post, as the run answered it under these patterns; and a post of nothing."""
    tasks = record(posts)
    whole = set.intersection(*(set(tasks[name]["answers"]["keys"]) for name in POST))
    key = min(whole)
    (post,) = read_clips(posts.parent / "posts_data", [key])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(post.image or b"")
    cells = ("pictures/a.jpg", post.text or "", " ".join(post.tags))
    seen = [one for size in range(4) for one in combinations(POST, size)]
    rows = [
        [cell if name in one else "" for name, cell in zip(POST, cells, strict=True)]
        for one in seen
    ]
    marked = ["", "", " ".join(f"#{tag.upper()}" for tag in post.tags)]
    table = write_table(tmp_path / "posts.csv", POST, [*rows, marked])
    *found, of_marked = answered(monkeypatch, tmp_path / "out", posts / SYSTEM, table)
    assert of_marked["probabilities"] == found[seen.index(("tags",))]["probabilities"]
    assert [tuple(one["used"]) for one in found] == seen
    assert [set(one["missing"]) for one in found] == [{*POST} - {*one} for one in seen]
    assert (found[0]["emotion"], found[0]["probabilities"]) == (None, {})
    assert [found[-1][name] for name in POST] == ["pictures/a.jpg", post.text, list(post.tags)]
    for one in found[1:]:
        answers = tasks["+".join(one["used"])]["answers"]
        of_run = answers["probabilities"][answers["keys"].index(key)]
        np.testing.assert_allclose(list(one["probabilities"].values()), of_run, atol=1e-4)
        assert one["emotion"] == ["good", "bad"][int(np.argmax(of_run))]


def test_clips_of_videos_are_answered_by_what_is_there_of_them(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "load_extractor", lambda *_: Encoders())
    sound = np.random.default_rng(0).normal(0, 0.1, 64_000).astype(np.float32)
    (tmp_path / "a.mp4").write_bytes(make_video(range(0, 4000, 40), [90] * 100, sound))
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nso glad today\n")
    (tmp_path / "b.wav").write_bytes(make_sound(sound))
    (tmp_path / "b.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\ntears\n")
    (tmp_path / "c.mp4").write_bytes(make_video(range(0, 4000, 40), [90] * 100, None))
    files = [tmp_path / name for name in ("a.mp4", "b.wav", "c.mp4")]
    page = tmp_path / "out.html"
    found = answered(monkeypatch, tmp_path / "out", clips / SYSTEM, *files, "--html", page)
    assert [tuple(one["used"]) for one in found] == [
        ("text", "face", "speech"), ("text", "speech"), ("face",),
    ]  # fmt: skip
    assert [tuple(one["missing"]) for one in found] == [(), ("face",), ("text", "speech")]
    expected = open_trimodal(clips / SYSTEM).predict(
        [
            Clip("a", text="so glad today", face=rows_of(20, 48), speech=rows_of(33, 64)),
            Clip("b", text="tears", speech=rows_of(25, 64)),
            Clip("c", face=rows_of(40, 48)),
        ]
    )
    for one, chances in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(chances, abs=1e-4)
        assert one["emotion"] == max(chances, key=chances.__getitem__)
    assert page.read_text("utf8").count("without face") == 1


def test_what_shall_not_be_seen_of_a_clip_is_not(clips: Path) -> None:
    opened = open_trimodal(clips / SYSTEM)
    assert opened.features is not None
    system = ClipSystem(opened, opened.features)
    whole = Clip("a", text="so glad", face=rows_of(20, 48), speech=rows_of(9, 64))
    (expected,) = opened.predict([Clip("a", text="so glad", speech=rows_of(9, 64))])
    (found,) = system.predict([whole], ["text", "speech"])
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-6)


def test_the_encoders_of_a_system_are_those_of_its_backbone(clips: Path, tmp_path: Path) -> None:
    opened = open_trimodal(clips / SYSTEM)
    assert opened.features is not None
    system = ClipSystem(opened, opened.features)
    with pytest.raises(UserError, match="--face: no encoder 'demo'"):
        load_extractor(system, GivenEncoders(), tmp_path)
    given = GivenEncoders(face=Given("denseface"))
    with pytest.raises(
        UserError, match="--face denseface: the model's face rows were made by 'dem"
    ):
        load_extractor(system, given, tmp_path)


MISTAKES = [
    (["a.csv", "--task", "weather"], "--task: there is no 'weather'; the system knows people, mo"),
    (["a.csv"], "--task: which one? the system knows people, moods"),
    (["b.csv", "--task", "moods"], "b.csv has no column 'text'"),
    (["c.csv", "--task", "moods"], "c.csv has no line below the names of its columns"),
    (["d.txt", "--task", "moods"], "d.txt is empty; it shall have a text a line"),
    (["e.mp4", "--task", "moods"], "e.mp4: give .csv or .tsv tables with a column text, or .txt"),
    (["nowhere.csv", "--task", "moods"], "nowhere.csv is not there; give .csv or .tsv tables"),
    (["f.txt", "--task", "moods"], "f.txt: line 2 is not in utf-8; say with --encoding"),
    (["a.csv", "--task", "moods", "--html", "a.html"], "--html: {system} is a system of texts; le"),
    (["a.csv", "--task", "moods", "--speech", "whisper"], "--speech: {system} is a system of te"),
    (["a.csv", "--task", "moods", "--pretrained", "x"], "without a backbone; leave pretrained out"),
    (["a.csv", "--task", "moods", "--image-weights", "x"], "has no frozen image network; leave"),
    (["g.csv", "--task", "moods"], "g.csv has two columns 'text'; rename or remove one"),
    (["a.csv", "--task", "moods", "--json", "x/y"], "--json: x/y; give a file in a folder"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_about_texts_is_one_line(
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text\nhello\n")
    Path("b.csv").write_text("texts\nhello\n")
    Path("c.csv").write_text("text\n")
    Path("d.txt").write_text("")
    Path("e.mp4").write_text("no text")
    Path("g.csv").write_text("text,id,text\nhello,1,bye\n")
    Path("f.txt").write_bytes("so\ncafé\n".encode("latin-1"))
    assert predict(monkeypatch, texts / SYSTEM, *arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message.format(system=texts / SYSTEM) in said


ALTERED: list[tuple[str, object, str]] = [
    ("tensors_sha256", None, "tensors_sha256 is not set"),
    ("tensors_sha256", "0" * 64, "system.safetensors was altered: its sha256 is not that of sys"),
    ("tasks", [], "tasks="),
    ("tasks", [{"name": "moods"}], "tasks.0.answers is not set"),
    ("system", "none", "there is no system 'none'; known are: "),
    ("colour", "red", "unknown key 'colour'"),
]


@pytest.mark.parametrize(("key", "value", "message"), ALTERED, ids=lambda value: str(value)[:40])
def test_a_system_that_somebody_has_altered_is_refused_in_a_line(
    texts: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    folder = shutil.copytree(texts / SYSTEM, tmp_path / "system")
    content = json.loads((folder / "system.json").read_text("utf8"))
    content[key] = value
    if value is None:
        del content[key]
    (folder / "system.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        open_texts(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_system_with_more_answers_than_it_learned_is_refused(texts: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(texts / SYSTEM, tmp_path / "system")
    content = json.loads((folder / "system.json").read_text("utf8"))
    for task in content["tasks"]:
        task["answers"].append("another")
    (folder / "system.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"^[^\n]* of system.safetensors does not fit system.json"):
        open_texts(folder)


OF_POSTS = [
    ("image,text,tags\n,so,a\nnone.jpg,so,a\n", "line 3: there is no image none.jpg; names count"),
    ("image,text,tags\nbroken.jpg,so,a\n", "line 2: broken.jpg does not decode; give a JPEG file"),
    ("image,text\n,so\n", "has no column 'tags'"),
    ("image,text,tags\n", "has no line below the names of its columns"),
    ("image,text,tags\n,so\n", "line 2 of posts.csv has not as many columns as line 1"),
]


@pytest.mark.parametrize(("content", "message"), OF_POSTS, ids=lambda value: str(value)[-40:])
def test_a_mistake_about_posts_is_one_line(
    posts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("posts.csv").write_text(content)
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert predict(monkeypatch, posts / SYSTEM, "posts.csv", "--json", "out") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not Path("out").exists()


def test_options_and_files_of_other_kinds_are_refused(
    posts: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "config.json").write_text("{}")
    for place, arguments, message in (
        (posts, ["a.mp4"], "a.mp4: give .csv or .tsv tables with the columns image, text, tags"),
        (posts, ["a.csv", "--task", "posts"], "has one task; leave it out"),
        (posts, ["a.csv", "--face-weights", "x"], "is a system of posts; leave it out"),
        (clips, ["a.mp4", "--task", "small"], "has one task; leave it out"),
        (clips, ["a.csv"], "a.csv is not there; give video or sound files"),
        (tmp_path, ["a.mp4", "--task", "a"], "--task: {place} is no system of several tasks"),
        (tmp_path, ["a.mp4"], "holds no exported model (No such file"),
    ):
        assert predict(monkeypatch, place, *arguments) == 2
        assert message.format(place=place) in capsys.readouterr().err


def test_the_folder_says_what_it_holds(texts: Path, tmp_path: Path) -> None:
    assert find_system(texts) == find_system(texts / SYSTEM) == texts / SYSTEM
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"holds neither a model that .* nor a trained system"):
            find_system(place)
    shutil.copytree(texts / SYSTEM, tmp_path / "folds" / "a" / "system")
    shutil.copytree(texts / SYSTEM, tmp_path / "folds" / "b" / "system")
    with pytest.raises(UserError, match=r"has 2 trained systems; name one, e.g. .*/a/system"):
        find_system(tmp_path)
    tuned = tmp_path / "run" / "folds" / "fold-0-seed-1" / "tuned"
    tuned.mkdir(parents=True)
    (tuned / "tuned.json").write_text("{}")
    with pytest.raises(UserError, match="is tuned to one task; 'memo export' makes a model of it"):
        find_system(tmp_path / "run")
