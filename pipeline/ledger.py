"""The ledger: every input ends in exactly one place, and the counts say so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pipeline.errors import SmsReceiptsError


class LedgerError(SmsReceiptsError):
    """Raised when counts do not add up: a bug, and a reason not to commit."""


class Balance(NamedTuple):
    """What came in, and all the places where it may have gone; the two sums are equal."""

    name: str
    came: Sequence[str]
    went: Sequence[str]


# "damaged" are messages that an archive file promises by its name and does not give back: they have failed,
# and their failed events are the parts of the file in which they were. "other_days" are records that only a
# backfill meets: it reads a day more on either side of its range, and archive files hold what they hold. They
# are in the dataset already, and stay there.
BALANCES: Final = (
    Balance("messages", ("messages",), ("decoded_messages", "failed_messages")),
    Balance("reports", ("reports",), ("reports_to_match", "other_days/reports")),
    Balance("sends", ("sends",), ("sends_to_match", "other_days/sends")),
    Balance(
        "matched reports",
        ("reports_to_match", "waiting_before"),
        ("matched_reports", "orphan_reports", "duplicate_reports", "waiting_after"),
    ),
    Balance(
        "matched sends",
        ("sends_to_match", "open_before", "unreported_before"),
        ("matched_sends", "open_after", "unreported_new", "unreported_kept", "duplicate_sends"),
    ),
    Balance(
        "rows of enriched_reports",
        ("matched_reports", "orphan_reports", "revised_rows"),
        ("rows/enriched_reports", "other_days/enriched_reports"),
    ),
    Balance(
        "rows of waiting_reports",
        ("waiting_after",),
        ("rows/waiting_reports", "other_days/waiting_reports"),
    ),
    Balance("rows of open_sends", ("open_after",), ("rows/open_sends", "other_days/open_sends")),
    Balance(
        "rows of unreported_sends",
        ("unreported_new",),
        ("rows/unreported_sends", "other_days/unreported_sends"),
    ),
    Balance(
        "inbound SMS",
        ("inbound_sms",),
        ("rows/inbound_sms", "duplicate_inbound", "other_days/inbound"),
    ),
    Balance(
        "query answers",
        ("query_answers",),
        ("rows/query_answers", "duplicate_answers", "other_days/answers"),
    ),
    # A replay that succeeds has a row, too; one that fails just as the replay before it did has none.
    Balance(
        "failed events",
        ("failed_messages", "damaged_parts", "succeeded/failed_events"),
        (
            "rows/failed_events",
            "duplicate_failed",
            "other_days/failed",
            "damaged_messages",
            "failed_as_before/failed_events",
        ),
    ),
    Balance(
        "failed sends",
        ("failed_sends", "succeeded/failed_sends"),
        ("rows/failed_sends", "other_days/failed_sends", "failed_as_before/failed_sends"),
    ),
    *(
        Balance(
            f"replayed {table}",
            (f"chosen/{table}",),
            (f"succeeded/{table}", f"failed_again/{table}", f"failed_as_before/{table}"),
        )
        for table in ("failed_events", "failed_sends")
    ),
)


def require_balance(counts: Mapping[str, int]) -> None:
    """Check that what came in is what went out.

    Raises:
        LedgerError: some of it is missing or doubled; the text names the counts.
    """
    known = Counter(counts)
    for balance in BALANCES:
        came = sum(known[name] for name in balance.came)
        went = sum(known[name] for name in balance.went)
        if came != went:
            raise LedgerError(
                f"The counts of {balance.name} do not add up: {' + '.join(balance.came)} = {came}, but "
                f"{' + '.join(balance.went)} = {went}. Nothing was committed; this is a bug of sms-receipts."
            )
