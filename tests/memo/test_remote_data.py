"""Datasets at URLs, wherever settings and commands take a folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.http_server import FileServer
from data_pipeline.errors import UserError
from data_pipeline.shards.place import Url
from data_pipeline.shards.reader import open_dataset
from memo.cli import main
from memo.config import PretrainConfig
from memo.settings import load_config, parse_config
from memo.tokenizer import load_tokenizer
from memo.training.setup import first_state, open_data
from memo.tuning.task import load_task, open_task
from tests.memo.training.small_run import small_config, write_small_dataset
from tests.memo.tuning.small_tuning import write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("remote") / "dataset")


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install 'memo[remote]'")
    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    with FileServer(folder) as one:
        yield one


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of the `memo` command."""
    monkeypatch.setattr(sys, "argv", ["memo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("https://host:8443/a/d", Url("https://host:8443/a/d")),
        ("s3://bucket/d", Url("s3://bucket/d")),
        ("datasets/grid", Path("datasets/grid")),
    ],
)
def test_a_place_survives_a_runs_config_file(text: str, place: Path | Url) -> None:
    config = load_config(PretrainConfig, None, [f"data.dataset={text}", "data.remote.attempts=3"])
    assert config.data.dataset == place
    written = config.model_dump(mode="json")
    assert written["data"]["dataset"] == text
    assert parse_config(PretrainConfig, written, "again") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.dataset=pipe:cat", "pipe:cat: only local folders and http://"),
        ("data.dataset=7", r"data\.dataset=7: .*must be a folder or a URL"),
        ("data.remote.read=stream", r"data\.remote\.read='stream': .*'fetch' or 'ranges'"),
        ("data.remote.atempts=1", r"'data\.remote\.atempts'; did you mean 'attempts'"),
        ("data.remote.cache_gib=0", r"data\.remote\.cache_gib=0"),
    ],
)
def test_a_wrong_place_or_setting_is_said_in_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(PretrainConfig, None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", ["fetch", "ranges"])
def test_pretraining_takes_a_url(
    server: FileServer, folder: Path, tmp_path: Path, read: str
) -> None:
    local = small_config(folder, tmp_path / "run")
    at = (f"data.dataset={server.url}", f"data.remote.read={read}", "data.verify=true")
    remote = small_config(folder, tmp_path / "run", *at)
    here, there = open_data(local), open_data(remote)
    assert there.features == here.features
    assert first_state(remote, there) == first_state(local, here)
    assert list(there.parts[0].texts()) == list(here.parts[0].texts())
    assert there.tokenizer.fingerprint == here.tokenizer.fingerprint
    server.faults["tokenizer/tokenizer.model"] = ["404"]
    with pytest.raises(UserError, match=f"no tokenizer at {server.url}/tokenizer; train one with"):
        open_data(remote)
    named = small_config(folder, tmp_path / "run", *at, f"data.tokenizer={folder / 'tokenizer'}")
    asked = server.count("tokenizer/tokenizer.model")
    assert open_data(named).tokenizer.fingerprint == here.tokenizer.fingerprint
    assert server.count("tokenizer/tokenizer.model") == asked
    server.faults["tokenizer/tokenizer.model"] = ["wrong"]


def test_a_task_takes_a_url(server: FileServer, folder: Path, tmp_path: Path) -> None:
    whole = open_dataset(folder).whole()
    labels = {whole.read_record(sample).labels["emotion"] for sample in range(len(whole))}
    changes = {"classes": sorted(map(str, labels)), "wording": {}}
    here = write_task(tmp_path / "here.yaml", folder, **changes)
    there = write_task(tmp_path / "there.yaml", folder, dataset=str(server.url), **changes)
    ours, theirs = (open_task(load_task(str(path))) for path in (here, there))
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert ours.groups == theirs.groups
    assert ours.samples.fingerprint == theirs.samples.fingerprint


def test_commands_take_a_url(
    server: FileServer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs = []
    for place in (str(folder), f"{server.url}/"):
        assert run(monkeypatch, "data", "info", place) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != ""
    url = str(server.url)
    assert run(monkeypatch, "data", "check", url) == 0
    assert run(monkeypatch, "data", "merge", url, "--out", str(tmp_path / "merged")) == 0
    out = tmp_path / "tokenizer"
    given = ("data", "tokenizer", url, "--vocab-size", "100")
    assert run(monkeypatch, *given, "--out", str(out)) == 0
    assert load_tokenizer(out).fingerprint == load_tokenizer(folder / "tokenizer").fingerprint
    capsys.readouterr()
    assert run(monkeypatch, *given) == 2
    assert capsys.readouterr().err.startswith("memo: --out: give a folder")
    assert run(monkeypatch, "data", "info", "ftp://host/d") == 2
    assert "only local folders and http://, https://, s3:// are read" in capsys.readouterr().err
