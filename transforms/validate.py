"""The contract check between decoding and everything else, as the failures room speaks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.contracts import ContractError, contract
from transforms.failures import UnusableError


def require_contract(schema_name: str, record: Mapping[str, Any]) -> None:
    """Check one record against its contract.

    Raises:
        UnusableError: ``contract_violation``; the detail names fields and types.
    """
    try:
        contract(schema_name).require(record)
    except ContractError as error:
        raise UnusableError("contract_violation", str(error)) from None


def record_batch(schema_name: str, records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Lay records out as Arrow; each must have passed :func:`require_contract`.

    What passes that check fits Arrow too, so that no record can spoil the batch for the others.
    """
    return pa.RecordBatch.from_pylist(list(records), schema=contract(schema_name).arrow)
