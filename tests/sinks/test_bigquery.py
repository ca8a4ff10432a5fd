"""BigQuery: tables, and a service that cannot do it now or does not take a row."""

import sys
import traceback
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.sinks import bigquery as sink
from pipeline.sinks.bigquery import Dataset, bigquery_schema, require_tables
from pipeline.sinks.rows import STREAMED
from tests.analytics.dataset import inbound
from tests.sinks.bigquery_server import BigQueryServer
from tests.sinks.samples import BUNDLES, element
from tests.sinks.writer import write

TEXT: dict[str, Any] = {"name": "key", "type": "STRING", "mode": "REQUIRED"}


@pytest.mark.integration
def test_tables_that_are_missing_are_told_and_made(bigquery: BigQueryServer) -> None:
    with pytest.raises(OutputError, match="p.d.enriched_reports does not exist: start once with"):
        require_tables(Dataset("p.d"))
    require_tables(Dataset("p.d"), create=True)
    require_tables(Dataset("p.d"))
    write("bigquery", "p.d", BUNDLES[0])
    assert set(bigquery.rows) == set(STREAMED)


@pytest.mark.integration
def test_a_table_that_lacks_a_column_is_refused_and_so_are_its_rows(
    bigquery: BigQueryServer,
) -> None:
    bigquery.make_tables()
    bigquery.schemas["inbound_sms"] = bigquery_schema(STREAMED["inbound_sms"])[:-2]
    lacks = (
        r"add message_id \(NULLABLE STRING\), add enqueued_at \(NULLABLE TIMESTAMP\), or move it"
    )
    with pytest.raises(OutputError, match=f"inbound_sms does not take rows of .*.avsc: {lacks}"):
        require_tables(Dataset("p.d"), create=True)
    says = r"inbound_sms refused 1 row\(s\) \(invalid enqueued_at, invalid message_id\): bring"
    with pytest.raises(OutputError, match=says) as refused:
        write("bigquery", "p.d", [element("inbound_sms", inbound("1"))])
    assert "13800000000" not in str(refused.value)
    assert "inbound_sms" not in bigquery.rows


@pytest.mark.integration
def test_what_the_api_quotes_of_a_row_is_not_told(bigquery: BigQueryServer) -> None:
    bigquery.make_tables()
    bigquery.complaint = 'Invalid value at "rows[0].json": 13800000000'
    with pytest.raises(OutputError, match=r"does not take rows \(BadRequest\)") as refused:
        write("bigquery", "p.d", [element("inbound_sms", inbound("1"))])
    assert "13800000000" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("column", "change"),
    [
        ({"name": "extra", "type": "STRING", "mode": "REQUIRED"}, "make extra NULLABLE"),
        ({"name": "err_code", "type": "INTEGER"}, "make err_code NULLABLE STRING"),
        ({"name": "err_code", "type": "STRING", "mode": "REQUIRED"}, "make err_code NULLABLE STRING"),
        ({"name": "event_id", "type": "STRING", "mode": "REPEATED"}, "make event_id NULLABLE STRING"),
        ({"name": "tags", "type": "STRING"}, "make tags REPEATED RECORD"),
        (
            {"name": "tags", "type": "RECORD", "mode": "REPEATED", "fields": [TEXT]},
            r"add value \(NULLABLE STRING\) in tags",
        ),
    ],
)  # fmt: skip
def test_a_column_that_takes_no_rows_is_told_with_its_fix(
    bigquery: BigQueryServer, column: dict[str, Any], change: str
) -> None:
    bigquery.make_tables()
    columns = {each["name"]: each for each in bigquery_schema(STREAMED["enriched_reports"])}
    bigquery.schemas["enriched_reports"] = list({**columns, column["name"]: column}.values())
    with pytest.raises(
        OutputError, match=f"p.d.enriched_reports does not .*.avsc: {change}, or move"
    ):
        require_tables(Dataset("p.d"))


@pytest.mark.integration
def test_columns_that_take_more_than_rows_need_are_fine(bigquery: BigQueryServer) -> None:
    bigquery.make_tables()
    bigquery.schemas["enriched_reports"] = [
        {name: value for name, value in column.items() if name != "mode" or value == "REPEATED"}
        for column in bigquery.schemas["enriched_reports"]
    ] + [
        {"name": "note", "type": "STRING"},
        {**TEXT, "name": "inserted_at", "defaultValueExpression": "'now'"},
    ]
    require_tables(Dataset("p.d"))


@pytest.mark.integration
def test_a_table_that_was_made_though_the_answer_was_lost_is_taken(
    bigquery: BigQueryServer,
) -> None:
    bigquery.lost_answers = 1
    require_tables(Dataset("p.d"), create=True)
    assert set(bigquery.schemas) == set(STREAMED)


@pytest.mark.integration
@pytest.mark.parametrize("fault", ["unavailable", "passing_faults", "unknown"])
def test_a_service_that_cannot_do_it_now_is_asked_again(
    bigquery: BigQueryServer, fault: str
) -> None:
    bigquery.make_tables()
    setattr(bigquery, fault, 1)
    write("bigquery", "p.d", [element("inbound_sms", inbound("1"))])
    assert len(bigquery.rows["inbound_sms"]) == 1
    assert getattr(bigquery, fault) == 0


@pytest.mark.integration
def test_a_table_that_stays_away_is_told(
    bigquery: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "_NOT_THERE_YET", sink._NOT_THERE_YET.with_timeout(0))  # noqa: SLF001
    bigquery.make_tables()
    del bigquery.schemas["inbound_sms"]
    with pytest.raises(
        OutputError, match=r"p.d.inbound_sms does not take rows \(NotFound\): check"
    ):
        write("bigquery", "p.d", [element("inbound_sms", inbound("1"))])


@pytest.mark.integration
def test_many_rows_are_several_requests(bigquery: BigQueryServer) -> None:
    bigquery.make_tables()
    write("bigquery", "p.d", [element("inbound_sms", *(inbound(f"{n}") for n in range(1100)))])
    assert bigquery.requests == [500, 500, 100]
    large = [inbound(f"large{n}", content="很" * 300_000) for n in range(9)]
    write("bigquery", "p.d", [element("inbound_sms", *large)])
    assert len(bigquery.rows["inbound_sms"]) == 1109


def test_without_the_client_library_the_sink_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.bigquery", None)
    monkeypatch.delattr("google.cloud.bigquery", raising=False)
    with pytest.raises(OutputError, match="needs google-cloud-bigquery: pip install"):
        require_tables(Dataset("p.d"))


@pytest.mark.parametrize("name", ["d", "p.d.t", ".d", ""])
def test_a_name_that_is_no_dataset_is_refused(name: str) -> None:
    with pytest.raises(OutputError, match="PROJECT.DATASET"):
        Dataset(name)


def test_a_schema_says_what_each_column_is() -> None:
    schema = {column["name"]: column for column in bigquery_schema(STREAMED["enriched_reports"])}
    assert schema["event_id"]["mode"] == "REQUIRED"
    assert schema["report_time"]["type"] == "TIMESTAMP"
    assert schema["tags"]["mode"] == "REPEATED"
    assert [field["name"] for field in schema["tags"]["fields"]] == ["key", "value"]
    assert schema["phone_number"]["description"].startswith("Recipient as Alibaba spells it")
