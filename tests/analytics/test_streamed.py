"""What a stream writes, asked as a dataset is: no catalog, and rows that stand in it more than once."""

import json
import os
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analytics
from analytics.catalog import DatasetError, read_history, read_snapshot
from analytics.connection import TABLES
from analytics.report import main
from schemas.contracts import contract
from tests.analytics.dataset import (
    AS_OF,
    DAY_1,
    DAY_2,
    failed,
    inbound,
    orphan,
    report,
    unreported,
)

pytestmark = pytest.mark.integration


class Streamed:
    """A directory of Parquet files, as the sink leaves them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = 0

    def add(self, table: str, day: str, *rows: dict[str, object]) -> Path:
        schema = contract(TABLES[table]).arrow
        blank = {field.name: None for field in schema}
        self._files += 1
        path = self.root / table / f"dt={day}" / f"{self._files}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        filled = [{**blank, **row} for row in rows]
        pq.write_table(pa.Table.from_pylist(filled, schema=schema), path)
        written = (AS_OF + timedelta(seconds=self._files)).timestamp()
        os.utime(path, (written, written))
        return path


@pytest.fixture
def streamed(tmp_path: Path) -> Streamed:
    """Rows of every kind, most of them written twice by a worker that was killed in between."""
    made = Streamed(tmp_path / "streamed")
    made.add("enriched_reports", DAY_1, orphan("2"), report("1"))
    made.add("enriched_reports", DAY_1, report("1"), report("2"))
    made.add("enriched_reports", DAY_2, report("1", revision=2, success=False, message_id="late"))
    made.add("unreported_sends", DAY_1, unreported("1"), unreported("3"))
    made.add("unreported_sends", DAY_1, unreported("3"))
    made.add("inbound_sms", DAY_1, inbound("4"), inbound("4", content="another"))
    made.add("inbound_sms", DAY_1, inbound("4"))
    made.add("failed_events", DAY_1, failed("5"), failed("5", failed_at=AS_OF + timedelta(hours=1)))
    unfinished = made.root / "inbound_sms" / f"dt={DAY_1}" / ".half.parquet.0.tmp"
    unfinished.write_bytes(b"half")
    return made


def test_every_row_counts_once(streamed: Streamed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", str(streamed.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (overview,) = document["answers"]["overview"]["rows"]
    expected = {
        "sends": 3, "reports": 2, "delivered": 1, "failed": 1, "orphans": 0, "corrected": 1,
        "open": 0, "unreported": 1, "waiting": 0, "replies": 2, "failed_events": 1,
    }  # fmt: skip
    assert {name: overview[name] for name in expected} == expected
    assert document["epoch"] is None
    assert "engine's state" in document["note"]
    assert document["as_of"] == (AS_OF + timedelta(seconds=8)).isoformat()


def test_every_row_stands_once_in_its_table(streamed: Streamed) -> None:
    with closing(analytics.connect(streamed.root)) as connection:
        counts = {name: len(connection.table(name).fetchall()) for name in TABLES}
        columns = connection.table("enriched_reports").columns
    assert columns == contract("enriched_report").arrow.names
    assert counts == {
        **dict.fromkeys(TABLES, 0),
        "enriched_reports": 4,
        "unreported_sends": 2,
        "inbound_sms": 2,
        "failed_events": 1,
    }


def test_tables_for_people_say_what_a_stream_keeps_to_itself(
    streamed: Streamed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", str(streamed.root), "--sql", "open_sends"]) == 0
    out = capsys.readouterr().out
    assert "A stream keeps open sends and waiting reports in its engine's state" in out
    assert f"{streamed.root}, as of " in out


def test_a_damaged_file_of_a_stream_is_told(
    streamed: Streamed, capsys: pytest.CaptureFixture[str]
) -> None:
    streamed.add("inbound_sms", DAY_2, inbound("6")).write_bytes(b"damaged")
    assert main(["--dataset", str(streamed.root)]) == 2
    assert "A file of the table inbound_sms is no Parquet file any more" in capsys.readouterr().err


def test_what_needs_a_catalog_says_that_there_is_none(streamed: Streamed) -> None:
    for read in (read_snapshot, read_history):
        with pytest.raises(DatasetError, match="what a stream writes, and has no catalog: only"):
            read(streamed.root)


def test_a_directory_that_is_neither_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="There is no dataset at"):
        analytics.connect(tmp_path)


def test_a_dataset_that_has_lost_its_catalog_is_not_taken_for_a_stream(streamed: Streamed) -> None:
    (streamed.root / "open_sends").mkdir()
    with pytest.raises(DatasetError, match="There is no dataset at"):
        analytics.connect(streamed.root)
