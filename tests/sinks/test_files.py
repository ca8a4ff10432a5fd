"""Files of rows, and the archive in an object store."""

import itertools
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import apache_beam as beam
import boto3
import pyarrow.parquet as pq
import pytest
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream

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
from transforms.packed import unpack_rows

_NOW = datetime(2026, 11, 22, 23, 30, tzinfo=timezone.utc)
_FLAGS = ["--s3_access_key_id=k", "--s3_secret_access_key=s", "--s3_region_name=us-east-1"]
_MESSAGES = [MnsMessage(f"id-{n}", "queue", "SmsReport", _NOW, 1, b"body") for n in range(3)]


_bundles_passed = itertools.count()


def _now() -> datetime:
    return _NOW


def _same(element: tuple[str, bytes]) -> tuple[str, bytes]:
    return element


def _five_minutes_later() -> datetime:
    return _NOW + next(_bundles_passed) * timedelta(minutes=5)


def _age(path: str | Path, **age: float) -> None:
    """Let a file be older by a ``timedelta``'s arguments."""
    modified = os.stat(path).st_mtime - timedelta(**age).total_seconds()
    os.utime(path, (modified, modified))


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


def _left_by_a_killed_writer(path: Path) -> Path:
    """The file that a writer has not given its name, ``path``."""
    seen: list[Path] = []
    file_store.write_whole(str(path), lambda _: seen.extend(path.parent.glob(f".{path.name}.*")))
    path.rename(seen[0])
    return seen[0]


def test_what_killed_writers_left_is_deleted_a_day_later_and_nothing_else(tmp_path: Path) -> None:
    day = tmp_path / "inbound_sms" / "dt=2026-11-01"
    left, young = (_left_by_a_killed_writer(day / name) for name in ("f.parquet", "g.parquet"))
    probe = tmp_path / f".{'a1' * 16}.tmp"
    others = [
        *(day / name for name in (".notes.tmp", f"{'b2' * 16}.tmp", f".x.{'b2' * 16}.new")),
        tmp_path / "inbound_sms" / left.name,
    ]
    for path in (left, probe, young, *others):
        path.touch()
        _age(path, hours=23 if path == young else 25)
    written = day / "h.parquet"
    file_store.write_whole(str(written), lambda file: file.write(b"whole"))

    file_store.tidy(str(tmp_path), str(written))

    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted([*others, young, written])


def test_a_directory_is_tidied_once_a_day(tmp_path: Path) -> None:
    path = tmp_path / "inbound_sms" / "dt=2026-11-01" / "f.parquet"

    def is_deleted(*, written_hours_ago: int) -> bool:
        left, written = _left_by_a_killed_writer(path), path.with_name("g")
        file_store.write_whole(str(written), lambda file: file.write(b"whole"))
        _age(left, days=3)
        _age(written, hours=written_hours_ago)
        file_store.tidy(str(tmp_path), str(written))
        is_there = left.exists()
        left.unlink(missing_ok=True)
        return not is_there

    hours = (30, 29, 7, 6, 5)
    assert [is_deleted(written_hours_ago=each) for each in hours] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_what_cannot_be_deleted_stays_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    day = tmp_path / "inbound_sms" / "dt=2026-11-01"
    left = [day / f".x.{digit * 32}.tmp" for digit in "12"]
    for path in left:
        path.mkdir(parents=True)  # whoever is root may delete every file
        _age(path, hours=25)
    now_secs = left[0].parent.stat().st_mtime

    assert file_store.delete_unfinished_files(str(tmp_path), now_secs) == 0

    (said,) = caplog.messages
    assert said.startswith(f"What killed writers have left in {tmp_path} cannot be deleted, e.g. ")


@pytest.mark.integration
def test_the_same_rows_have_the_same_file(tmp_path: Path) -> None:
    bundle = BUNDLES[0]
    write("parquet", str(tmp_path), bundle)
    files = sorted(tmp_path.rglob("*.*"))
    write("parquet", str(tmp_path), list(reversed(bundle)))
    assert sorted(tmp_path.rglob("*.*")) == files


@pytest.mark.integration
def test_rows_whose_timer_is_lost_leave_when_the_next_ones_come(tmp_path: Path) -> None:
    element = BUNDLES[0][3]
    # Its processing time stands still: no timer of files fires before the end.
    stream = test_stream.TestStream(coder=FastPrimitivesCoder())
    for _ in range(3):
        stream = stream.add_elements([element])
    with beam.Pipeline("BundleBasedDirectRunner", PipelineOptions(["--streaming"])) as pipeline:
        elements = pipeline | stream.advance_watermark_to_infinity()
        typed = elements | beam.Map(_same).with_output_types(tuple[str, bytes])
        _ = typed | WriteParquet(str(tmp_path), secs=60, clock=_five_minutes_later)
    rows = sorted(pq.read_metadata(path).num_rows for path in tmp_path.rglob("*.parquet"))
    of_element = unpack_rows(element[1]).num_rows
    assert rows == [of_element, 2 * of_element]


@pytest.mark.integration
def test_a_writer_of_files_and_the_archive_tidy_up(tmp_path: Path) -> None:
    left = [
        _left_by_a_killed_writer(tmp_path / place / name)
        for place, name in (
            ("rows/t/dt=2026-11-01", "1.parquet"),
            ("archive/q/landed=2026-11-01", "1.avro"),
        )
    ]
    for path in left:
        _age(path, hours=25)
    write("parquet", str(tmp_path / "rows"), BUNDLES[0])
    with beam.Pipeline("FnApiRunner") as pipeline:
        _ = pipeline | beam.Create([_MESSAGES]) | ArchiveRaw(str(tmp_path / "archive"), _now)
    assert [path.exists() for path in left] == [False, False]


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
