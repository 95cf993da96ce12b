"""The page as text: what is on it, and that nothing of the data becomes part of its code."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipeline.clip import Clip, Word
from data_pipeline.errors import UserError
from memo.cli import main
from memo.preview.page import PreviewSettings, write_preview
from tests.data_pipeline.features.media import make_video
from tests.data_pipeline.shards.samples import make_clips, write_clips
from tests.data_pipeline.small_dataset import write_split

ATTACK = "</title></svg><script>alert('1')</script>\"' onload=\"x()\" <b>&amp; {{ 7 * 7 }}"
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section"),
    *("footer", "article", "h1", "h2", "h3", "p", "small", "b", "bdi", "i", "a", "span", "div"),
    *("dl", "dt", "dd", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "figure"),
    *("figcaption", "img", "svg", "path", "rect", "line", "text"),
}


class Page(HTMLParser):
    """What a page consists of.

    Attributes:
        tags: names of its elements.
        attributes: name and value of all of them.
        text: between the tags.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(path.read_text("utf8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        """Of all attributes of this name."""
        return [value for one, value in self.attributes if one == name]


Preview = Callable[..., Page]


@pytest.fixture
def preview(tmp_path: Path) -> Preview:
    """Writes a dataset of some clips, and its page."""

    def make(clips: list[Clip], source: Path | None = None) -> Page:
        write_clips(tmp_path / "d", train=clips)
        out = tmp_path / "page.html"
        write_preview(PreviewSettings(tmp_path / "d", out, source))
        return Page(out)

    return make


def test_nothing_of_the_data_becomes_code(preview: Preview, tmp_path: Path) -> None:
    clips = [
        replace(
            clip,
            key=f"{number}-{ATTACK.replace('/', '').replace('.', '')}",
            text=ATTACK,
            language=ATTACK,
            words=(Word(ATTACK, 0.1, 0.4),),
            labels={ATTACK: ATTACK, "score": 0.5},
            tags=(ATTACK,),
            speaker=ATTACK,
            session=ATTACK,
            source=ATTACK,
        )
        for number, clip in enumerate(make_clips(4))
    ]
    page = preview(clips, source=tmp_path)
    assert set(page.tags) <= TAGS
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(url.startswith("data:image/") for url in page.values("src"))
    assert all(link.startswith("#") for link in page.values("href"))
    assert page.tags.count("title") == 1 + page.tags.count("path")
    assert page.text.count(ATTACK) > 20
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_same_dataset_and_seed_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    (tmp_path / "raw" / "a.mp4").write_bytes(make_video(range(0, 1000, 40), [90] * 25, noise))
    clips = [replace(clip, source="a.mp4") for clip in make_clips(20)]
    pages = []
    for number, seed in enumerate((5, 5, 6)):
        folder = write_clips(tmp_path / f"d{number}", train=clips)
        out = tmp_path / f"{number}.html"
        write_preview(PreviewSettings(folder, out, tmp_path / "raw", clips=3, seed=seed))
        pages.append(out.read_bytes())
    assert pages[0] == pages[1]
    keys = [re.findall(rb'aria-label="Time lines of (\w+)', page) for page in pages]
    assert len(set(keys[0])) == len(set(keys[2])) == 3
    assert keys[0] != keys[2]


def test_a_clip_shows_what_is_known_of_it(preview: Preview) -> None:
    image = bytes(cv2.imencode(".jpg", np.full((30, 40, 3), 99, np.uint8))[1])
    clip = replace(
        make_clips(1)[0],
        text="l" * 1500,
        language="he",
        labels={"emotion": "glad", "kinds": [3, 5], "score": 0.12345678},
        tags=("one", "two"),
        speaker="Anna",
        session="first",
        image=image,
        duration_s=2.5,
        span=(3601.25, 3603.75),
    )
    page = preview([clip])
    for said in ("glad", "3, 5", "0.123457", "one", "two", "Anna", "first", "2.5", "calm", "1,500"):
        assert said in page.text
    assert "3,601.250 to 3,603.750 s" in page.text
    assert page.text.count("l" * 999) == 1
    assert page.values("lang") == ["en", "he"]
    assert page.values("dir") == ["auto"]
    assert [url.partition(";")[0] for url in page.values("src")] == [
        "data:image/jpeg", "data:image/png", "data:image/png",
    ]  # fmt: skip


def test_what_cannot_be_shown_is_said_and_the_rest_is_there(
    preview: Preview, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "broken.mp4").write_bytes(b"no video")
    whole = make_video(range(0, 1000, 40), [90] * 25, np.zeros(16_000, np.float32))
    (tmp_path / "raw" / "whole.mp4").write_bytes(whole)
    sources = ["broken.mp4", "absent.mp4", "whole.mp4", "", "text.csv"]
    clips = [
        replace(clip, source=source) for clip, source in zip(make_clips(5), sources, strict=True)
    ]
    clips[0] = replace(clips[0], image=b"\xff\xd8 no image")
    clips[4] = replace(clips[4], text="only text", duration_s=0.0)
    page = preview(clips, source=tmp_path / "raw")
    for said in (
        "broken.mp4: the video cannot be decoded",
        "the source has no file absent.mp4",
        "does not say which file it was made from",
        "jpg: does not decode",
        "found in 0 of these 2 pictures",
    ):
        assert said in page.text
    assert "text.csv is" not in page.text
    assert "no file text.csv" not in page.text
    assert page.tags.count("article") == 5
    assert page.text.count("Sound and words") == 1
    assert page.text.count("Speech rows") == 5


def test_a_clip_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    write_split(tmp_path / "d", 5, bad=(3,))
    write_preview(PreviewSettings(tmp_path / "d", tmp_path / "page.html"))
    page = Page(tmp_path / "page.html")
    assert "cannot be read: speech.npy: " in page.text
    assert "Broken clips found for this page" in page.text
    assert page.tags.count("article") == 5


def test_a_page_of_twelve_clips_is_small(tmp_path: Path) -> None:
    """As large as clips of six seconds are, with a face and sound that do not compress."""
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    noise = rng.uniform(-1, 1, 96_000).astype(np.float32)
    levels = rng.integers(0, 255, 150).tolist()
    video = make_video(range(0, 6000, 40), levels, noise, size=128)
    (tmp_path / "raw" / "a.mp4").write_bytes(video)
    clips = [
        replace(
            clip,
            source="a.mp4",
            duration_s=6.0,
            words=tuple(Word("word", 0.2 * at, 0.2 * at + 0.2) for at in range(30)),
            face=rng.normal(size=(60, 6)).astype(np.float16),
            expression=rng.dirichlet(np.ones(2), 60).astype(np.float16),
            speech=rng.normal(size=(100, 5)).astype(np.float16),
        )
        for clip in make_clips(13)
    ]
    write_clips(tmp_path / "d", train=clips)
    write_preview(PreviewSettings(tmp_path / "d", tmp_path / "page.html", tmp_path / "raw"))
    page = Page(tmp_path / "page.html")
    assert page.tags.count("article") == 12
    assert (tmp_path / "page.html").stat().st_size < 3_000_000


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "d", train=make_clips(3))
    out = tmp_path / "page.html"
    for settings, said in (
        (PreviewSettings(tmp_path / "absent", out), "there is no dataset in .*absent"),
        (PreviewSettings(folder, tmp_path / "no" / "p.html"), "--out: there is no folder .*no;"),
        (PreviewSettings(folder, out, tmp_path / "raw"), "--source: there is no .*raw"),
        (PreviewSettings(folder, folder), "--out: .* exists already"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            write_preview(settings)
        assert "\n" not in str(caught.value)
    next(folder.glob("*.tar")).unlink()
    with pytest.raises(UserError, match="is missing, though"):
        write_preview(PreviewSettings(folder, out))
    assert {path.name for path in tmp_path.iterdir()} == {"d"}


def test_the_command_writes_a_page_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_clips(tmp_path / "d", train=make_clips(3)), tmp_path / "page.html"

    def run(*options: str) -> int:
        arguments = ["memo", "data", "preview", str(folder), "--out", str(out), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert run("--clips", "0") == run("--seed", "-1") == 2
    assert not out.exists()
    assert capsys.readouterr().err == (
        "memo: --clips: 0; a page shows 1 clip or more\nmemo: --seed: -1; a seed is 0 or more\n"
    )
    assert run("--clips", "2") == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert Page(out).tags.count("article") == 2
    assert run() == 2
    assert "exists already; give a new file" in capsys.readouterr().err


def test_faces_are_looked_for_again_by_what_found_them(tmp_path: Path) -> None:
    write_clips(tmp_path / "d", train=make_clips(2))
    (tmp_path / "raw").mkdir()
    info = json.loads((tmp_path / "d" / "dataset.json").read_text())
    info["features"]["face"] |= {"detector": "yunet", "detector_sha256": "0" * 64}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(info))
    out = tmp_path / "page.html"
    with pytest.raises(UserError, match=r"found by yunet, .* give it with --detector-weights"):
        write_preview(PreviewSettings(tmp_path / "d", out, tmp_path / "raw"))
    weights = tmp_path / "yunet.onnx"
    with pytest.raises(UserError, match=r"--detector-weights: .*; name --source"):
        write_preview(PreviewSettings(tmp_path / "d", out, detector_weights=weights))
    assert not out.exists()
    write_preview(PreviewSettings(tmp_path / "d", out))
    assert out.exists()
