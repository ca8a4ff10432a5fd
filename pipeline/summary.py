"""The end of a run, in words: one line per count, and whether they add up."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipeline.ledger import LedgerError, require_balance
from pipeline.run import RunCounts


class Line(NamedTuple):
    """One line of the summary."""

    name: str
    number: int
    remark: str = ""


def run_summary(counts: RunCounts) -> str:
    """Lay out what a run did."""
    landed, processed = counts.landed, counts.processed
    lines = [
        Line("received", landed["received"], _redelivered(landed["redelivered"])),
        Line("released", landed["released"], "given back to the queue unread"),
        Line("archived", landed["archived"]),
        Line("acknowledged", landed["acknowledged"], _unacknowledged(landed)),
        Line("pending before", counts.pending_before, "archived by an earlier run"),
        *_processed_lines(processed),
        Line("pending after", counts.pending_after, "archived, not processed yet"),
    ]
    always = {"received", "archived", "acknowledged"}
    return _laid_out([line for line in lines if line.number or line.name in always])


def graph_summary(counts: Mapping[str, int]) -> str:
    """Lay out what one run of the bounded graph did."""
    return _laid_out(list(_processed_lines(counts)))


def require_closed_ledger(counts: RunCounts) -> str:
    """Check that every message that was received is accounted for.

    Returns:
        The sums, as a sentence.

    Raises:
        LedgerError: they do not add up.
    """
    require_balance(counts.processed)
    landed, messages = counts.landed, counts.processed["messages"]
    settled = landed["acknowledged"] + landed["unacknowledged"] + landed["unconfirmed"]
    balances = (
        ("received", landed["received"], landed["archived"] + landed["released"]),
        ("archived", landed["archived"], settled),
        (
            "processed",
            counts.pending_before + landed["archived"],
            messages + counts.pending_after,
        ),
    )
    for name, came, went in balances:
        if came != went:
            raise LedgerError(
                f"The counts of {name} messages do not add up ({came} and {went}): no message is lost, the "
                "archive has all that were acknowledged; please report this as a bug of sms-receipts."
            )
    return (
        f"The ledger is closed: {messages:,} messages = {counts.processed['decoded_messages']:,} decoded + "
        f"{counts.processed['failed_messages']:,} failed; every record is in exactly one place."
    )


def _processed_lines(counts: Mapping[str, int]) -> Iterator[Line]:
    def count(name: str) -> int:
        return counts.get(name, 0)

    yield Line("decoded", count("decoded_messages"), "messages")
    yield Line("failed", count("failed_messages"), "messages; see the table failed_events")
    reasons = sorted(name for name in counts if name.startswith("failed/") and count(name))
    for name in reasons:
        yield Line(f"  {name.removeprefix('failed/')}", count(name))
    yield Line("reports", count("reports_to_match"), "delivery reports")
    if count("waiting_before"):
        yield Line("  waited before", count("waiting_before"))
    yield Line("  matched", count("matched_reports"), "joined with their send")
    yield Line("  orphan", count("orphan_reports"), "no send came within the patience")
    yield Line("  duplicates", count("duplicate_reports"), "redelivered, or reported twice")
    yield Line("  waiting", count("waiting_after"), "for their send")
    if count("corrections"):
        yield Line("corrections", count("corrections"), "of the above: a later, different outcome")
    yield Line("inbound SMS", count("inbound_sms"), "replies")
    yield Line("sends", count("sends_to_match"), "send log entries")
    if count("open_before"):
        yield Line("  were open before", count("open_before"))
    yield Line("  matched", count("matched_sends"), "joined with their report")
    yield Line("  open", count("open_after"), "wait for their report")
    yield Line("  unreported", count("unreported_new"), "no report came within the patience")
    yield Line("  duplicates", count("duplicate_sends"), "logged twice")
    if count("failed_sends"):
        yield Line("failed sends", count("failed_sends"), "see the table failed_sends")


def _redelivered(count: int) -> str:
    return f"of these, {count:,} had been delivered before" if count else ""


def _unacknowledged(landed: Mapping[str, int]) -> str:
    missing = landed["archived"] - landed["acknowledged"]
    return f"{missing:,} will come once more" if missing else "deleted from the queues"


def _laid_out(lines: Sequence[Line]) -> str:
    return "\n".join(f"{line.name:<20}{line.number:>12,}  {line.remark}".rstrip() for line in lines)
