import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_pipeline.corpora.source import check_files, find_file, open_source, unpacked
from data_pipeline.errors import UserError

FILES = {"table.tsv": b"a\tb\n", "clips/one.mp4": b"\x00\x01"}


def make_folder(root: Path) -> Path:
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def make_archive(path: Path, top: str) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_zip(path: Path, top: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(top + name, content)
    return path


@pytest.mark.parametrize(
    "kind", ["folder", "archive", "archive with a top folder", "zip", "zip with a top folder"]
)
def test_same_files_from_folder_and_archive(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        source = open_source(make_folder(tmp_path / "corpus_s7"))
    elif "zip" in kind:
        source = open_source(make_zip(tmp_path / "corpus_s7.zip", "in/" if "top" in kind else ""))
    else:
        top = "inner/" if "top" in kind else ""
        source = open_source(make_archive(tmp_path / "corpus_s7.tar.xz", top))
    assert {name: source.read(name) for name in source.names()} == FILES
    assert source.name == "corpus_s7"
    with pytest.raises(KeyError):
        source.read("absent")


def test_nothing_outside_of_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    source = open_source(make_folder(tmp_path / "corpus"))
    for name in ("../secret", "clips/../../secret", str(tmp_path / "secret"), "", "clips"):
        with pytest.raises(KeyError):
            source.read(name)


def test_what_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        open_source(tmp_path / "absent")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(UserError, match="neither a folder nor a tar or zip"):
        open_source(tmp_path / "text")


def test_a_table_is_a_source_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(b"text\nhello\n")
    source = open_source(path)
    assert source.names() == ["mine.csv"]
    assert source.read("mine.csv") == b"text\nhello\n"
    assert unpacked(path, tmp_path) == path
    with pytest.raises(KeyError):
        source.read("other.csv")


def test_files_are_found_by_their_last_name(tmp_path: Path) -> None:
    source = open_source(make_folder(tmp_path))
    assert find_file(source, "one.mp4") == "clips/one.mp4"
    assert find_file(source, "two.mp4") == "two.mp4"
    check_files(source, ["clips/one.mp4"], "corpus")
    with pytest.raises(UserError, match=r"corpus: no file two\.mp4 \(1 are missing\)"):
        check_files(source, ["table.tsv", "two.mp4"], "corpus")
