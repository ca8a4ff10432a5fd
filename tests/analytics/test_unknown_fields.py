"""What Alibaba adds tomorrow shows in the report, by name."""

import base64
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics.report import main as report_command
from tests.analytics.dataset import DAY_1, DAY_2, Dataset, inbound, report, waiting
from tests.job.small_job import NOON as SENT_AT
from tests.job.small_job import SmallJob
from tests.job.small_job import report as report_message

SECRET = '"13800000000"'


def unknown_fields(
    made: Dataset, capsys: pytest.CaptureFixture[str], *arguments: str
) -> list[dict[str, Any]]:
    flags = ("--dataset", str(made.directory), "--sql", "unknown_fields", "--json", *arguments)
    assert report_command(flags) == 0
    printed = capsys.readouterr().out
    assert SECRET not in printed
    rows: list[dict[str, Any]] = json.loads(printed)["answers"]["unknown_fields"]["rows"]
    return rows


def row(field: str, record: str, records: int, first_day: str, last_day: str) -> dict[str, Any]:
    return {
        "field": field,
        "record": record,
        "records": records,
        "first_day": first_day,
        "last_day": last_day,
    }


def test_every_field_without_a_column_is_named_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Dataset(tmp_path / "dataset")
    one, two = {"carrier_code": SECRET}, {"carrier_code": SECRET, "mood": SECRET}
    made.add("enriched_reports", DAY_1, [report("1", unknown_fields=one), report("2")])
    made.add("waiting_reports", DAY_2, [waiting("3", DAY_2) | {"unknown_fields": one}])
    made.add("inbound_sms", DAY_2, [inbound("i1", DAY_2, unknown_fields=two)])
    made.commit()

    assert unknown_fields(made, capsys) == [
        row("carrier_code", "delivery report", 2, DAY_1, DAY_2),
        row("carrier_code", "inbound SMS", 1, DAY_2, DAY_2),
        row("mood", "inbound SMS", 1, DAY_2, DAY_2),
    ]
    assert unknown_fields(made, capsys, "--to", DAY_1) == [
        row("carrier_code", "delivery report", 1, DAY_1, DAY_1)
    ]


def test_without_such_fields_there_is_nothing_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Dataset(tmp_path / "dataset")
    made.add("enriched_reports", DAY_1, [report("1")])
    made.commit()
    assert unknown_fields(made, capsys) == []


@pytest.mark.integration
def test_a_tenth_field_of_alibabas_loses_nothing_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = SmallJob(tmp_path / "job")
    job.send("a")
    nine = report_message("a")
    fields = {**json.loads(base64.b64decode(nine.body)), "carrier_code": {"CMCC": 1.50}}
    job.land(nine._replace(body=base64.b64encode(json.dumps(fields).encode())))
    job.epoch(SENT_AT + timedelta(hours=1))

    assert job.tables() == job.expected(SENT_AT + timedelta(hours=1))
    (stored,) = job.tables().enriched.values()
    assert stored["unknown_fields"] == {"carrier_code": '{"CMCC": 1.5}'}
    assert report_command(["--dataset", str(job.dataset), "--sql", "unknown_fields"]) == 0
    assert re.search(r"carrier_code +delivery report +1 ", capsys.readouterr().out)
