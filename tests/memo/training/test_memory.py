"""What is free is the least of all bounds, and what runs out is recognised."""

import os
import resource
from pathlib import Path

import pytest
import torch

from memo.training.memory import free_bytes, is_shortage, limited, peak_bytes

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB available."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {8 * MIB} kB\n")
    (tmp_path / "proc/self/cgroup").write_text("")
    (tmp_path / "proc/self/status").write_text("VmSize:\t 1024 kB\n")
    return tmp_path


def group(folder: Path, names: tuple[str, str, str], limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


TWO = ("memory.max", "memory.current", "inactive_file")
ONE = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_the_machine_is_divided_among_the_ranks_of_the_node(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert free_bytes(CPU, root) == 8 * 2**30
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(CPU, root) == 2 * 2**30


def test_a_control_group_of_version_2_and_those_above_it(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/job/step\n")
    top = root / "sys/fs/cgroup"
    group(top / "job/step", TWO, "max", 5, 0)
    assert free_bytes(CPU, root) == 8 * 2**30
    group(top / "job", TWO, str(100 * MIB), 60 * MIB, 10 * MIB)
    assert free_bytes(CPU, root) == 50 * MIB


def test_a_control_group_of_version_1_whose_path_is_hidden_in_a_container(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("9:cpu:/a\n4:hugetlb,memory:/docker/abc\n")
    group(root / "sys/fs/cgroup/memory", ONE, str(70 * MIB), 80 * MIB, 20 * MIB)
    assert free_bytes(CPU, root) == 10 * MIB


def test_the_limit_of_the_process_is_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 * MIB, 3 * MIB))
    assert free_bytes(CPU, root) == 2 * MIB


def test_a_cpu_refuses_what_is_beyond_the_limit_and_then_no_more() -> None:
    with limited(CPU, 64 * MIB):
        torch.empty(16 * MIB, dtype=torch.uint8)
        with pytest.raises(RuntimeError) as caught:
            torch.empty(256 * MIB, dtype=torch.uint8)
        with pytest.raises(MemoryError) as of_python:
            bytearray(256 * MIB)
    assert is_shortage(caught.value)
    assert is_shortage(of_python.value)
    assert len(torch.empty(256 * MIB, dtype=torch.uint8)) == 256 * MIB


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_tells_of_too_little_memory(error: Exception, short: bool) -> None:
    assert is_shortage(error) is short


def test_the_peak_has_been_seen() -> None:
    held = torch.ones(64 * MIB, dtype=torch.uint8)
    assert peak_bytes(CPU) > len(held)
    assert peak_bytes(CPU) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
