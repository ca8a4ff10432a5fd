"""The contract check between decoding and everything else, as the failures room speaks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
