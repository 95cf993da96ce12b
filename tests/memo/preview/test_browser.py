"""The page in a real browser."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipeline.clip import Word
from memo.preview.page import PreviewSettings, write_preview
from tests.data_pipeline.features.media import make_video
from tests.data_pipeline.shards.samples import make_clips, write_clips
from tests.memo.preview.chromium import Browser, browser, find_chromium

ATTACK = "<script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>"

SIZES = """[...document.querySelectorAll('svg, img')].map(one => {
    const box = one.getBoundingClientRect();
    return [one.className.baseVal ?? one.className, box.width, box.height,
            one.complete ?? true, one.naturalWidth ?? 1];
})"""
PATHS = "[...document.querySelectorAll('svg path')].map(one => one.getBBox().width)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of clips with everything: video, words in three scripts, an image, what a browser could
    be tricked with."""
    folder = tmp_path_factory.mktemp("preview")
    (folder / "raw").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    video = make_video(range(0, 1500, 40), [90] * 38, noise)
    (folder / "raw" / "a.mp4").write_bytes(video)
    image = bytes(cv2.imencode(".jpg", np.full((40, 60, 3), 99, np.uint8))[1])
    texts = ["שלום עולם, this is mixed", "안녕하세요 여러분", ATTACK, "plain words"]
    clips = [
        replace(
            clip,
            text=texts[number % 4],
            words=tuple(
                Word(word, 0.3 * at, 0.3 * at + 0.25)
                for at, word in enumerate(texts[number % 4].split()[:5])
            ),
            labels={"emotion": ["glad", ATTACK][number % 2], ATTACK: number, "score": 0.1 * number},
            tags=(ATTACK, "x" * 300),
            speaker=ATTACK if number == 1 else "someone",
            source="a.mp4" if number % 3 else ATTACK,
            image=image if number == 2 else None,
        )
        for number, clip in enumerate(make_clips(8))
    ]
    write_clips(folder / "d", train=clips[:5], valid=clips[5:])
    (folder / "d" / "quarantine.jsonl").write_text('{"reason": "too <b>dark</b>"}\n' * 3)
    out = folder / "page.html"
    write_preview(PreviewSettings(folder / "d", out, folder / "raw"))
    return out


@pytest.fixture(scope="module")
def tab(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = find_chromium()
    if command is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with browser(command, tmp_path_factory.mktemp("profile")) as one:
        one.show(1200, 900, "light")
        one.open(page)
        yield one


@pytest.mark.slow
def test_nothing_is_asked_for_and_nothing_goes_wrong(tab: Browser, page: Path) -> None:
    asked = [
        told["request"]["url"]
        for method, told in tab.events
        if method == "Network.requestWillBeSent"
    ]
    assert page.as_uri() in asked
    assert [url[:60] for url in asked if url != page.as_uri() and url[:5] != "data:"] == []
    wrong = [
        told
        for method, told in tab.events
        if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
    ]
    assert wrong == []
    assert tab.value("document.scripts.length + document.querySelectorAll('[onerror]').length") == 0
    assert tab.value("document.body.textContent.includes('<script>alert(1)</script>')")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (360, "dark")])
def test_every_figure_has_a_size_and_the_page_fits(tab: Browser, width: int, scheme: str) -> None:
    tab.show(width, 900, scheme)
    figures = tab.value(SIZES)
    assert len(figures) > 40
    for name, across, down, loaded, pixels in figures:
        assert (name, across > 5, down > 5, loaded, pixels > 0) == (name, True, True, True, True)
    assert min(tab.value(PATHS)) > 0
    assert tab.value("document.documentElement.scrollWidth") <= width
    dark = sum(
        map(int, tab.value("getComputedStyle(document.body).backgroundColor")[4:-1].split(","))
    )
    assert (dark < 384) == (scheme == "dark")


@pytest.mark.slow
def test_every_figure_has_a_name(tab: Browser) -> None:
    unnamed = """[...document.querySelectorAll('svg, img')].filter(one =>
        !one.closest('[role=img][aria-label], [aria-hidden]') && !one.alt).length"""
    assert tab.value(unnamed) == 0
