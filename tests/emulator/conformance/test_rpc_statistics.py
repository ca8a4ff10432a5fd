"""QuerySendStatistics: totals of each Beijing day, by where they went, sign and type (doc 397330)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alibabacloud_dysmsapi20170525.models import QuerySendStatisticsResponseBody

from tests.emulator.conformance.cloud import STEADY, Cloud
from tests.emulator.conformance.sources import case, source

TODAY, TOMORROW = "20260921", "20260922"
# The cloud's time begins at 2026-09-21 22:13:20 in Beijing.
TO_MIDNIGHT_SECS = 6_400
QUERY = {
    "StartDate": TODAY, "EndDate": TOMORROW, "IsGlobe": "1", "PageSize": "50", "PageIndex": "1",
}  # fmt: skip
SEND = {"PhoneNumbers": "13800000001", "SignName": "星河商城", "TemplateCode": "SMS_154950901"}
INVALID = (200, "isv.INVALID_PARAMETERS")
OK = (200, "OK")


def totals(cloud: Cloud, **given: str) -> list[tuple[str, int, int, int, int]]:
    """Each day: total, delivered, failed, awaiting; read by the models of Alibaba's own client."""
    reply = cloud.rpc.call("QuerySendStatistics", **{**QUERY, **given})
    assert reply.outcome == OK
    data = QuerySendStatisticsResponseBody().from_map(reply.json).data
    return [
        (
            row.send_date,
            row.total_count,
            row.responded_success_count,
            row.responded_fail_count,
            row.no_responded_count,
        )
        for row in data.target_list
    ]


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        case("397330", "two days", {}, OK),
        case("397330", "one day", {"EndDate": TODAY}, OK),
        case("inferred", "an end before the start", {"StartDate": TOMORROW, "EndDate": TODAY}, INVALID),
        case("397330", "another form", {"StartDate": "2026-09-21"}, INVALID),
        case("397330", "single digits", {"StartDate": "2026921"}, INVALID),
        case("397330", "no such day", {"EndDate": "20260931"}, INVALID),
        case("397330", "no start", {"StartDate": None}, (400, "MissingStartDate")),
        case("397330", "no end", {"EndDate": None}, (400, "MissingEndDate")),
        case("397330", "abroad", {"IsGlobe": "2"}, OK),
        case("397330", "nowhere", {"IsGlobe": "3"}, INVALID),
        case("397330", "no scope", {"IsGlobe": None}, (400, "MissingIsGlobe")),
        case("397330", "a page of 51", {"PageSize": "51"}, INVALID),
        case("397330", "no page size", {"PageSize": None}, (400, "MissingPageSize")),
        case("397330", "page 0", {"PageIndex": "0"}, INVALID),
        case("397330", "no page", {"PageIndex": None}, (400, "MissingPageIndex")),
        case("397330", "a template type", {"TemplateType": "7"}, OK),
        case("397330", "no such type", {"TemplateType": "4"}, INVALID),
    ],
)  # fmt: skip
def test_a_query_is_checked(
    cloud: Cloud, given: dict[str, str | None], outcome: tuple[int, str]
) -> None:
    assert cloud.rpc.call("QuerySendStatistics", **{**QUERY, **given}).outcome == outcome


@pytest.mark.parametrize(
    ("rates", "day"),
    [
        case("397330", "delivered", {}, (TODAY, 2, 2, 0, 0)),
        case("397330", "failed", {"failure": 1}, (TODAY, 2, 0, 2, 0)),
        case("397330", "never reported", {"silent": 1}, (TODAY, 2, 0, 0, 2)),
        case("397330", "reported, but not to the queue", {"lost": 1}, (TODAY, 2, 2, 0, 0)),
    ],
)
def test_every_recipient_counts_once(
    rates: dict[str, float], day: tuple[str, int, int, int, int]
) -> None:
    cloud = Cloud(carrier=replace(STEADY, **rates))
    cloud.rpc.call("SendSms", **{**SEND, "PhoneNumbers": "13800000001,13800000002"})
    assert totals(cloud) == [day]


@source("397330")
def test_an_sms_awaits_its_receipt_until_it_has_come() -> None:
    cloud = Cloud(carrier=replace(STEADY, delay_secs=10))
    cloud.rpc.call("SendSms", **SEND)
    assert totals(cloud) == [(TODAY, 1, 0, 0, 1)]
    cloud.wait(3_600)
    assert totals(cloud) == [(TODAY, 1, 1, 0, 0)]


@source("397330")
def test_days_are_beijing_days_and_those_without_sms_are_left_out(cloud: Cloud) -> None:
    for _ in range(2):
        cloud.wait(TO_MIDNIGHT_SECS - 1)
        cloud.rpc.call("SendSms", **SEND)
        cloud.wait(1 + 2 * 86_400 - TO_MIDNIGHT_SECS)
    assert totals(cloud, EndDate="20260930") == [(TODAY, 1, 1, 0, 0), ("20260923", 1, 1, 0, 0)]
    assert totals(cloud, StartDate=TOMORROW, EndDate=TOMORROW) == []


@source("397330")
def test_the_pages_are_the_whole(cloud: Cloud) -> None:
    for _ in range(3):
        cloud.rpc.call("SendSms", **SEND)
        cloud.wait(86_400)
    pages = [
        [day[0] for day in totals(cloud, EndDate="20260930", PageSize="2", PageIndex=page)]
        for page in "123"
    ]
    assert pages == [[TODAY, TOMORROW], ["20260923"], []]
    answer = cloud.rpc.call("QuerySendStatistics", **{**QUERY, "EndDate": "20260930"}).json
    assert answer["Data"]["TotalSize"] == 3


@pytest.mark.parametrize(
    ("given", "count"),
    [
        case("397330", "one sign", {"SignName": "星河商城"}, 1),
        case("397330", "another sign", {"SignName": "星河会员"}, 2),
        case("397330", "login codes", {"TemplateType": "0"}, 1),
        case("397330", "promotions", {"TemplateType": "2"}, 2),
        case("397330", "abroad", {"IsGlobe": "2"}, 3),
        case("397330", "a sign that sends something else", {"SignName": "星河商城", "TemplateType": "2"}, 0),
    ],
)  # fmt: skip
def test_what_is_counted_can_be_chosen(cloud: Cloud, given: dict[str, str], count: int) -> None:
    member = {"SignName": "星河会员", "TemplateCode": "SMS_154950905"}
    cloud.rpc.call("SendSms", **SEND)
    numbers = "+8613800000001,008613800000002"
    cloud.rpc.call("SendSms", **{**SEND, **member, "PhoneNumbers": numbers})
    numbers = "8521245567,4412345678901,85212345678"
    cloud.rpc.call("SendSms", **{**SEND, "PhoneNumbers": numbers})
    assert sum(day[1] for day in totals(cloud, **given)) == count
