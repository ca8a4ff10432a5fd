"""Draw seeded SMS traffic: sends, the delivery reports that follow, and the damage on the way.

Everything is drawn as numpy columns for the whole run at once (about 100 bytes a message) and
rendered to text and records chunk by chunk, so that five million messages fit in memory.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BEIJING: Final = timezone(timedelta(hours=8))
FIRST_DAY: Final = datetime(2026, 11, 1, tzinfo=BEIJING)
DAYS: Final = 3
QUEUE_NAME: Final = "Alicom-Queue-1000000000000001-SmsReport"

# Reasons of the failed events, in the order in which bad messages take turns.
BAD_BODIES: Final = ("malformed_base64", "malformed_json", "missing_field", "wrong_type")

_BAD_SHARE: Final = 0.01
_DUPLICATE_SHARE: Final = 0.01
_MATCHED_SHARE: Final = 0.97
_FIELDS_MISSING_SHARE: Final = 0.02  # the 2017 minimum: success, biz_id, send_time (and phone)
_OUT_ID_IN_REPORT_SHARE: Final = 0.9

# One SendSms call has 1, 1, 2 or 4 recipients in turn: biz_id alone is not a key.
_CALL_OF_RECIPIENT: Final = np.array([0, 1, 2, 2, 3, 3, 3, 3])
_PLACE_IN_CALL: Final = np.array([0, 0, 0, 1, 0, 1, 2, 3])

_OUTCOMES: Final = (
    ("DELIVERED", "用户接收成功"),
    ("MK:0001", "空号"),
    ("MOBILE_NOT_ON_SERVICE", "手机停机或关机"),
    ("MOBILE_SEND_LIMIT", "单个号码日或月发送上限或频繁发送"),
    ("REJECTD", "消息因某些原因被拒绝"),
    ("CONTENT_KEYWORD", "内容包含关键字"),
    ("UNKNOWN", "未知"),
)
_OUTCOME_SHARES: Final = (0.93, 0.02, 0.015, 0.01, 0.01, 0.005, 0.01)
_SIGNS: Final = ("阿里云", "云通信", "示例商城", "示例银行", "示例出行")
_CAMPAIGNS: Final = (None, "double-eleven", "login", "parcels", "winback", "invoices", "reminders")
_TAG_SETS: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (),
    (("channel", "app"),),
    (("channel", "web"), ("region", "east")),
    (("channel", "app"), ("region", "north")),
    (("channel", "batch"), ("region", "south"), ("experiment", "b")),
)

Longs = npt.NDArray[np.int64]


class Recipients(NamedTuple):
    """One SMS per place: what was sent and what the carrier said. Times are epoch ms (UTC)."""

    biz_number: Longs
    phone_number: Longs
    requested_ms: Longs
    send_ms: Longs
    report_ms: Longs
    outcome: Longs
    style: Longs  # random bits that pick sign, template, campaign and tags
    code: Longs  # six digits in template_param
    request_number: Longs


class Deliveries(NamedTuple):
    """One queue message per place, in order of arrival."""

    recipient: Longs
    enqueued_ms: Longs
    bad: Longs  # index into BAD_BODIES, -1 for a good body
    minimal: npt.NDArray[np.bool_]
    has_out_id: npt.NDArray[np.bool_]


class Traffic(NamedTuple):
    """All that was drawn; ``logged`` are the recipients in the send log, in order of request."""

    recipients: Recipients
    logged: Longs
    deliveries: Deliveries
    expected: dict[str, int]


def draw(rows: int, seed: int) -> Traffic:
    """Draw ``rows`` messages and ``rows`` send log entries, all within ``DAYS`` Beijing days."""
    rng = np.random.default_rng(seed)
    bad, duplicates = int(rows * _BAD_SHARE), int(rows * _DUPLICATE_SHARE)
    good = rows - bad - duplicates
    matched = round(good * _MATCHED_SHARE)
    orphans = good - matched
    recipients = _draw_recipients(rng, rows + orphans)

    shuffled = rng.permutation(rows + orphans)
    reported = np.concatenate([shuffled[:orphans], shuffled[orphans : orphans + matched]])
    logged = np.sort(shuffled[orphans:])
    repeated = rng.choice(reported, duplicates, replace=False)
    broken = rng.choice(rows, bad, replace=False)
    return Traffic(
        recipients,
        logged,
        _draw_deliveries(rng, recipients, reported, repeated, broken),
        expected={
            "enriched_reports": good,
            "matched": matched,
            "orphan": orphans,
            "unreported_sends": rows - matched,
            **{
                reason: len(range(kind, bad, len(BAD_BODIES)))
                for kind, reason in enumerate(BAD_BODIES)
            },
        },
    )


def _draw_recipients(rng: np.random.Generator, count: int) -> Recipients:
    places = np.arange(count)
    call = places // 8 * 4 + _CALL_OF_RECIPIENT[places % 8]
    calls = int(call[-1]) + 1
    start = int(FIRST_DAY.timestamp() * 1000) + 300_000
    # Nobody sends after 21:00 of the last day, so the last report arrives before midnight.
    end = start + (DAYS * 24 - 3) * 3_600_000
    requested = np.sort(rng.integers(start, end, calls))[call]
    send_secs = -(-requested // 1000) + rng.exponential(3, count).astype(np.int64)
    carrier_secs = np.minimum(rng.exponential(8, count) + 1, 1800).astype(np.int64)
    return Recipients(
        biz_number=(706_000_000_000_000_000 + np.cumsum(rng.integers(1, 10**9, calls)))[call],
        phone_number=13_000_000_000
        + rng.integers(0, 860_000_000, count) * 8
        + _PLACE_IN_CALL[places % 8],
        requested_ms=requested,
        send_ms=send_secs * 1000,
        report_ms=(send_secs + carrier_secs) * 1000,
        outcome=rng.choice(len(_OUTCOMES), count, p=_OUTCOME_SHARES),
        style=rng.integers(0, 2**40, calls)[call],
        code=rng.integers(0, 10**6, count),
        request_number=rng.integers(0, 2**62, calls)[call],
    )


def _draw_deliveries(
    rng: np.random.Generator, drawn: Recipients, reported: Longs, repeated: Longs, broken: Longs
) -> Deliveries:
    recipient = np.concatenate([reported, repeated, broken])
    first = drawn.report_ms[recipient] + rng.integers(200, 3000, len(recipient))
    # A duplicate and its original must differ in arrival only: shape bits hang on the recipient.
    original_ms = np.zeros(len(drawn.report_ms), dtype=np.int64)
    original_ms[reported] = first[: len(reported)]
    enqueued = first.copy()
    second = slice(len(reported), len(reported) + len(repeated))
    enqueued[second] = original_ms[repeated] + rng.integers(1000, 3_600_000, len(repeated))
    bad = np.full(len(recipient), -1)
    bad[second.stop :] = np.arange(len(broken)) % len(BAD_BODIES)
    minimal = rng.random(len(drawn.report_ms)) < _FIELDS_MISSING_SHARE
    has_out_id = rng.random(len(drawn.report_ms)) < _OUT_ID_IN_REPORT_SHARE
    order = np.argsort(enqueued, kind="stable")
    return Deliveries(
        recipient=recipient[order],
        enqueued_ms=enqueued[order],
        bad=bad[order],
        minimal=minimal[recipient][order],
        has_out_id=has_out_id[recipient][order],
    )


def _slice(deliveries: Deliveries, part: slice) -> Deliveries:
    return Deliveries(
        deliveries.recipient[part],
        deliveries.enqueued_ms[part],
        deliveries.bad[part],
        deliveries.minimal[part],
        deliveries.has_out_id[part],
    )


def bodies(traffic: Traffic, part: slice) -> list[bytes]:
    """Render the message bodies of ``part``: base64 text of one JSON object each."""
    deliveries = _slice(traffic.deliveries, part)
    who = Recipients(*(column[deliveries.recipient] for column in traffic.recipients))
    some = pa.array(~deliveries.minimal)
    code = _labels([code for code, _ in _OUTCOMES], who.outcome)
    text = _labels([text for _, text in _OUTCOMES], who.outcome)
    wrong = deliveries.bad == BAD_BODIES.index("wrong_type")
    no_biz_id = deliveries.bad == BAD_BODIES.index("missing_field")
    documents = _join(
        _either(wrong, '{"phone_number":', '{"phone_number":"'),
        _text(who.phone_number),
        _either(wrong, ',"success":', '","success":'),
        _either(who.outcome == 0, "true", "false"),
        _only_if(pa.array(~no_biz_id), ',"biz_id":"', _text(who.biz_number), '^0"'),
        _only_if(
            pa.array(deliveries.has_out_id & ~deliveries.minimal),
            ',"out_id":"order-',
            _text(deliveries.recipient),
            '"',
        ),
        ',"send_time":"',
        _beijing(who.send_ms),
        '"',
        _only_if(some, ',"report_time":"', _beijing(who.report_ms), '"'),
        _only_if(some, ',"err_code":"', code, '","err_msg":"', text, '"'),
        _only_if(some, ',"sms_size":"', _text(1 + who.style % 7 // 5), '"'),
        "}",
    )
    encode = base64.b64encode
    rendered = [encode(document) for document in pc.cast(documents, pa.binary()).to_pylist()]
    for place in np.flatnonzero(deliveries.bad >= 0):
        reason = BAD_BODIES[int(deliveries.bad[place])]
        if reason == "malformed_base64":
            rendered[place] = rendered[place][:-5] + b"*"
        elif reason == "malformed_json":
            # A cut in whole base64 groups decodes; 60 bytes of JSON do not parse.
            rendered[place] = rendered[place][:80]
    return rendered


def send_log_columns(traffic: Traffic, part: slice) -> dict[str, Any]:
    """Render the send log entries of ``part`` as Arrow columns, times as epoch ms."""
    recipient = traffic.logged[part]
    who = Recipients(*(column[recipient] for column in traffic.recipients))
    style = who.style
    template_params = _join('{"code":"', pc.utf8_lpad(_text(who.code), 6, "0"), '"}')
    return {
        "biz_id": _join(_text(who.biz_number), "^0"),
        "phone_number": _text(who.phone_number),
        "out_id": _only_if(
            pa.array(recipient % 20 != 0), "order-", _text(recipient), otherwise=None
        ),
        "sign_name": _labels(_SIGNS, style % len(_SIGNS)),
        "template_code": _join("SMS_", _text(154_950_900 + style // 5 % 20)),
        "template_param": template_params,
        "sms_up_extend_code": _only_if(
            pa.array(style // 100 % 3 == 0), _text(style // 1000 % 1000), otherwise=None
        ),
        "campaign": _labels(_CAMPAIGNS, style // 7 % len(_CAMPAIGNS)),
        "tags": style // 49 % len(_TAG_SETS),
        "requested_at": who.requested_ms,
        "request_id": _join("8906582E-", _text(who.request_number)),
    }


def tag_sets() -> Sequence[tuple[tuple[str, str], ...]]:
    """The sets of tags that column ``tags`` of :func:`send_log_columns` points into."""
    return _TAG_SETS


def _text(numbers: Longs) -> Any:
    return pc.cast(pa.array(numbers), pa.string())


def _beijing(epoch_ms: Longs) -> Any:
    """Write times as Alibaba does: naive Beijing time, ``2026-11-01 00:00:00``."""
    local_secs = epoch_ms // 1000 + 8 * 3600
    return pc.cast(pa.array(local_secs).cast(pa.timestamp("s")), pa.string())


def _labels(labels: Sequence[str | None], indices: Longs) -> Any:
    return pa.array(labels, pa.string()).take(pa.array(indices))


def _either(condition: npt.NDArray[np.bool_], yes: str, no: str) -> Any:
    return pc.if_else(pa.array(condition), yes, no)


def _join(*parts: Any) -> Any:
    return pc.binary_join_element_wise(*parts, "")


def _only_if(condition: Any, *parts: Any, otherwise: str | None = "") -> Any:
    joined = _join(*parts) if len(parts) > 1 else parts[0]
    return pc.if_else(condition, joined, pa.scalar(otherwise, pa.string()))
