"""Messages as Arrow columns, as the decoder takes them."""

from collections.abc import Sequence

import pyarrow as pa

from schemas.contracts import contract
from schemas.records import MnsMessage


def message_batch(messages: Sequence[MnsMessage]) -> pa.RecordBatch:
    """Lay messages out as rows of ``mns_message``, in their order; at least one."""
    schema = contract("mns_message").arrow
    columns = zip(zip(*messages, strict=True), schema, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in columns], schema=schema
    )
