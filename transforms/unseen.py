"""Messages whose records stand in a table already: which rows of a redelivery are news."""

import pyarrow as pa
import pyarrow.compute as pc

from transforms.moments import beijing_days, milliseconds
from transforms.tables import Table


def seen_schema(table: Table) -> pa.Schema:
    """What is remembered of a table's rows to know their messages again."""
    return pa.schema([table.schema.field(name) for name in ("message_id", table.day_column)])


def unseen(rows: pa.Table, seen: pa.Table, table: Table) -> pa.Table:
    """The rows of messages that were not seen before, each once.

    A message may hold several records (an HTTP-push array), so what repeats a message is told by the
    records and not by the message id alone; a redelivered message has the same records in it. Whether a
    message was seen is asked for each of its days, because a backfill may have written one of them only.

    Args:
        rows: of ``table``, repeats included.
        seen: rows of ``table`` that were written before, reduced to :func:`seen_schema`.
        table: where they belong.
    """
    if not rows.num_rows:
        return rows
    is_seen = pc.is_in(message_days(rows, table), value_set=message_days(seen, table))
    newcomers = rows.filter(pc.invert(is_seen))
    comparable = [field.name for field in table.schema if not pa.types.is_map(field.type)]
    first = (
        newcomers.select(comparable)
        .append_column("row", pa.array(range(newcomers.num_rows), type=pa.int64()))
        .group_by(comparable, use_threads=False)
        .aggregate([("row", "min")])
    )
    return newcomers.take(first.column("row_min"))


def message_days(rows: pa.Table, table: Table) -> pa.ChunkedArray:
    """The message of each row, with its Beijing day."""
    days = pa.array(beijing_days(milliseconds(rows.column(table.day_column)))).cast(pa.string())
    return pc.binary_join_element_wise(rows.column("message_id"), days, "/")
