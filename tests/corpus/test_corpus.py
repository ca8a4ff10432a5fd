"""What earlier versions left on disk is read, continued, recomputed and merged by this one.

Each directory beside this file is what a version wrote; see ``make.py``.
"""

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fastavro
import fastavro.schema
import pyarrow.parquet as pq
import pytest

import analytics
from analytics.report import main as report_command
from pipeline.catalog import Catalog, Commit
from pipeline.compaction import compact
from schemas.contracts import contract
from tests.corpus.make import decoded_records
from tests.job.small_job import SmallJob, report
from tests.schemas.publish import SCHEMAS, read_manifest, releases
from transforms import tables
from transforms.tables import read_rows, write_table

CORPORA = sorted(path for path in Path(__file__).parent.iterdir() if path.name[0].isdigit())
# Tables whose files stay until they are merged.
GROWING = [
    table for table in tables.TABLES if table not in {tables.OPEN_SENDS, tables.WAITING_REPORTS}
]


class Corpus(SmallJob):
    """A copy of what a version wrote, as a job that can go on."""

    def __init__(self, origin: Path, root: Path) -> None:
        shutil.copytree(origin, root)
        super().__init__(root)
        self.version = origin.name
        self.settings = replace(self.settings, send_log=str(root / "send_log"))
        self.send_log = root / "send_log" / "sends.jsonl"
        self.late_sends = (root / "late_sends.jsonl").read_text()
        self.answers: Mapping[str, Any] = _json(root / "report.json")["answers"]
        self.records: Mapping[str, Any] = _json(root / "records.json")
        with closing(sqlite3.connect(self.dataset / "catalog.sqlite")) as catalog, catalog:
            # The send log is known by its absolute path, and has moved.
            for (path,) in catalog.execute("SELECT path FROM send_log_files").fetchall():
                moved = str(root / "send_log" / Path(path).name)
                catalog.execute("UPDATE send_log_files SET path = ? WHERE path = ?", (moved, path))
            (as_of_ms,) = catalog.execute("SELECT max(as_of_ms) FROM epochs").fetchone()
        self.as_of = datetime.fromtimestamp(as_of_ms / 1000, timezone.utc)

    def without_dataset(self, root: Path) -> SmallJob:
        """A job that has the same archive and send log, and all its work before it."""
        job = SmallJob(root)
        job.settings = replace(self.settings, dataset=str(job.dataset))
        return job


@pytest.fixture(params=CORPORA, ids=lambda path: path.name)
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Corpus:
    return Corpus(request.param, tmp_path / "corpus")


def test_every_release_has_its_corpus_before_the_next_one_is_published() -> None:
    released = {release.name for release in releases()[:-1]}
    missing = released - {corpus.name for corpus in CORPORA}
    assert not missing, (
        "with the code of each, run `python -m tests.corpus.make tests/corpus/RELEASE`"
    )


def test_the_archive_decodes_to_the_same_records(corpus: Corpus) -> None:
    # Which version of a contract a failed event was meant for may differ.
    varying = {"schema_fingerprint", "pipeline_version"}
    decoded = decoded_records(corpus.archive)
    for name, records in corpus.records.items():
        assert len(records) == len(decoded[name])
        for then, now in zip(records, decoded[name], strict=True):
            kept = then.keys() - varying
            assert {field: now[field] for field in kept} == {field: then[field] for field in kept}


