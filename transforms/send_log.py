"""The send log, read: JSON lines, Avro and Parquet files, validated like everything else.

What a record holds beyond the fields of a send is refused, not ignored: a misspelt field would otherwise be
lost without a word.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import accumulate, islice
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, Final, NamedTuple

import datafusion
import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.avro_blocks import DamagedAvroError, count_avro_records
from transforms.failures import failed_batch, failed_event
from transforms.send_log_checks import CONTRACT_NAME, Checked, SendLogFileError
from transforms.send_log_columns import check_columns, require_columns
from transforms.send_log_lines import check_lines

JSONL: Final = ".jsonl"
AVRO: Final = ".avro"
PARQUET: Final = ".parquet"

# What leaves in one batch, about.
_ROWS: Final = 50_000
_BLOCK_BYTES: Final = 16 * 1024 * 1024

# A batch takes a fraction of a second. One that takes longer is read another way, which is slow but ends.
_LONGEST_BATCH_SECS: Final = 10.0

# What Arrow raises on damage; the last, where a column's name is not UTF-8.
_UNREADABLE_PARQUET: Final = (pa.ArrowException, OSError, UnicodeDecodeError)


class SendLogSlice(NamedTuple):
    """A part of a send log file that one worker reads.

    ``start`` and ``end`` are byte offsets: between two lines of a ``.jsonl`` file; the whole of an ``.avro``
    or ``.parquet`` file.
    """

    path: str
    start: int
    end: int


class Consumed(NamedTuple):
    """What is in the dataset of a send log file: its first ``end`` bytes, and how these end.

    ``tail`` is a digest of the last of them; it tells the file from another one under the same name.
    """

    end: int
    tail: str


class DecodedSends(NamedTuple):
    """Some records of a slice.

    ``entries`` has the columns of the ``send_log_entry`` contract, ``failed`` those of ``failed_event``.
    ``counts`` add up: ``send_log_records`` = ``sends`` + ``failed_sends``, and the latter is the sum of all
    ``failed_sends/<reason>``.
    """

    entries: pa.RecordBatch
    failed: pa.RecordBatch
    counts: Counter[str]


def read_send_log(part: SendLogSlice, failed_at: datetime) -> Iterator[DecodedSends]:
    """Read a slice, some ten thousand records at a time; memory does not grow with the file.

    Args:
        part: which part of which file.
        failed_at: aware; the moment to give to failed events.

    Raises:
        SendLogFileError: the file is gone, cut short, or not what its suffix says.
    """
    if part.path.endswith(PARQUET):
        checked_batches = _read_parquet(part.path)
    elif part.path.endswith(AVRO):
        checked_batches = _read_avro(part.path)
    else:
        checked_batches = _read_lines(part)
    for checked in checked_batches:
        yield _decoded(checked, part.path, failed_at)


def require_send_log_file(path: str) -> None:
    """Check that an Avro or Parquet file is one, and holds the columns of a send log.

    Raises:
        SendLogFileError: it is not, or does not.
    """
    if path.endswith(PARQUET):
        with _open_parquet(path) as file:
            require_columns(file.schema_arrow, path)
        return
    _count_avro_records(path)
    with suppress(_NotForDatafusionError):  # then each record will tell whether it fits
        require_columns(_open_avro(path).schema(), path)


def _decoded(checked: Checked, path: str, failed_at: datetime) -> DecodedSends:
    failed = [
        failed_event(
            refused.error,
            stage=refused.stage,
            schema_name=CONTRACT_NAME,
            original=refused.original,
            # The whole path: files of one name in two directories are two sources.
            message_id=f"{path}#{refused.position}",
            failed_at=failed_at,
            source_file=path,
        )
        for refused in checked.refused
    ]
    counts = Counter(f"failed_sends/{event.reason}" for event in failed)
    counts["sends"] = checked.entries.num_rows
    counts["failed_sends"] = len(failed)
    counts["send_log_records"] = counts["sends"] + counts["failed_sends"]
    return DecodedSends(checked.entries, failed_batch(failed), counts)


def _read_lines(part: SendLogSlice) -> Iterator[Checked]:
    with _opened(part.path) as file:
        file.seek(part.start)
        while (position := file.tell()) < part.end:
            block = file.read(min(_BLOCK_BYTES, part.end - position))
            if not block.endswith(b"\n"):
                block += file.readline(max(0, part.end - file.tell()))
            if not block:
                raise SendLogFileError(
                    f"The send log file {part.path} ends before byte {part.end}: it was cut short "
                    "while it was read. Put it back, and only ever append to it."
                )
            yield check_lines(block, position)


def _read_parquet(path: str) -> Iterator[Checked]:
    with _open_parquet(path) as file:
        require_columns(file.schema_arrow, path)
        row = 0
        for batch in _parquet_batches(file, path):
            yield check_columns(batch, row)
            row += batch.num_rows


def _parquet_batches(file: pq.ParquetFile, path: str) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(_ROWS)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)  # Parquet does not promise that its text is UTF-8
        except _UNREADABLE_PARQUET as error:
            raise _damaged(path, error) from None  # its text may quote the file
        yield batch


def _open_parquet(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except _UNREADABLE_PARQUET as error:
        raise _damaged(path, error) from None


class _NotForDatafusionError(Exception):
    """Raised when datafusion cannot read a file; fastavro may."""


def _read_avro(path: str) -> Iterator[Checked]:
    """Read a file with datafusion, which is fifteen times faster; from where it gives up, with fastavro."""
    count = _count_avro_records(path)
    row = 0
    try:
        frame = _open_avro(path)
        require_columns(frame.schema(), path)
        batches = frame.execute_stream()
        while (batch := _next_batch(batches)) is not None:
            yield check_columns(batch, row)
            row += batch.num_rows
    except _NotForDatafusionError:
        pass
    if row < count:  # given up on, or (datafusion 55) silently left off
        yield from _read_avro_slowly(path, row)


def _open_avro(path: str) -> datafusion.DataFrame:
    # One partition: rows come in the order of the file, and a worker uses one core.
    settings = datafusion.SessionConfig().with_target_partitions(1).with_batch_size(_ROWS)
    try:
        return datafusion.SessionContext(settings).read_avro(path)
    except Exception as error:  # datafusion raises nothing narrower
        raise _NotForDatafusionError from error


def _next_batch(batches: Iterator[Any]) -> pa.RecordBatch | None:
    """Ask for a batch, and do not wait for ever.

    datafusion 55 goes round and round in a block that holds more than the records of its head.
    """
    answers: SimpleQueue[Any] = SimpleQueue()
    Thread(target=_ask, args=(batches, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=_LONGEST_BATCH_SECS)
    except Empty:
        raise _NotForDatafusionError from None
    if isinstance(answer, Exception):
        raise _NotForDatafusionError from answer
    return None if answer is None else answer.to_pyarrow()


def _ask(batches: Iterator[Any], answers: SimpleQueue[Any]) -> None:
    try:
        answers.put(next(batches, None))
    except Exception as error:  # noqa: BLE001 - datafusion raises nothing narrower
        answers.put(error)


def _read_avro_slowly(path: str, first_row: int) -> Iterator[Checked]:
    """Read with fastavro, a record at a time, by way of each record's JSON text."""
    with _opened(path) as file:
        records = islice(_records(file), first_row, None)
        while lines := [_as_line(record) for record in _take(records, path)]:
            row_at = {
                start: first_row + index
                for index, start in enumerate(
                    accumulate((len(line) + 1 for line in lines), initial=0)
                )
            }
            checked = check_lines(b"\n".join(lines), 0)
            refused = [each._replace(position=row_at[each.position]) for each in checked.refused]
            yield Checked(checked.entries, refused)
            first_row += len(lines)


