"""Many small files become few large ones; the rows stay what they are."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import compaction
from pipeline.catalog import Catalog, Commit
from pipeline.compaction import compact
from pipeline.errors import OutputError
from pipeline.ledger import LedgerError
from transforms import tables
from transforms.tables import write_table

NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(str(tmp_path), lambda: NOON) as opened:
        yield opened


def commit_rows(catalog: Catalog, name: str, count: int, sent_at: datetime = NOON) -> None:
    schema = tables.INBOUND_SMS.schema
    rows = [
        dict.fromkeys(schema.names)
        | {
            "content": "R",
            "dest_code": "1",
            "message_id": f"{name}-{number}",
            "send_time": sent_at,
            "enqueued_at": sent_at,
            "unknown_fields": [("sign", '"x"')],
        }
        for number in range(count)
    ]
    os.makedirs(catalog.staging(name))
    table = pa.Table.from_pylist(rows, schema=schema)
    files = list(write_table(tables.INBOUND_SMS, table, catalog.staging(name)))
    catalog.commit(Commit("run", 1, {}, files, [], {}, {}), name)


def rows_of(catalog: Catalog) -> list[dict[str, object]]:
    paths = [catalog.absolute(file.path) for file in catalog.files("inbound_sms")]
    rows = [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]
    return sorted(rows, key=lambda row: str(row["message_id"]))


def test_sixteen_files_of_a_size_become_one(catalog: Catalog) -> None:
    for number in range(15):
        commit_rows(catalog, f"epoch{number}", 3)
        assert compact(catalog, NOON) == 0
    commit_rows(catalog, "epoch15", 3)
    before = rows_of(catalog)

    assert compact(catalog, NOON) == 16

    assert [file.rows for file in catalog.files("inbound_sms")] == [48]
    assert rows_of(catalog) == before
    assert compact(catalog, NOON) == 0


def test_days_and_sizes_are_not_mixed(catalog: Catalog) -> None:
    commit_rows(catalog, "large", 300)
    commit_rows(catalog, "yesterday", 3, NOON - timedelta(days=1))
    for number in range(16):
        commit_rows(catalog, f"epoch{number}", 3)

    assert compact(catalog, NOON) == 16

    files = {(file.dt, file.rows) for file in catalog.files("inbound_sms")}
    assert files == {("2026-10-31", 3), ("2026-11-01", 48), ("2026-11-01", 300)}


def test_a_large_file_is_never_written_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "LARGE_FILE_ROWS", 3)
    for number in range(16):
        commit_rows(catalog, f"large{number}", 3)
        commit_rows(catalog, f"small{number}", 2)

    assert compact(catalog, NOON) == 16

    assert sorted(file.rows for file in catalog.files("inbound_sms")) == [3] * 16 + [32]


def test_a_damaged_file_is_named_and_nothing_is_merged(catalog: Catalog) -> None:
    for number in range(16):
        commit_rows(catalog, f"epoch{number}", 1)
    damaged = Path(catalog.absolute(catalog.files("inbound_sms")[3].path))
    damaged.write_bytes(damaged.read_bytes()[:-20])

    with pytest.raises(OutputError, match=f"^The file {damaged} of the dataset is damaged "):
        compact(catalog, NOON)

    assert len(catalog.files("inbound_sms")) == 16


def test_a_file_that_lost_rows_is_not_merged(catalog: Catalog) -> None:
    for number in range(16):
        commit_rows(catalog, f"epoch{number}", 2)
    path = catalog.absolute(catalog.files("inbound_sms")[3].path)
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)

    with pytest.raises(LedgerError, match="hold 31 rows, but the catalog counts 32"):
        compact(catalog, NOON)

    assert len(catalog.files("inbound_sms")) == 16


def test_a_file_that_is_gone_is_told_in_a_sentence(catalog: Catalog) -> None:
    for number in range(16):
        commit_rows(catalog, f"epoch{number}", 1)
    gone = catalog.files("inbound_sms")[0]
    Path(catalog.absolute(gone.path)).unlink()

    with pytest.raises(OutputError, match="No such file or directory"):
        compact(catalog, NOON)

    assert len(catalog.files("inbound_sms")) == 16