def test_the_report_gives_the_same_answers(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    require_answers(corpus, capsys)


def require_answers(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    """Later versions may ask more and add columns; what was said then is said now."""
    capsys.readouterr()
    assert report_command(["--dataset", str(corpus.dataset), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    for name, answer in corpus.answers.items():
        rows = answers[name]["rows"]
        assert len(rows) == len(answer["rows"]), name
        assert [{**now, **then} for then, now in zip(answer["rows"], rows, strict=True)] == rows


def test_every_file_carries_a_published_version_of_its_schema(corpus: Corpus) -> None:
    published = read_manifest(SCHEMAS / "published" / corpus.version)
    for path in corpus.archive.rglob("*.avro"):
        with path.open("rb") as file:
            written: Any = fastavro.reader(file).writer_schema
        canonical = fastavro.schema.to_parsing_canonical_form(written)
        fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        assert fingerprint == published["mns_message"]["fingerprint"]
    for path in corpus.dataset.rglob("*.parquet"):
        said = pq.read_metadata(path).metadata
        if b"sms_receipts.contract" in said:  # since 0.2.0
            name = said[b"sms_receipts.contract"].decode()
            fingerprint = said[b"sms_receipts.schema_fingerprint"].decode()
            assert fingerprint == published[name]["fingerprint"]


def test_the_catalog_is_brought_to_the_present_layout(corpus: Corpus, tmp_path: Path) -> None:
    for dataset in (corpus.dataset, tmp_path / "new"):
        with Catalog(str(dataset), lambda: corpus.as_of):
            pass
    assert layout(corpus.dataset) == layout(tmp_path / "new")
    assert layout(corpus.dataset)[0] > (0,), "0.1.0 did not count"


def layout(dataset: Path) -> list[Any]:
    """The number of a catalog's layout, and all its columns."""
    with closing(sqlite3.connect(dataset / "catalog.sqlite")) as catalog:
        columns = catalog.execute(
            "SELECT tables.name, columns.* FROM sqlite_schema AS tables,"
            " pragma_table_info(tables.name) AS columns ORDER BY tables.name, columns.name"
        )
        return [catalog.execute("PRAGMA user_version").fetchone(), *columns]


@pytest.mark.integration
def test_old_files_are_merged_with_new_ones(corpus: Corpus) -> None:
    with Catalog(str(corpus.dataset), lambda: corpus.as_of) as catalog:
        old = {table: files[-1] for table in GROWING if (files := catalog.files(table.name))}
        rows = {table: read_rows(table, catalog.absolute(old[table].path)) for table in old}
        new = [
            file
            for table in old
            for _ in range(15)
            for file in write_table(table, rows[table], catalog.staging("new"))
        ]
        catalog.commit(Commit("run", 1, {}, new, [], {}, {}), "new")

        assert compact(catalog, corpus.as_of) == 16 * len(old)

        for table, file in old.items():
            (large,) = catalog.files(table.name, [file.dt])
            path = catalog.absolute(large.path)
            assert read_rows(table, path).to_pylist() == 16 * rows[table].to_pylist()
            fingerprint = pq.read_metadata(path).metadata[b"sms_receipts.schema_fingerprint"]
            assert fingerprint.decode() == contract(table.contract).fingerprint


@pytest.mark.integration
def test_a_backfill_recomputes_the_same_answers(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [row["day"] for row in corpus.answers["by_day"]["rows"]]
    corpus.backfill(min(days), f"{corpus.as_of + timedelta(days=1):%Y-%m-%d}", corpus.as_of)
    require_answers(corpus, capsys)


@pytest.mark.integration
def test_epochs_go_on_where_an_earlier_version_stopped(corpus: Corpus, tmp_path: Path) -> None:
    later = corpus.as_of + timedelta(days=4)
    with analytics.connect(corpus.dataset) as before:
        (waiting,) = before.sql("SELECT count(*) FROM waiting").fetchall()[0]
        delivered = before.sql(
            "SELECT biz_id, phone_number, send_time FROM reports WHERE success ORDER BY event_id"
        ).fetchall()[0]
        open_send = before.sql(
            "SELECT biz_id, phone_number FROM open_sends ORDER BY ALL"
        ).fetchall()[0]
    corpus.land(
        report(*delivered[:2], err_code="MK:0001", sent_at=delivered[2], enqueued_at=later),
        report(*open_send, sent_at=later - timedelta(days=4), enqueued_at=later),
        report("new", sent_at=later, enqueued_at=later),
    )
    corpus.send_log.write_text(corpus.late_sends)

    counts = corpus.epoch(later)

    assert counts["waiting_before"] == waiting
    assert min(counts[left] for left in ("matched_reports", "orphan_reports", "unreported_new")) > 0
    assert counts["waiting_after"] == 1
    at_once = corpus.without_dataset(tmp_path / "at_once")
    at_once.epoch(later)
    assert seen(corpus.dataset) == seen(at_once.dataset)


def seen(dataset: Path) -> dict[str, list[Any]]:
    """What a dataset says; whatever happened when, and in which version."""
    questions = {
        "outcomes": "SELECT DISTINCT event_id, revision, success, err_code FROM enriched_reports",
        "reports": "FROM reports",
        "sends": "FROM sends",
        "replies": "FROM replies",
        "waiting": "FROM waiting",
        # A failed send is named by its file, which has moved.
        "failures": "SELECT origin, stage, reason, detail, original, queue_name FROM failures",
    }
    with analytics.connect(dataset) as connection:
        return {
            name: sorted(map(repr, connection.sql(question).fetchall()))
            for name, question in questions.items()
        }


def _json(path: Path) -> Any:  # noqa: ANN401
    return json.loads(path.read_text(encoding="utf-8"))
