"""What a bundle of messages brings to one bucket of the keyed join."""

from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.contracts import contract
from transforms import keys
from transforms.decode import DecodedMessages
from transforms.packed import pack, unpack


class News(NamedTuple):
    """Records by kind; each table has the columns of its contract."""

    reports: pa.Table
    sends: pa.Table
    inbound: pa.Table
    answers: pa.Table
    failed: pa.Table


NEWS_CONTRACTS: Final = (
    "delivery_report",
    "send_log_entry",
    "inbound_sms",
    "query_answer",
    "failed_event",
)
# What belongs together meets in one bucket: a send with its reports, a message with its redeliveries.
_BUCKET_KEYS: Final = ("biz_id", "biz_id", "message_id", "message_id", "message_id")


def news_of(decoded: DecodedMessages) -> News:
    """Take the records out of what became of messages."""
    return News(
        *(
            pa.Table.from_batches([rows])
            for rows in (
                decoded.reports,
                decoded.sends,
                decoded.inbound,
                decoded.answers,
                decoded.failed,
            )
        )
    )


def spread(news: News, bucket_count: int) -> Iterator[tuple[int, bytes]]:
    """Pack the news of each bucket that has any."""
    parts: dict[int, dict[str, pa.Table]] = {}
    for kind, key, rows in zip(News._fields, _BUCKET_KEYS, news, strict=True):
        if not rows.num_rows:
            continue
        buckets = keys.buckets(rows.column(key).combine_chunks(), bucket_count)
        in_order = rows.take(pa.array(np.argsort(buckets, kind="stable")))
        ends = np.cumsum(np.bincount(buckets, minlength=bucket_count))
        start = 0
        for bucket, end in enumerate(ends.tolist()):
            if end > start:
                parts.setdefault(bucket, {})[kind] = in_order.slice(start, end - start)
            start = end
    for bucket in sorted(parts):
        yield bucket, pack(parts[bucket])


def unpack_news(packed: bytes) -> News:
    """Read what :func:`spread` packed, this version of the program or an earlier one."""
    tables = unpack(packed)
    return News(
        *(
            rows_of_contract(tables, kind, name)
            for kind, name in zip(News._fields, NEWS_CONTRACTS, strict=True)
        )
    )


def rows_of_contract(tables: dict[str, pa.Table], kind: str, contract_name: str) -> pa.Table:
    """One of several unpacked tables, brought to its contract as it is now; empty if it is not there."""
    rows = tables.get(kind)
    if rows is None:
        return no_rows(contract_name)
    is_current = rows.schema.equals(contract(contract_name).arrow)
    return rows if is_current else contract(contract_name).complete(rows)


@cache
def no_rows(contract_name: str) -> pa.Table:
    """The empty table of a contract, made once: that takes 50 us."""
    return contract(contract_name).arrow.empty_table()
