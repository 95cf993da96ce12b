import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.corpora.source import (
    by_stem,
    check_files,
    decode_western,
    find_file,
    open_source,
    unpacked,
)
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


def test_a_folder_that_cannot_be_looked_into_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a disk's own folder of what was found astray is no part of any corpus."""
    source = make_folder(tmp_path / "corpus")
    opens, locked = os.scandir, {source / "lost+found", source / "clips" / "kim"}
    for folder in locked:
        folder.mkdir()

    def refuses(path: str) -> Any:  # noqa: ANN401
        if Path(path) in locked:
            raise PermissionError(13, "Permission denied", path)
        return opens(path)

    monkeypatch.setattr(os, "scandir", refuses)
    for option in ("--source", "--transcripts"):
        with pytest.raises(
            UserError,
            match=rf"^{option}: {source}/clips/kim cannot be read \(Permission denied\); make it",
        ):
            open_source(source, option).names()
    locked.remove(source / "clips" / "kim")
    assert open_source(source).names() == sorted(FILES)


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
    assert source.stamp("table.tsv") != source.stamp("clips/one.mp4")  # of other lengths
    for ask in (source.read, source.stamp):
        with pytest.raises(KeyError):
            ask("absent")


def test_a_file_of_as_many_other_bytes_has_another_stamp(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "corpus")
    before = open_source(folder).stamp("table.tsv")
    os.utime(folder / "table.tsv", (1, 1))
    assert open_source(folder).stamp("table.tsv") != before
    stamps = set()
    for content in (b"one", b"two"):
        with zipfile.ZipFile(tmp_path / "corpus.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("a"), content)
        stamps.add(open_source(tmp_path / "corpus.zip").stamp("a"))
    assert len(stamps) == 2


@pytest.mark.parametrize("make", [make_archive, make_zip])
def test_what_macos_leaves_beside_the_files_is_none_of_them(
    tmp_path: Path, make: Callable[[Path, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    litter = {"corpus/clips/._one.mp4": b"", "__MACOSX/corpus/._table.tsv": b"", ".DS_Store": b""}
    files = {f"corpus/{name}": content for name, content in FILES.items()}
    monkeypatch.setattr(f"{__name__}.FILES", files | litter)
    source = open_source(make(tmp_path / "corpus.any", ""))
    assert source.names() == sorted(name.removeprefix("corpus/") for name in files)
    assert sorted(open_source(make_folder(tmp_path / "folder")).names()) == sorted(files)


def test_nothing_outside_of_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    source = open_source(make_folder(tmp_path / "corpus"))
    for name in ("../secret", "clips/../../secret", str(tmp_path / "secret"), "", "clips"):
        for read in (source.read, source.open):
            with pytest.raises(KeyError):
                read(name)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_large_file_of_an_archive_is_read_here_and_there_without_being_held(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4 * 2**20
    content = np.random.default_rng(0).bytes(size)
    monkeypatch.setattr(f"{__name__}.FILES", {"a": b"before", "large": content, "z": b"behind"})
    monkeypatch.setattr("data_pipeline.corpora.source.LARGE", size - 1)
    packed = make_archive(tmp_path / "c.tar.xz", "") if kind == "tar" else None
    path = unpacked(packed, tmp_path) if packed else make_zip(tmp_path / "c.zip", "")
    source = open_source(path)
    tracemalloc.start()
    with source.open("large") as file, source.open("a") as other, source.open("large") as again:
        assert other.read() == b"before"
        assert file.read(5) == content[:5]
        assert file.seek(-7, io.SEEK_END) == file.tell() == size - 7
        assert again.read(3) == content[:3]
        assert file.read() == content[-7:]
        assert file.read(1) == b""
        file.seek(1000)
        assert file.read(4) == content[1000:1004]
        assert file.seek(-2, io.SEEK_CUR) == 1002
        assert file.read(1) == content[1002:1003]
        held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < size / 2
    with source.open("large") as file:
        assert file.read() == content
    assert file.closed
    with pytest.raises(KeyError):
        source.open("absent")


def test_a_damaged_large_file_of_a_zip_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.corpora.source.LARGE", 1)
    path = make_zip(tmp_path / "c.zip", "")
    path.write_bytes(path.read_bytes().replace(FILES["clips/one.mp4"], b"\x00\x02", 1))
    with pytest.raises(OSError, match="its archive: Bad CRC-32"):
        open_source(path).open("clips/one.mp4")


def test_what_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        open_source(tmp_path / "absent")
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(UserError, match="neither a folder nor a tar or zip"):
        open_source(tmp_path / "text")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_a_cut_archive_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"corpus.{suffix}"
    noise = np.random.default_rng(0).bytes(40_000)  # cannot be compressed
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", noise)
    else:
        packing = suffix.partition(".")[2]
        with tarfile.open(path, "w:" + packing) as tar:  # type: ignore[call-overload]
            member = tarfile.TarInfo("a")
            member.size = len(noise)
            tar.addfile(member, io.BytesIO(noise))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"corpus\.\S+ (cannot be read|is neither)"):
        open_source(path)


def test_a_damaged_end_of_a_packed_archive_is_told_when_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tar.gz"
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a"), io.BytesIO(b""))
    packed = bytearray(gzip.compress(plain.getvalue()))
    packed[-8] ^= 1  # the checksum, behind all that tar reads
    path.write_bytes(packed)
    open_source(path)
    with pytest.raises(UserError, match=r"cannot be read .*CRC"):
        unpacked(path, tmp_path)


def test_an_archive_that_was_replaced_is_unpacked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_archive(tmp_path / "corpus_s7.tar.xz", "")
    first = unpacked(path, tmp_path)
    assert unpacked(path, tmp_path) == first
    monkeypatch.setattr(f"{__name__}.FILES", {"table.tsv": b"c\td\n" * 99})
    make_archive(path, "")
    source = open_source(unpacked(path, tmp_path))
    assert source.read("table.tsv") == b"c\td\n" * 99
    assert source.name == "corpus_s7"


def test_a_damaged_file_of_a_zip_leaves_the_others(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "corpus.zip", "")
    content, (first, second, *_) = path.read_bytes(), FILES
    path.write_bytes(content.replace(FILES[first], b"?" * len(FILES[first]), 1))
    source = open_source(path)
    with pytest.raises(OSError, match="CRC"):
        source.read(first)
    assert source.read(second) == FILES[second]


@pytest.mark.parametrize("name", ["mine.csv", "MINE.TSV"])
def test_a_table_is_a_source_of_its_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"text\nhello\n")
    source = open_source(path)
    assert source.names() == [name]
    assert source.read(name) == b"text\nhello\n"
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


def test_files_are_found_by_stem_in_the_order_of_suffixes() -> None:
    names = ["a/one.WAV", "b/one.avi", "b/two.wav", "c/one.avi", "c/two.txt"]
    found = by_stem(names, [".avi", ".wav"])
    assert found == {"one": "b/one.avi", "two": "b/two.wav"}


def test_old_texts_are_read_as_windows_wrote_them() -> None:
    assert decode_western("caf\u00e9".encode()) == "caf\u00e9"
    assert decode_western(b"caf\xe9 \x96 no") == "caf\u00e9 \u2013 no"
