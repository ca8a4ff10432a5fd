"""Polars: lazy frames over Parquet on its streaming engine, the joined rows written day by day.

Of the ways tried at a million rows (CPU): ``sort().unique()`` for the duplicates 9.0 s, their few
keys looked up first 8.0 s, that with one ``sink_parquet`` a day instead of ``PartitionBy`` 6.6 s.
Polars has no MD5: hashlib does that column, in one Python loop.
"""

from __future__ import annotations

from hashlib import md5
from pathlib import Path
from typing import Final

import polars as pl

from benchmarks.competitors import FIRST_REVISION
from benchmarks.generate import Inputs

_KEY: Final = ("biz_id", "phone_number")
_TEXT_FIELDS: Final = (
    "phone_number", "biz_id", "out_id", "send_time", "report_time", "err_code", "err_msg", "sms_size"
)  # fmt: skip
_SHAPE: Final = pl.Struct({"success": pl.Boolean, **dict.fromkeys(_TEXT_FIELDS, pl.String)})
_SEND_FIELDS: Final = (
    "sign_name", "template_code", "template_param", "sms_up_extend_code", "campaign", "tags",
    "requested_at", "request_id",
)  # fmt: skip

# json_decode raises for the whole column on one text that does not parse, and Polars has nothing
# that asks first: a report is one flat object, which a regular expression can vouch for.
_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_FLAT_OBJECT: Final = (
    rf"^\{{(?:\s*{_STRING}\s*:\s*(?:{_STRING}|true|false|null|-?\d+(?:\.\d+)?)\s*(?:,|\}}$))+$"
)
_NOT_TEXT: Final = rf'"(?:{"|".join(_TEXT_FIELDS)})"\s*:\s*[^"\s]'


def run(inputs: Inputs, output: Path) -> None:
    """Do the job on all cores that Polars finds."""
    decoded = _decode(pl.scan_parquet(inputs.messages_parquet)).collect(engine="streaming").lazy()
    good = decoded.filter(pl.col("reason").is_null()).drop("reason", "original")
    sends = pl.scan_parquet(inputs.send_log_parquet)
    joined = _join(_without_duplicates(good), sends).collect(engine="streaming").lazy()
    tags_type = sends.collect_schema()["tags"]
    tables = {
        "enriched_reports": _enriched(joined, tags_type),
        "unreported_sends": _unreported(joined),
    }
    days = joined.select(pl.col("dt").unique()).collect()["dt"]
    for name, rows in tables.items():
        for day in days:
            _write(rows.filter(pl.col("dt") == day).drop("dt"), output / name / f"dt={day}")
    _write(_failed(decoded), output / "failed_events")


def _decode(messages: pl.LazyFrame) -> pl.LazyFrame:
    text = pl.col("text")
    damage = (
        pl.when(text.is_null())
        .then(pl.lit("malformed_base64"))
        .when(~text.str.contains(_FLAT_OBJECT))
        .then(pl.lit("malformed_json"))
        .when(text.str.contains(_NOT_TEXT))
        .then(pl.lit("wrong_type"))
    )
    incomplete = pl.any_horizontal(pl.col("biz_id", "success", "send_time").is_null())
    opened = pl.col("body").str.decode("base64", strict=False).cast(pl.String, strict=False)
    return (
        messages.select("message_id", "enqueued_at", "body", opened.alias("text"))
        .with_columns(damage.alias("damage"))
        .with_columns(
            pl.when(pl.col("damage").is_null()).then(text).str.json_decode(_SHAPE).alias("report")
        )
        .drop("text")
        .unnest("report")
        .with_columns(
            _utc("send_time"), _utc("report_time"), pl.col("sms_size").cast(pl.Int32, strict=False)
        )
        .with_columns(
            pl.coalesce("damage", pl.when(incomplete).then(pl.lit("missing_field"))).alias("reason")
        )
        .with_columns(
            pl.when(pl.col("reason").is_not_null()).then(pl.col("body")).alias("original")
        )
        .drop("damage", "body")
    )