def _records(file: BinaryIO) -> Iterator[object]:
    blocks: Iterator[Any] = fastavro.block_reader(file)
    for block in blocks:
        yield from block
        if block.bytes_.read(1):
            raise DamagedAvroError("a block holds more than the records of its head")


def _count_avro_records(path: str) -> int:
    with _opened(path) as file:
        try:
            return count_avro_records(file)
        except DamagedAvroError as error:
            raise _damaged(path, error) from error


def _take(records: Iterator[object], path: str) -> list[object]:
    try:
        return list(islice(records, _ROWS))
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises on bytes that are no Avro
        raise _damaged(path, error) from None


def _as_line(record: object) -> bytes:
    """Write an Avro record as a line of JSON; nulls are left out."""
    if isinstance(record, dict):
        record = {name: value for name, value in record.items() if value is not None}
    return json.dumps(record, ensure_ascii=False, default=_spelled).encode()


def _spelled(value: object) -> object:
    """Spell what JSON has no type for: times as text, the rest as something that no field accepts."""
    return value.isoformat() if isinstance(value, datetime) else [type(value).__name__]


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        file = open(path, "rb")  # noqa: SIM115 -- only opening it is what may fail here
    except OSError as error:
        raise _damaged(path, error) from error
    with file:
        yield file


def _damaged(path: str, error: Exception) -> SendLogFileError:
    reason = (
        error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    )
    return SendLogFileError(
        f"The send log file {path} cannot be read ({reason}): is it complete, and may you read it? "
        "Write a file under another name and rename it when it is complete."
    )
