"""The training script's command line."""

from pathlib import Path

import pytest

from launch.train_face import main


def test_a_bad_source_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "face.safetensors"
    monkeypatch.setattr(
        "sys.argv", ["train_face.py", "--source", str(tmp_path / "none"), "--out", str(out)]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train_face: --source: there is no")
    assert not list(tmp_path.iterdir())
