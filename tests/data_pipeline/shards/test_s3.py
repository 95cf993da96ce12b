"""Datasets in S3, on a server of it that runs here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.errors import UserError
from data_pipeline.shards.place import Url
from data_pipeline.shards.reader import Dataset, open_dataset
from data_pipeline.shards.remote import FETCH, RANGES, Remote, RemoteSettings, Traffic
from data_pipeline.shards.store import RemoteStore
from tests.data_pipeline.shards.read_url import digest
from tests.data_pipeline.shards.samples import make_clips, write_clips

BUCKET = Url("s3://bucket/corpora")
FIRST = "train-000000.tar"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def folder(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset, and the same in the bucket."""
    import boto3

    monkeypatch.setenv("MEMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    folder = write_clips(tmp_path / "d", train=make_clips(10))
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    for path in folder.iterdir():
        client.upload_file(str(path), "bucket", f"corpora/{path.name}")
    return folder


def open_bucket(settings: RemoteSettings, url: Url = BUCKET) -> Dataset:
    few = settings.model_copy(update={"attempts": 2})
    return Dataset(RemoteStore(url, few, wait=lambda _: None))


@pytest.mark.parametrize("settings", [FETCH, RANGES], ids=lambda one: one.read)
def test_s3_holds_the_same(folder: Path, settings: RemoteSettings) -> None:
    there, here = open_bucket(settings).split("train"), open_dataset(folder).split("train")
    assert there.fingerprint == here.fingerprint
    assert digest(there) == digest(here)
    assert there.traffic.retries == 0
    # dataset.json; the shards, or their indexes and lengths and then the samples
    assert there.traffic.requests == (1 + 3 if settings.read == "fetch" else 1 + 3 + 3 + 10)


@pytest.mark.parametrize("settings", [FETCH, RANGES], ids=lambda one: one.read)
@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_fails_for_a_while_is_asked_again(
    folder: Path, settings: RemoteSettings, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at the first request for each object, whose answer then comes."""
    from moto.s3.responses import S3Response
    from werkzeug import Request

    expected, failed = digest(open_dataset(folder).split("train")), set[str]()
    answer = S3Response.key_response

    def failing(self: S3Response, request: Request, *more: object) -> object:
        if request.path not in failed:
            failed.add(request.path)
            return status, {}, "<Error><Code>SlowDown</Code><Message>Later.</Message></Error>"
        return answer(self, request, *more)

    monkeypatch.setattr(S3Response, "key_response", failing)
    there = open_bucket(settings).split("train")
    assert digest(there) == expected
    assert there.traffic.retries == len(failed) > 3


@pytest.mark.parametrize("settings", [FETCH, RANGES], ids=lambda one: one.read)
@pytest.mark.parametrize(
    ("length", "reason"), [(-9999, "it is shorter|bytes came of"), (1, "it has more than")]
)
def test_a_changed_object_is_said(
    folder: Path, settings: RemoteSettings, length: int, reason: str
) -> None:
    import boto3

    content = (folder / FIRST).read_bytes() + b"more"
    body = content[: len(content) - 4 + length]
    boto3.client("s3").put_object(Bucket="bucket", Key=f"corpora/{FIRST}", Body=body)
    with pytest.raises(UserError, match=rf"s3://bucket/corpora/{FIRST}.*({reason})"):
        open_bucket(settings).split("train").read(0)


def test_no_more_of_an_object_is_read_than_can_be_used(folder: Path) -> None:
    traffic = Traffic()
    read = Remote("s3", FETCH, traffic).read(BUCKET / FIRST, 5000)
    assert read == (folder / FIRST).read_bytes()[:5001]
    assert (traffic.requests, traffic.bytes_read) == (1, 5001)


def test_a_tokenizer_lies_in_the_bucket(folder: Path) -> None:
    import boto3

    assert open_bucket(FETCH).tokenizer() is None
    body = b"pieces"
    boto3.client("s3").put_object(
        Bucket="bucket", Key="corpora/tokenizer/tokenizer.model", Body=body
    )
    found = open_bucket(FETCH).tokenizer()
    assert found is not None
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {"tokenizer.model": body}


@pytest.mark.parametrize("url", ["s3://bucket/nothing", "s3://no-such-bucket/d"])
def test_what_is_not_there_is_said(folder: Path, url: str) -> None:
    with pytest.raises(UserError, match=rf"{url}/dataset\.json: there is no such file"):
        open_bucket(FETCH, Url(url))


def test_without_credentials_it_is_said_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UserError, match=r"dataset\.json: Unable to locate credentials"):
        open_bucket(FETCH)
