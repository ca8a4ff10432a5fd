"""Idiomatic Beam: one element a record, CoGroupByKey of dicts, Beam's own Avro and Parquet I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.avroio import ReadFromAvro
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PCollection, TaggedOutput

from benchmarks import traffic
from benchmarks.competitors import rows
from benchmarks.generate import Inputs

_FAILED: Final = "failed"
_UNREPORTED: Final = "unreported"


def run_with_validate(inputs: Inputs, output: Path) -> None:
    """Do the job with json, strptime and ``fastavro.validate`` as documented."""
    _run(inputs, output, rows.WITH_VALIDATE)


def run_with_msgspec(inputs: Inputs, output: Path) -> None:
    """Do the job with a typed msgspec decoder."""
    _run(inputs, output, rows.decode_with_msgspec)


def _run(inputs: Inputs, output: Path, decode: rows.Decode) -> None:
    options = PipelineOptions(["--runner=FnApiRunner"])
    with beam.Pipeline(options=options) as pipeline:
        messages = pipeline | "ReadArchive" >> ReadFromAvro(inputs.archive_files)
        decoded = messages | "Decode" >> beam.ParDo(_DecodeFn(decode)).with_outputs(
            _FAILED, main="reports"
        )
        reports = decoded.reports | "KeyReports" >> beam.Map(_keyed)
        sends = (
            pipeline
            | "ReadSendLog" >> ReadFromAvro(inputs.send_log_avro)
            | "FromSendLog" >> beam.Map(rows.from_send_log)
            | "KeySends" >> beam.Map(_keyed)
        )
        matched = (
            {"reports": reports, "sends": sends}
            | "GroupByKey" >> beam.CoGroupByKey()
            | "Match" >> beam.FlatMap(_match).with_outputs(_UNREPORTED, main="enriched")
        )
        _write_by_day(matched.enriched, output / "enriched_reports", "send_time", rows.ENRICHED)
        _write_by_day(
            matched[_UNREPORTED], output / "unreported_sends", "requested_at", rows.UNREPORTED
        )
        _ = decoded[_FAILED] | "WriteFailedEvents" >> _write(output / "failed_events", rows.FAILED)


class _DecodeFn(beam.DoFn):
    def __init__(self, decode: rows.Decode) -> None:
        self._decode = decode

    def process(
        self, element: Mapping[str, Any]
    ) -> Iterator[rows.Record | TaggedOutput[Literal["failed"], rows.Record]]:
        try:
            yield self._decode(element)
        except rows.BadMessageError as error:
            yield TaggedOutput(_FAILED, rows.failed(element, str(error)))


def _keyed(record: rows.Record) -> tuple[tuple[str, str], Any]:
    # Any: pickled as a whole, a dict is coded faster than value by value.
    return rows.key(record), record


def _match(
    group: tuple[tuple[str, str], Mapping[str, Iterable[rows.Record]]],
) -> Iterator[rows.Record | TaggedOutput[Literal["unreported"], rows.Record]]:
    _, sides = group
    reports, sends = list(sides["reports"]), list(sides["sends"])
    send = sends[0] if sends else None
    if reports:
        yield rows.enrich(rows.first(reports), send)
    elif send:
        yield TaggedOutput(_UNREPORTED, rows.unreported(send))


class _DayFn(beam.PartitionFn):
    """Partition ``n`` holds the records of the n-th day."""

    def __init__(self, days: Sequence[str], time_field: str) -> None:
        self._days = {day: number for number, day in enumerate(days)}
        self._time_field = time_field

    def partition_for(self, element: Any, num_partitions: int, *_args: Any, **_kwargs: Any) -> int:
        del num_partitions
        return self._days[rows.beijing_day(element[self._time_field])]


def _write_by_day(
    records: PCollection[rows.Record], directory: Path, time_field: str, schema: pa.Schema
) -> None:
    """Write a file a day: WriteToParquet has one destination, so the days are known beforehand."""
    days = [
        (traffic.FIRST_DAY + timedelta(days=day)).date().isoformat() for day in range(traffic.DAYS)
    ]
    name = directory.name
    partition = beam.Partition(_DayFn(days, time_field), len(days))
    for day, part in zip(days, records | f"Partition {name}" >> partition, strict=True):
        _ = part | f"Write {name} {day}" >> _write(directory / f"dt={day}", schema)


def _write(directory: Path, schema: pa.Schema) -> WriteToParquet:
    return WriteToParquet(
        str(directory / "part"), schema=schema, codec="zstd", file_name_suffix=".parquet"
    )
