"""BigQuery: tables, and a service that cannot do it now or does not take a row."""

import sys
import traceback

import pytest

from pipeline.errors import OutputError
from pipeline.sinks.bigquery import Dataset, bigquery_schema, require_tables
from pipeline.sinks.rows import STREAMED
from tests.analytics.dataset import inbound
from tests.sinks.bigquery_server import BigQueryServer
from tests.sinks.samples import BUNDLES, element
from tests.sinks.writer import write


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
    with pytest.raises(OutputError, match="lacks the column.* message_id, enqueued_at: add them"):
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
def test_a_service_that_cannot_do_it_now_is_asked_again(bigquery: BigQueryServer) -> None:
    bigquery.make_tables()
    bigquery.unavailable = bigquery.passing_faults = 1
    write("bigquery", "p.d", [element("inbound_sms", inbound("1"))])
    assert len(bigquery.rows["inbound_sms"]) == 1
    assert (bigquery.unavailable, bigquery.passing_faults) == (0, 0)


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
