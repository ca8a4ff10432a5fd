"""QuerySendDetails: one number, one day, pages, and what a row tells (doc 419277)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emulator.open_questions import OpenQuestions
from tests.emulator.conformance.cloud import STEADY, Cloud
from tests.emulator.conformance.sources import case, source

NUMBER = "13800000001"
TODAY = "20260921"
QUERY = {"PhoneNumber": NUMBER, "SendDate": TODAY, "PageSize": "50", "CurrentPage": "1"}
SEND = {"PhoneNumbers": NUMBER, "SignName": "星河商城", "TemplateCode": "SMS_154950901"}
INVALID = (200, "isv.INVALID_PARAMETERS")
ILLEGAL = (200, "isv.MOBILE_NUMBER_ILLEGAL")
OK = (200, "OK")


def rows(cloud: Cloud, **given: str) -> list[dict[str, object]]:
    reply = cloud.rpc.call("QuerySendDetails", **{**QUERY, **given})
    assert reply.outcome == OK
    found: list[dict[str, object]] = reply.json["SmsSendDetailDTOs"]["SmsSendDetailDTO"]
    return found


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        case("419277", "today", {"SendDate": "20260921"}, OK),
        case("419277", "30 days ago", {"SendDate": "20260822"}, OK),
        case("419277", "31 days ago", {"SendDate": "20260821"}, INVALID),
        case("419277", "tomorrow", {"SendDate": "20260922"}, INVALID),
        case("419277", "years ago", {"SendDate": "20170901"}, INVALID),
        case("419277", "another form", {"SendDate": "2026-09-21"}, INVALID),
        case("419277", "single digits", {"SendDate": "2026921"}, INVALID),
        case("419277", "no such day", {"SendDate": "20260931"}, INVALID),
        case("419277", "no day", {"SendDate": None}, (400, "MissingSendDate")),
        case("419277", "a page of 1", {"PageSize": "1"}, OK),
        case("419277", "a page of 50", {"PageSize": "50"}, OK),
        case("419277", "a page of 0", {"PageSize": "0"}, INVALID),
        case("419277", "a page of 51", {"PageSize": "51"}, INVALID),
        case("419277", "a page of words", {"PageSize": "ten"}, INVALID),
        case("419277", "zeros hide no 51", {"PageSize": "0" * 20 + "51"}, INVALID),
        case("419277", "no page size", {"PageSize": None}, (400, "MissingPageSize")),
        case("419277", "page 0", {"CurrentPage": "0"}, INVALID),
        case("419277", "page -1", {"CurrentPage": "-1"}, INVALID),
        case("inferred", "a page without an end", {"CurrentPage": "9" * 5000}, INVALID),
        case("419277", "a page beyond the last", {"CurrentPage": "99"}, OK),
        case("419277", "no page", {"CurrentPage": None}, (400, "MissingCurrentPage")),
        case("419277", "no number", {"PhoneNumber": None}, (400, "MissingPhoneNumber")),
        case("419277", "two numbers", {"PhoneNumber": f"{NUMBER},{NUMBER}"}, ILLEGAL),
        case("419277", "a number of letters", {"PhoneNumber": "nobody"}, ILLEGAL),
        case("419277", "a number abroad", {"PhoneNumber": "8521245567"}, OK),
        case("419277", "a BizId", {"BizId": "900619746936498440^0"}, OK),
    ],
)  # fmt: skip
def test_a_query_is_checked(
    cloud: Cloud, given: dict[str, str | None], outcome: tuple[int, str]
) -> None:
    assert cloud.rpc.call("QuerySendDetails", **{**QUERY, **given}).outcome == outcome


@pytest.mark.parametrize("beijing", ["2026-09-22 00:00:00", "2026-09-22 23:59:59"])
@source("protocol 4")
def test_the_last_30_days_are_beijing_days(cloud: Cloud, beijing: str) -> None:
    # The cloud's time begins at 2026-09-21 22:13:20 in Beijing.
    midnight_secs = 6_400
    cloud.wait(midnight_secs if beijing.endswith("00:00:00") else midnight_secs + 86_399)
    for day, outcome in {"20260922": OK, "20260823": OK, "20260822": INVALID}.items():
        assert cloud.rpc.call("QuerySendDetails", **{**QUERY, "SendDate": day}).outcome == outcome


@source("protocol 4")
def test_a_send_belongs_to_its_beijing_day(cloud: Cloud) -> None:
    cloud.wait(6_399)
    cloud.rpc.call("SendSms", **SEND, OutId="before midnight")
    cloud.wait(1)
    cloud.rpc.call("SendSms", **SEND, OutId="after midnight")
    assert [row["OutId"] for row in rows(cloud)] == ["before midnight"]
    assert [row["OutId"] for row in rows(cloud, SendDate="20260922")] == ["after midnight"]


@source("419277")
def test_the_pages_are_the_whole(cloud: Cloud) -> None:
    for number in range(7):
        cloud.rpc.call("SendSms", **SEND, OutId=str(number))
    pages = [rows(cloud, PageSize="3", CurrentPage=page) for page in "1234"]
    assert [[row["OutId"] for row in page] for page in pages] == [
        ["0", "1", "2"], ["3", "4", "5"], ["6"], [],
    ]  # fmt: skip


@source("SDK")
def test_the_total_counts_all_pages_and_is_a_text(cloud: Cloud) -> None:
    for _ in range(3):
        cloud.rpc.call("SendSms", **SEND)
    answer = cloud.rpc.call("QuerySendDetails", **{**QUERY, "PageSize": "1"}).json
    assert answer["TotalCount"] == "3"
    assert set(answer) == {"Code", "Message", "RequestId", "TotalCount", "SmsSendDetailDTOs"}


@pytest.mark.parametrize(
    ("sends", "size", "totals"),
    [
        case("protocol 4", "nothing", 0, 2, (0, 0)),
        case("protocol 4", "a page that is just full", 2, 2, (2, 1)),
        case("protocol 4", "one more", 3, 2, (3, 2)),
    ],
)
def test_the_totals_of_2017_are_numbers(sends: int, size: int, totals: tuple[int, int]) -> None:
    cloud = Cloud(OpenQuestions(details_of_2017=True))
    for _ in range(sends):
        cloud.rpc.call("SendSms", **SEND)
    answer = cloud.rpc.call("QuerySendDetails", **{**QUERY, "PageSize": str(size)}).json
    assert (answer["TotalCount"], answer["TotalPage"]) == totals


@source("419277")
def test_a_biz_id_filters(cloud: Cloud) -> None:
    cloud.rpc.call("SendSms", **SEND, OutId="a")
    biz_id = cloud.rpc.call("SendSms", **SEND, OutId="b").json["BizId"]
    assert [row["OutId"] for row in rows(cloud, BizId=biz_id)] == ["b"]
    assert rows(cloud, BizId="900619746936498440^0") == []


@source("419277")
def test_a_query_is_about_one_number(cloud: Cloud) -> None:
    cloud.rpc.call("SendSms", **{**SEND, "PhoneNumbers": f"{NUMBER},13800000002"})
    assert [row["PhoneNum"] for row in rows(cloud)] == [NUMBER]
    assert rows(cloud, PhoneNumber="13800000003") == []


@pytest.mark.parametrize(
    ("rates", "statuses"),
    [
        case("419277", "delivered", {}, [1, 3]),
        case("419277", "failed", {"failure": 1}, [1, 2]),
        case("419277", "never reported", {"silent": 1}, [1, 1]),
        case("protocol 4", "reported, but not to the queue", {"lost": 1}, [1, 3]),
    ],
)
def test_a_status_is_1_until_the_carrier_reports(
    rates: dict[str, float], statuses: list[int]
) -> None:
    cloud = Cloud(carrier=replace(STEADY, delay_secs=10, **rates))
    cloud.rpc.call("SendSms", **SEND)
    before = rows(cloud)[0]["SendStatus"]
    cloud.wait(3_600)
    assert [before, rows(cloud)[0]["SendStatus"]] == statuses


@source("419277")
def test_a_row_has_these_fields(cloud: Cloud) -> None:
    cloud.rpc.call("SendSms", **SEND, TemplateParam='{"code":"1"}', OutId="order-1")
    (row,) = rows(cloud)
    assert row.pop("Content") == '【星河商城】SMS_154950901 {"code":"1"}'
    assert row == {
        "PhoneNum": NUMBER,
        "SendStatus": 3,
        "ErrCode": "DELIVERED",
        "TemplateCode": "SMS_154950901",
        "SendDate": "2026-09-21 22:13:20",
        "ReceiveDate": "2026-09-21 22:13:20",
        "OutId": "order-1",
    }


@source("protocol 4")
def test_a_row_that_waits_has_neither_error_nor_receive_date() -> None:
    cloud = Cloud(carrier=replace(STEADY, silent=1))
    cloud.rpc.call("SendSms", **SEND)
    (row,) = rows(cloud)
    assert set(row) == {"PhoneNum", "SendStatus", "TemplateCode", "Content", "SendDate"}
