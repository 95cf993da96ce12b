import io
import tarfile
from pathlib import Path

import pytest

from data_pipeline.corpora.source import open_source
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


@pytest.mark.parametrize("kind", ["folder", "archive", "archive with a top folder"])
def test_same_files_from_folder_and_archive(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        source = open_source(make_folder(tmp_path / "corpus_s7"))
    else:
        top = "inner/" if "top" in kind else ""
        source = open_source(make_archive(tmp_path / "corpus_s7.tar.xz", top))
    assert {name: source.read(name) for name in source.names()} == FILES
    assert source.name == "corpus_s7"
    with pytest.raises(KeyError):
        source.read("absent")


def test_what_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        open_source(tmp_path / "absent")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(UserError, match="neither a folder nor a tar"):
        open_source(tmp_path / "text")
