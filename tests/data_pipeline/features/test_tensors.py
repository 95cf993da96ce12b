"""Files of tensors: whatever is wrong with one is said in one line."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import UserError
from data_pipeline.features.tensors import read_tensors


@pytest.fixture(scope="module", params=[True, False])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of torch's present form, or of its old one, which is pickles alone."""
    path = tmp_path_factory.mktemp("tensors") / "whole.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=request.param)
    return path


def test_what_is_saved_is_read(saved: Path) -> None:
    tensors = read_tensors(saved)
    assert list(tensors) == ["a"]
    assert torch.equal(tensors["a"], torch.ones(2))


@given(places=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), min_size=1, max_size=4))
def test_a_damaged_file_ends_in_one_line(saved: Path, places: list[tuple[float, bytes]]) -> None:
    content = saved.read_bytes()
    for at, new in places:
        place = int(at * len(content))
        content = content[:place] + new + content[place + len(new) :]
    (damaged := saved.with_name("damaged.pth")).write_bytes(content)
    with suppress(UserError):  # nothing else; what is still whole is read
        read_tensors(damaged)


@pytest.mark.parametrize(
    "content", [b"hello", b"0" * 100, b"\x80\x02", b"I1\n.", b"\x80\x02(K\x01d.", b"h\x65."]
)
def test_what_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.bin cannot be read as weights \("):
        read_tensors(tmp_path / "x.bin")


def test_names_that_are_numbers_are_no_state_dict(tmp_path: Path) -> None:
    torch.save({1: torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth holds no state dict"):
        read_tensors(tmp_path / "x.pth")


def test_an_empty_file_has_a_reason_too(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    with pytest.raises(UserError, match=r"x\.pth cannot be read as weights \(it ends too early\)$"):
        read_tensors(tmp_path / "x.pth")
