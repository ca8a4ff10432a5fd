"""The ledger: no count may be missing, and a missing one is named."""

import pytest

from pipeline.errors import OperatorError
from pipeline.ledger import BALANCES, Balance, LedgerError, require_balance


def test_nothing_balances() -> None:
    require_balance({})


def test_counts_that_add_up_pass() -> None:
    require_balance(
        {
            "messages": 5,
            "decoded_messages": 4,
            "failed_messages": 1,
            "rows/failed_events": 1,
            "reports": 4,
            "reports_to_match": 3,
            "other_days/reports": 1,
            "waiting_before": 1,
            "matched_reports": 2,
            "duplicate_reports": 1,
            "waiting_after": 1,
            "rows/waiting_reports": 1,
            "rows/enriched_reports": 2,
            "sends": 2,
            "sends_to_match": 2,
            "open_before": 1,
            "matched_sends": 2,
            "open_after": 1,
            "rows/open_sends": 1,
        }
    )


@pytest.mark.parametrize("balance", BALANCES, ids=lambda balance: balance.name)
def test_a_record_that_came_and_never_went_is_missed(balance: Balance) -> None:
    name = balance.came[0]

    # A count may be on either side of several balances: any of them may complain first.
    with pytest.raises(LedgerError, match=rf"do not add up: .*{name}"):
        require_balance({name: 1})


@pytest.mark.parametrize("balance", BALANCES, ids=lambda balance: balance.name)
def test_a_record_that_went_and_never_came_is_noticed(balance: Balance) -> None:
    name = balance.went[0]

    with pytest.raises(LedgerError, match="Nothing was committed"):
        require_balance({name: 1})


def test_counts_that_do_not_add_up_are_a_bug_not_an_operators_error() -> None:
    assert not issubclass(LedgerError, OperatorError)
