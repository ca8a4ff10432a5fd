"""What reports, sends and deadlines mean to each other: the one place that decides.

:func:`match` looks at everything known about one key ``(biz_id, phone_number)`` and says who leaves and
who stays. It is a function of *sets*: the order in which facts arrive, the number of times that a message
is redelivered and the way facts are spread over epochs change nothing about the current row.

* An **outcome** is ``(success, err_code)``. The first report of each outcome, by
  ``(enqueued_at, message_id)``, speaks for it; every other report of that outcome is a duplicate.
* What a query answered is an outcome of its own and the least news: whatever the queue brings of the same
  SMS, earlier or later, says more, and ranks after it.
* Outcomes are ranked by their first report; the rank is the **revision**. The first outcome is revision 1,
  a later different one is a correction: the same event id with a higher revision. The highest one counts.
* A report without a send waits for its patience, then leaves as an orphan. Once a key has left, later
  reports of it leave at once.
* A send without a report stays open for its patience, then leaves as unreported. A report that comes
  later still finds it.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a report says of an SMS, and who says it."""

    success: bool
    err_code: str | None
    is_answer: bool = False
    """Whether it is the answer of a query: a report from the queue says more, and is news after it."""


class Report(NamedTuple):
    """A delivery report of the key that has not left yet.

    ``position`` is the caller's way back to the record; times are UTC milliseconds.
    """

    outcome: Outcome
    enqueued_at_ms: int
    message_id: str
    position: int

    @property
    def order(self) -> tuple[bool, int, str]:
        """Where the report stands among the reports of its key: behind every answer of a query."""
        return (not self.outcome.is_answer, self.enqueued_at_ms, self.message_id)


class Settled(NamedTuple):
    """A report of the key that has left: a row that stands in ``enriched_reports``.

    ``requested_at_ms`` is that of its send, or None for an orphan.
    """

    outcome: Outcome
    enqueued_at_ms: int
    message_id: str
    revision: int
    requested_at_ms: int | None
    position: int

    @property
    def order(self) -> tuple[bool, int, str]:
        """Where the report stands among the reports of its key: behind every answer of a query."""
        return (not self.outcome.is_answer, self.enqueued_at_ms, self.message_id)


class Send(NamedTuple):
    """A send log entry of the key; ``order`` makes the choice among repeated entries deterministic."""

    requested_at_ms: int
    order: str
    position: int


class Row(NamedTuple):
    """A row to write: the report, its revision, and the send it is enriched with.

    ``send`` None means: the send of the settled rows if they have one, else an orphan.
    """

    report: "Report | Settled"
    revision: int
    send: Send | None


class Verdict(NamedTuple):
    """What happens to every fact of one key; each report and each send appears exactly once."""

    rows: Sequence[Row]
    duplicates: Sequence[Report]
    waiting: Sequence[Report]
    open_send: Send | None
    unreported: Send | None
    matched_send: Send | None
    duplicate_sends: Sequence[Send]


class Patience(NamedTuple):
    """The deadline of a decision: who came before these moments (UTC milliseconds) waits no longer."""

    reports_before_ms: int
    sends_before_ms: int


def match(
    reports: Sequence[Report],
    sends: Sequence[Send],
    settled: Sequence[Settled],
    patience: Patience,
) -> Verdict:
    """Decide about one key.

    Args:
        reports: those that have not left yet, new and waiting, in any order, repeats included.
        sends: the entries known for the key and not consumed by a settled row.
        settled: the key's rows that were already written, in any order, superseded ones included.
        patience: the moments before which nobody waits any longer.
    """
    ranked_sends = sorted(sends, key=lambda send: (send.requested_at_ms, send.order))
    send = ranked_sends[0] if ranked_sends else None
    if not reports and not settled:
        return _without_report(ranked_sends, patience)

    written = _best_row_of_each_outcome(settled)
    first: dict[Outcome, Report | Settled] = dict(written)
    for report in sorted(reports, key=lambda report: report.order):
        known = first.get(report.outcome)
        if known is None or report.order < known.order:
            first[report.outcome] = report

    spoken_for = {id(report) for report in first.values()}
    duplicates = [report for report in reports if id(report) not in spoken_for]
    newcomers = [report for report in reports if id(report) in spoken_for]
    must_wait = (
        send is None
        and not settled
        and all(report.enqueued_at_ms >= patience.reports_before_ms for report in newcomers)
    )
    if must_wait:
        return Verdict((), duplicates, newcomers, None, None, None, ())

    settled_request = min(
        (row.requested_at_ms for row in written.values() if row.requested_at_ms is not None),
        default=None,
    )
    # A repeated log entry is only news if it is older than the one the rows were written with.
    is_news = send is not None and (
        settled_request is None or send.requested_at_ms < settled_request
    )
    used_send = send if is_news else None
    rows = []
    ranking = sorted(first.values(), key=lambda speaker: speaker.order)
    for rank, speaker in enumerate(ranking, start=1):
        is_written = isinstance(speaker, Settled) and speaker.revision == rank
        if not is_written or used_send is not None:
            rows.append(Row(speaker, rank, used_send))
    return Verdict(
        rows=rows,
        duplicates=duplicates,
        waiting=(),
        open_send=None,
        unreported=None,
        matched_send=used_send,
        duplicate_sends=ranked_sends[1:] if is_news else ranked_sends,
    )


def _without_report(ranked_sends: Sequence[Send], patience: Patience) -> Verdict:
    """A key that only its sender has spoken of."""
    send = ranked_sends[0] if ranked_sends else None
    is_late = send is not None and send.requested_at_ms < patience.sends_before_ms
    return Verdict(
        rows=(),
        duplicates=(),
        waiting=(),
        open_send=None if is_late else send,
        unreported=send if is_late else None,
        matched_send=None,
        duplicate_sends=ranked_sends[1:],
    )


def _best_row_of_each_outcome(settled: Sequence[Settled]) -> dict[Outcome, Settled]:
    """Of the rows that an outcome was ever written with, the one that counts.

    The earliest report speaks for the outcome; among repeats of it the highest revision is the newest.
    """
    best: dict[Outcome, Settled] = {}
    for row in settled:
        known = best.get(row.outcome)
        if known is None or _newness(row) < _newness(known):
            best[row.outcome] = row
    return best


def _newness(row: Settled) -> tuple[tuple[bool, int, str], int, bool, int]:
    return (
        row.order,
        -row.revision,
        row.requested_at_ms is None,
        row.requested_at_ms if row.requested_at_ms is not None else 0,
    )
