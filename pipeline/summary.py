"""A run in words: a line on how it is doing, and at its end one per count, and whether they add up."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pipeline.health import RunCounts, Snapshot
from pipeline.ledger import LedgerError, require_balance

# From here on a status line speaks of trouble; the alerts of docs/operations.md have the same figures.
_SILENT_SECS: Final = 120.0  # a long poll takes 30 s at most
_FAILED_SHARE: Final = 0.1
_UNDELETED_SHARE: Final = 0.01
_BEHIND_SECS: Final = 900.0
# So many reasons to fail have their number on it; metrics and the summary have all.
_REASONS: Final = 3


class Line(NamedTuple):
    """One line of the summary."""

    name: str
    number: int
    remark: str = ""


def status_line(snapshot: Snapshot) -> str:
    """Tell how a run is doing: ok or what is wrong, what became of the messages, and how far behind it is."""
    troubles = "; ".join(troubles_of(snapshot).values())
    return " | ".join(
        (
            f"status: {f'TROUBLE: {troubles}' if troubles else 'ok'}",
            f"queues: {_queues(snapshot)}",
            f"tables: {_tables(snapshot)}",
        )
    )


def _queues(snapshot: Snapshot) -> str:
    """What was received and what became of it; the oldest that is at hand; how long tokens are good."""
    landed, held = snapshot.landed, snapshot.oldest_held_secs
    deleted = landed.acknowledged + landed.unconfirmed
    # Cut off, not rounded: all is only said of all.
    share = 10_000 * deleted // landed.received / 100 if landed.received else 100
    parts = [
        f"{landed.received:,} received, {landed.archived:,} archived, "
        f"{deleted:,} deleted ({share:g}%), {landed.redelivered:,} redelivered"
    ]
    if held:
        parts.append(f"oldest at hand {_span(held)}")
    if snapshot.token_secs:
        parts.append(f"token good for {_span(max(0.0, min(snapshot.token_secs.values())))}")
    return ", ".join(parts)


def _tables(snapshot: Snapshot) -> str:
    """What became of the records, and how old the oldest message is that is not among them."""
    count = Counter(snapshot.processed)
    parts = [f"{count['matched_reports']:,} matched"]
    if snapshot.epochs:  # the tables tell, and they are read by epochs
        parts.append(f"{count['waiting_after']:,} waiting, {count['open_after']:,} open")
    parts.append(f"{count['failed_messages']:,} failed{_reasons(count)}")
    behind = snapshot.oldest_unprocessed_secs
    parts.append(f"{_span(behind)} behind" if behind else "up to date")
    return ", ".join(parts)


def _reasons(count: Counter[str]) -> str:
    """The most frequent reasons to fail."""
    failed = Counter({name: count[name] for name in count if name.startswith("failed/")})
    most = [(name.removeprefix("failed/"), number) for name, number in failed.most_common(_REASONS)]
    others = failed.total() - sum(number for _, number in most)
    reasons = [f"{number:,} {name}" for name, number in (*most, ("others", others)) if number]
    return f" ({', '.join(reasons)})" if reasons else ""


def troubles_of(snapshot: Snapshot) -> dict[str, str]:
    """Say what is wrong, each under a name that stays while it lasts."""
    troubles = _troubles_of_queues(snapshot)
    if snapshot.processing_failure is not None:
        troubles["processing"] = (
            f"the tables cannot be brought up to date, landing goes on: {snapshot.processing_failure}"
        )
    if snapshot.oldest_unprocessed_secs >= _BEHIND_SECS:
        troubles["behind"] = f"{snapshot.unprocessed_messages:,} messages wait in the archive"
    damaged = snapshot.processed.get("damaged_messages", 0)
    if damaged:
        troubles["damaged"] = f"{damaged:,} messages are lost in damaged archive files"
    return troubles


def _troubles_of_queues(snapshot: Snapshot) -> dict[str, str]:
    troubles = {}
    for queue_name, secs in snapshot.silent_secs.items():
        if secs >= _SILENT_SECS:
            troubles[f"silent {queue_name}"] = f"no answer from {queue_name} for {_span(secs)}"
    for queue_name, secs in snapshot.token_secs.items():
        if secs <= 0:  # it should have been replaced 2 minutes before
            troubles[f"token {queue_name}"] = (
                f"the token of {queue_name} has ended, no new one came"
            )
    for queue_name, share in snapshot.failed_share.items():
        if share >= _FAILED_SHARE:
            troubles[f"failed {queue_name}"] = (
                f"{share:.0%} of the last messages of {queue_name} cannot be used"
            )
    read = snapshot.last_read
    if read.unacknowledged > _UNDELETED_SHARE * read.archived:
        troubles["undeleted"] = (
            f"{read.unacknowledged:,} of {read.archived:,} archived messages could not be deleted, they "
            "come again"
        )
    return troubles


def _span(secs: float) -> str:
    """A span of time, as people say it."""
    if secs < 2 * 60:  # noqa: PLR2004
        return f"{secs:.0f} s"
    if secs < 2 * 3600:  # noqa: PLR2004
        return f"{secs / 60:.0f} min"
    return f"{secs / 3600:.0f} h"


def run_summary(counts: RunCounts) -> str:
    """Lay out what a run did."""
    landed, processed = counts.landed, counts.processed
    lines = [
        Line("received", landed["received"], _redelivered(landed["redelivered"])),
        Line("released", landed["released"], "given back to the queue unread"),
        Line("archived", landed["archived"]),
        Line("acknowledged", landed["acknowledged"], _unacknowledged(landed)),
        Line("lost leases", landed["lost_leases"], "ended before their message was settled"),
        Line("receive faults", landed["receive_faults"], "receives that were tried again"),
        Line("pending before", counts.pending_before, "archived by an earlier run"),
        Line("answers", counts.answers, "of Alibaba, archived by reconcile"),
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
        SmsReceiptsError: they do, but the tables could not be brought up to date when the run ended.
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
            messages - counts.answers + counts.pending_after,
        ),
    )
    for name, came, went in balances:
        if came != went:
            raise LedgerError(
                f"The counts of {name} messages do not add up ({came} and {went}): no message is lost, the "
                "archive has all that were acknowledged; please report this as a bug of sms-receipts."
            )
    if counts.failure is not None:
        raise counts.failure
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
    yield Line("  orphan", count("orphan_reports"), "no send is known")
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
    missing = landed["unacknowledged"]
    return f"{missing:,} came or will come once more" if missing else "deleted from the queues"


def _laid_out(lines: Sequence[Line]) -> str:
    return "\n".join(f"{line.name:<20}{line.number:>12,}  {line.remark}".rstrip() for line in lines)