def _utc(column: str) -> pl.Expr:
    local = pl.col(column).str.to_datetime(
        "%Y-%m-%d %H:%M:%S", time_unit="ms", strict=False, cache=False
    )
    return (local - pl.duration(hours=8)).dt.replace_time_zone("UTC").alias(column)


def _without_duplicates(reports: pl.LazyFrame) -> pl.LazyFrame:
    repeated = reports.group_by(_KEY).len().filter(pl.col("len") > 1)
    later = (
        reports.join(repeated, on=_KEY, how="semi")
        .sort("enqueued_at", "message_id")
        .group_by(_KEY, maintain_order=True)
        .agg(pl.col("message_id").slice(1))
        .explode("message_id")
        .select("message_id")
    )
    return reports.join(later, on="message_id", how="anti")


def _join(reports: pl.LazyFrame, sends: pl.LazyFrame) -> pl.LazyFrame:
    named = sends.rename({"out_id": "sent_out_id"}).with_columns(pl.lit(True).alias("sent"))
    key = pl.concat_str("biz_id", pl.lit("|"), "phone_number")
    day = pl.coalesce("send_time", "requested_at").dt.offset_by("8h").dt.date()
    return reports.join(named, on=_KEY, how="full", coalesce=True).with_columns(
        key.map_batches(_md5, return_dtype=pl.String).alias("event_id"), day.alias("dt")
    )


def _md5(texts: pl.Series) -> pl.Series:
    return pl.Series([md5(text).hexdigest() for text in texts.cast(pl.Binary)], dtype=pl.String)


def _enriched(joined: pl.LazyFrame, tags_type: pl.DataType) -> pl.LazyFrame:
    no_entries = pl.lit({}, dtype=tags_type)
    before = {"unknown_fields": no_entries, "tags": pl.coalesce("tags", no_entries)}
    return joined.filter(pl.col("message_id").is_not_null()).select(
        "event_id",
        pl.lit(FIRST_REVISION, pl.Int32).alias("revision"),
        pl.when("sent").then(pl.lit("matched")).otherwise(pl.lit("orphan")).alias("match"),
        pl.lit("mns").alias("origin"),
        *_KEY,
        *("success", "err_code", "err_msg"),
        pl.coalesce("out_id", "sent_out_id").alias("out_id"),
        *("sms_size", "send_time", "report_time", "message_id", "enqueued_at"),
        *(before.get(field, pl.col(field)).alias(field) for field in _SEND_FIELDS),
        before["unknown_fields"].alias("unknown_fields"),
        _elapsed_ms("requested_at", "send_time").alias("queueing_ms"),
        _elapsed_ms("send_time", "report_time").alias("carrier_ms"),
        _elapsed_ms("requested_at", "report_time").alias("total_ms"),
        "dt",
    )


def _elapsed_ms(start: str, end: str) -> pl.Expr:
    return (pl.col(end) - pl.col(start)).dt.total_milliseconds()


def _unreported(joined: pl.LazyFrame) -> pl.LazyFrame:
    return joined.filter(pl.col("message_id").is_null()).select(
        "event_id", *_KEY, pl.col("sent_out_id").alias("out_id"), *_SEND_FIELDS, "dt"
    )


def _failed(decoded: pl.LazyFrame) -> pl.LazyFrame:
    event_id = pl.concat_str(pl.lit("failed|"), "message_id").map_batches(
        _md5, return_dtype=pl.String
    )
    return decoded.filter(pl.col("reason").is_not_null()).select(
        event_id.alias("event_id"), "reason", "original", "message_id", "enqueued_at"
    )


def _write(rows: pl.LazyFrame, directory: Path) -> None:
    directory.mkdir(parents=True)
    rows.sink_parquet(
        directory / "0.parquet", compression="zstd", compression_level=1, engine="streaming"
    )
