"""Bad samples are named once, by whichever rank or run, and too many stop the run."""

import errno
import fcntl
import json
from pathlib import Path
from typing import BinaryIO

import pytest

from data_pipeline.errors import UserError
from data_pipeline.quarantine import Quarantine, count_reasons


def test_each_sample_is_named_once_by_all_ranks_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    first, second = Quarantine(path, 9), Quarantine(path, 9)
    assert (len(first), path.exists()) == (0, False)
    first.add("s.tar", "k1", "speech.npy", "holds NaN")
    second.add("s.tar", "k1", "speech.npy", "holds NaN")
    second.add("s.tar", "k2", "", "übel")
    first.add("t.tar", "k2", "", "übel")
    lines = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    keys = [(line["shard"], line["key"]) for line in lines]
    assert keys == [("s.tar", "k1"), ("s.tar", "k2"), ("t.tar", "k2")]
    assert lines[0] == {
        "shard": "s.tar",
        "key": "k1",
        "member": "speech.npy",
        "reason": "holds NaN",
    }
    assert len(first) == len(Quarantine(path, 0)) == 3


def test_above_the_cap_the_run_stops(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    Quarantine(path, 1).add("s", "a", "json", "broken")
    other = Quarantine(path, 1)
    other.check()
    other.add("s", "b", "json", "broken")
    with pytest.raises(UserError, match=r"more than 1 bad samples; the last is b of s: broken"):
        other.check()


def test_above_the_cap_no_more_are_named(tmp_path: Path) -> None:
    """A step of very many bad samples ends, and its file stays small."""
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", 2)
    for number in range(1000):
        quarantine.add("s", str(number), "json", "broken")
    assert len(quarantine) == 3
    assert quarantine.excess is not None


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    for path in (tmp_path, tmp_path / "run" / "quarantine.jsonl"):
        with pytest.raises(UserError, match=rf"^{path} cannot be written: ") as caught:
            Quarantine(path, 9).add("s", "a", "json", "broken")
        assert "\n" not in str(caught.value)


def test_a_file_system_without_locks_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(file: BinaryIO, operation: int) -> None:
        raise OSError(errno.ENOSYS, f"{operation} of {file.name}: not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", 9)
    for key in ("a", "b", "a"):
        quarantine.add("s", key, "json", "broken")
    assert len(quarantine) == 2
    (said,) = caplog.messages
    assert "quarantine.jsonl cannot be locked" in said


def test_a_torn_line_is_passed_over_and_the_next_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "quarantine.jsonl"
    Quarantine(path, 9).add("s", "a", "json", "broken")
    with path.open("a") as file:
        file.write('{"shard": "s", "ke')
    again = Quarantine(path, 9)
    again.add("s", "b", "json", "broken")
    again.add("s", "a", "json", "broken")
    assert len(again) == 2
    assert json.loads(path.read_text().splitlines()[-1])["key"] == "b"
    with path.open("a") as file:
        file.write('{"shard": "s", "key": "c"}')  # whole but for its end
    for key in ("c", "d"):
        again.add("s", key, "json", "broken")
    assert [line for line in path.read_text().splitlines() if '"c"' in line] == [
        '{"shard": "s", "key": "c"}'
    ]
    assert len(again) == 4


def test_each_line_is_read_once_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of others; hours went by where a hundred thousand samples were named."""
    path, parsed = tmp_path / "quarantine.jsonl", []
    loads = json.loads

    def counted(line: bytes) -> object:
        parsed.append(line)
        return loads(line)

    first, second = Quarantine(path, 999), Quarantine(path, 999)
    monkeypatch.setattr(json, "loads", counted)
    for number in range(100):
        for quarantine in (first, second):
            quarantine.add("s.tar", f"both-{number}", "json", "übel")
        second.add("s.tar", f"second-{number}", "json", "übel")
    monkeypatch.undo()
    assert len(list(filter(None, parsed))) <= 2 * 200
    order = [f"{who}-{number}" for number in range(100) for who in ("both", "second")]
    expected = (
        json.dumps(
            {"shard": "s.tar", "key": key, "member": "json", "reason": "übel"}, ensure_ascii=False
        )
        for key in order
    )
    assert path.read_bytes() == "".join(f"{line}\n" for line in expected).encode()


def test_a_file_that_is_removed_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, 9)
    for key in ("a", "b"):
        quarantine.add("s", key, "json", "broken")
    path.unlink()
    quarantine.add("s", "a", "json", "broken")
    assert len(quarantine) == 1


def test_reasons_are_counted_whoever_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(path, 9)
    for key, reason in (("a", "übel"), ("b", "dark"), ("c", "übel")):
        quarantine.add("s.tar", key, "", reason)
    lines = path.read_text("utf8").splitlines()
    assert count_reasons(lines) == {"übel": 2, "dark": 1}
    odd = ["", "{", "[1]", "3", '{"key": "k"}', "[" * 10_000, '{"reason": 7}']
    counted = count_reasons([*lines, *odd])
    assert (counted["übel"], counted["7"], counted.total()) == (2, 1, 9)
