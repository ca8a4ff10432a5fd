"""Files of rows, and the archive in an object store."""

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import apache_beam as beam
import boto3
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.errors import OutputError
from pipeline.sinks.files import WriteParquet
from pipeline.sinks.rows import STREAMED
from schemas.contracts import contract
from schemas.records import MnsMessage
from tests.sinks.samples import BUNDLES
from tests.sinks.writer import write
from transforms import file_store
from transforms.archive import (
    ArchiveError,
    ArchiveRaw,
    read_archive,
    require_writable_archive,
    write_archive_file,
)

_NOW = datetime(2026, 11, 22, 23, 30, tzinfo=timezone.utc)
_FLAGS = ["--s3_access_key_id=k", "--s3_secret_access_key=s", "--s3_region_name=us-east-1"]
_MESSAGES = [MnsMessage(f"id-{n}", "queue", "SmsReport", _NOW, 1, b"body") for n in range(3)]


def _now() -> datetime:
    return _NOW


class Bucket:
    """A bucket of the server, and how to get at it."""

    def __init__(self, endpoint: str) -> None:
        self.flags = [*_FLAGS, f"--s3_endpoint_url={endpoint}"]
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
        self._s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        self._s3.create_bucket(Bucket="archive")
        FileSystems.set_options(PipelineOptions(self.flags))

    def objects(self) -> dict[str, bytes]:
        listed = self._s3.list_objects_v2(Bucket="archive").get("Contents", ())
        return {each["Key"]: self._content(each["Key"]) for each in listed}

    def _content(self, key: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket="archive", Key=key)["Body"].read()
        return content

    def empty(self) -> None:
        for key in self.objects():
            self._s3.delete_object(Bucket="archive", Key=key)


@pytest.fixture
def bucket(s3: str) -> Iterator[Bucket]:
    bucket = Bucket(s3)
    bucket.empty()
    yield bucket
    FileSystems.set_options(None)


def _copy(bucket: Bucket, target: Path) -> list[Path]:
    """What ``aws s3 sync`` does."""
    for key, content in bucket.objects().items():
        (target / key).parent.mkdir(parents=True, exist_ok=True)
        (target / key).write_bytes(content)
    return [target / key for key in bucket.objects()]


@pytest.mark.integration
def test_a_bundle_is_archived_in_an_object_store_and_a_copy_of_it_is_an_archive(
    bucket: Bucket, tmp_path: Path
) -> None:
    options = PipelineOptions(["--runner=FnApiRunner", *bucket.flags])
    with beam.Pipeline(options=options) as pipeline:
        messages = pipeline | beam.Create([_MESSAGES[:2], _MESSAGES[2:]], reshuffle=False)
        _ = messages | ArchiveRaw("s3://archive", _now)
    (path,) = _copy(bucket, tmp_path)
    archived = read_archive(str(path))
    rows = [row for batch in archived.batches for row in batch.to_pylist()]
    assert rows == [message._asdict() for message in _MESSAGES]


@pytest.mark.integration
def test_a_usable_object_store_is_left_clean(bucket: Bucket) -> None:
    require_writable_archive("s3://archive/below")
    assert bucket.objects() == {}


@pytest.mark.integration
def test_an_object_store_that_takes_nothing_is_told(bucket: Bucket) -> None:
    says = r"The archive s3://missing cannot be written \(.*NoSuchBucket.*\): free space or grant"
    with pytest.raises(ArchiveError, match=says):
        require_writable_archive("s3://missing")
    with pytest.raises(ArchiveError, match=says):
        write_archive_file("s3://missing", _MESSAGES, _NOW)
    assert bucket.objects() == {}


@pytest.mark.parametrize("scheme", ["nowhere", "hdfs"])
def test_a_store_that_takes_no_whole_files_is_refused(scheme: str) -> None:
    says = f"{scheme}:// cannot be written to: it is none of s3, gs and azfs"
    with pytest.raises(ArchiveError, match=says):
        require_writable_archive(f"{scheme}://archive")


def test_a_directory_that_cannot_be_written_is_refused_before_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="The output .* cannot be written"):
        WriteParquet(str(tmp_path / "file" / "rows")).require_usable()
    WriteParquet(str(tmp_path / "rows")).require_usable()
    assert list((tmp_path / "rows").iterdir()) == []


def test_a_file_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    def fail(file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            file_store.write_whole(str(tmp_path / "rows" / "file"), fail)
    assert list((tmp_path / "rows").iterdir()) == []


@pytest.mark.integration
def test_the_same_rows_have_the_same_file(tmp_path: Path) -> None:
    bundle = BUNDLES[0]
    write("parquet", str(tmp_path), bundle)
    files = sorted(tmp_path.rglob("*.*"))
    write("parquet", str(tmp_path), list(reversed(bundle)))
    assert sorted(tmp_path.rglob("*.*")) == files


@pytest.mark.integration
def test_a_file_is_written_as_the_files_of_a_dataset_are(tmp_path: Path) -> None:
    write("parquet", str(tmp_path), BUNDLES[0])
    for path in tmp_path.rglob("*.parquet"):
        table = STREAMED[path.parents[1].name]
        metadata = pq.read_metadata(path).metadata
        assert metadata[b"sms_receipts.contract"].decode() == table.contract
        fingerprint = contract(table.contract).fingerprint
        assert metadata[b"sms_receipts.schema_fingerprint"].decode() == fingerprint
        assert pq.read_schema(path).remove_metadata() == table.schema
