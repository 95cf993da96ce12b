"""Files that are whole or not at all, and errors that say of which file they are."""

import errno
import gzip
from pathlib import Path

import pytest

from data_pipeline.corpora.source import unpacked
from data_pipeline.errors import UserError
from data_pipeline.whole_file import naming, whole_file, write_atomically
from tests.room import room_for


def test_a_full_disk_leaves_the_file_that_was_there_and_is_told_with_its_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "clip.tar"
    write_atomically(path, b"before")
    with room_for(1000), pytest.raises(OSError, match="File too large") as caught:
        write_atomically(path, bytes(5000))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("clip.tar", b"before")]


def test_a_folder_that_is_not_there_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "clip.tar"
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(path, b"x")
    assert caught.value.filename == str(path)


def test_two_who_write_one_file_at_once_do_not_mix(tmp_path: Path) -> None:
    """Of the same process number, too, which two machines may have."""
    path = tmp_path / "clip.tar"
    with whole_file(path) as one:
        one.write(b"one")
        with whole_file(path) as other:
            other.write(b"another")
        assert path.read_bytes() == b"another"
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_without_a_name_is_given_one_and_others_keep_theirs(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as caught, naming(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as missing, naming(tmp_path):
        (tmp_path / "gone").read_bytes()
    assert missing.value.filename == str(tmp_path / "gone")


def test_an_archive_is_unpacked_whole_or_not_at_all(tmp_path: Path) -> None:
    """A disk that is full is no damage of the archive."""
    archive, work = tmp_path / "c.tar.gz", tmp_path / "work"
    work.mkdir()
    archive.write_bytes(gzip.compress(bytes(50_000)))
    with room_for(10_000), pytest.raises(OSError, match="File too large") as caught:
        unpacked(archive, work)
    assert str(caught.value.filename).startswith(str(work / "c."))
    assert list(work.iterdir()) == []
    assert unpacked(archive, work).read_bytes() == bytes(50_000)
    archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"^--source: {archive} cannot be read \("):
        unpacked(archive, work)
    assert len(list(work.iterdir())) == 1
