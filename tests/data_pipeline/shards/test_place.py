"""What is a local folder, what a URL, and what is neither."""

from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from data_pipeline.shards.place import Url, parse_place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("datasets/grid", Path("datasets/grid")),
        ("/a/b:c", Path("/a/b:c")),
        ("http://host/d", Url("http://host/d")),
        ("https://host:8443/a/d/", Url("https://host:8443/a/d")),
        ("s3://bucket", Url("s3://bucket")),
        ("s3://bucket/a/d", Url("s3://bucket/a/d")),
    ],
)
def test_a_place_is_what_it_says(text: str, place: Path | Url) -> None:
    assert parse_place(text) == place
    assert str(parse_place(text)) == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "pipe:cat x",
        "ftp://host/d",
        "file:///d",
        "HTTP://host/d",
        "simplecache::http://host/d",
        "http:/host/d",
        "http://",
        "http:///d",
        "https://user:word@host/d",
        "https://host/d?key=1",
        "https://host/d#part",
        "https://host/a d",
        "s3://bucket/d\n",
    ],
)
def test_nothing_else_is_opened(text: str) -> None:
    with pytest.raises(UserError, match=r"are read; no command|the URL of a dataset is") as caught:
        parse_place(text)
    assert text in str(caught.value)


def test_a_folder_with_a_colon_in_its_name_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        parse_place("take:2")
    Path("take:2").mkdir()
    assert parse_place("take:2") == Path("take:2")


def test_a_files_name_is_no_part_of_the_syntax() -> None:
    assert str(Url("https://host/d") / "a?b#c%20.tar") == "https://host/d/a%3Fb%23c%2520.tar"
    assert str(Url("s3://bucket/d") / "a b%.tar") == "s3://bucket/d/a b%.tar"
