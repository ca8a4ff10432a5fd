"""Join reports with what was known at send time, a bucket at a time.

:func:`match` decides; this module finds out whom it has to be asked about. Nearly every key has one report
and one send, and for those the answer is plain: they are matched column by column. Every other key, and
every hash collision, goes to :func:`match` itself. A property test holds the two to the same verdicts.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms import keys
from transforms.enrich_rows import (
    ENRICHED_SCHEMA,
    NO_SEND,
    SEND_SCHEMA,
    Leaving,
    Positions,
    column,
    enriched_rows,
    leaving,
    new_record,
    revised_record,
    revised_rows,
    take,
    unreported_rows,
)
from transforms.match import Outcome, Patience, Report, Row, Send, Settled, Verdict, match
from transforms.moments import milliseconds

Key: TypeAlias = (
    "tuple[str, str | None, str | None]"  # biz_id, phone_number, message_id if no phone
)

# What a written row must tell so that its key can be judged again: all that an epoch loads of the past.
SETTLED_COLUMNS: Final = (
    "event_id",
    "biz_id",
    "phone_number",
    "revision",
    "match",
    "success",
    "err_code",
    "enqueued_at",
    "message_id",
    "requested_at",
    "send_time",
    "origin",
)
SETTLED_SCHEMA: Final[pa.Schema] = pa.schema(
    [ENRICHED_SCHEMA.field(name) for name in SETTLED_COLUMNS]
)


class Facts(NamedTuple):
    """All that is known about the keys of one bucket.

    ``reports`` and ``waiting`` are delivery reports (new, and carried over); ``sends``, ``open_sends`` and
    ``unreported`` are send log entries (new, carried over, and already given up on); ``settled`` are rows
    of ``enriched_reports``, reduced to :data:`SETTLED_SCHEMA`.
    """

    reports: pa.Table
    waiting: pa.Table
    sends: pa.Table
    open_sends: pa.Table
    unreported: pa.Table
    settled: pa.Table


class Enriched(NamedTuple):
    """What leaves a bucket, and what stays.

    ``rows`` and ``unreported`` are to be appended to their tables; ``waiting`` and ``open_sends`` replace
    what was carried over. ``counts`` add up: see :func:`enrich`.
    """

    rows: pa.Table
    waiting: pa.Table
    open_sends: pa.Table
    unreported: pa.Table
    counts: Counter[str]


_ANSWER: Final = "query"
# A report that can never be told whose it is has no use for patience.
_PAST_EVERY_DEADLINE: Final = 2**62

FetchRows: TypeAlias = Callable[[Sequence[str]], pa.Table]


def enrich(facts: Facts, patience: Patience, fetch_rows: FetchRows) -> Enriched:
    """Match the reports of a bucket with its sends.

    Args:
        facts: what is known; nothing of it is changed.
        patience: the deadlines, see :class:`Patience`.
        fetch_rows: returns the full ``enriched_reports`` rows of some event ids; asked only about keys
            that change after they were written, which is rare.

    Returns:
        The tables, and counts that add up:
        ``reports_to_match + waiting_before
        = matched_reports + orphan_reports + duplicate_reports + waiting_after`` and
        ``sends_to_match + open_before + unreported_before
        = matched_sends + open_after + unreported_new + unreported_kept + duplicate_sends``.
    """
    return _Bucket(facts, patience, fetch_rows).enriched()


class _Bucket:
    """The working tables of one bucket; lives for one call of :func:`enrich`."""

    def __init__(self, facts: Facts, patience: Patience, fetch_rows: FetchRows) -> None:
        self._facts = facts
        self._patience = patience
        self._fetch_rows = fetch_rows
        self._settled = facts.settled.combine_chunks()
        self._sends = pa.concat_tables(
            [facts.sends, facts.open_sends, facts.unreported.select(SEND_SCHEMA.names)]
        ).combine_chunks()
        self._first_unreported = facts.sends.num_rows + facts.open_sends.num_rows
        reports = pa.concat_tables([facts.reports, facts.waiting]).combine_chunks()
        self._reports, self._ambiguous = _with_known_phones(reports, self._sends, self._settled)
        self._enqueued_at_ms = milliseconds(column(self._reports, "enqueued_at"))
        self._requested_at_ms = milliseconds(column(self._sends, "requested_at"))

        # Positions of what was decided; the slow path appends to the lists.
        self._leaving: list[Leaving] = []
        self._waiting: list[Positions] = []
        self._open: list[Positions] = []
        self._unreported: list[Positions] = []
        self._revised: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()

    def enriched(self) -> Enriched:
        verdict_needed = self._match_plain_keys()
        self._match_other_keys(verdict_needed)
        return self._gathered()

    # -- the plain keys: one report, one send, nothing written before ---------------------------------

    def _match_plain_keys(self) -> Positions:
        """Settle every key whose verdict is plain; return the positions of all facts that are left."""
        report_count, send_count = self._reports.num_rows, self._sends.num_rows
        hashes = key_hashes(self._reports, self._sends, self._settled)
        if not len(hashes):
            return np.empty(0, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        in_order = hashes[order]
        starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))
        sizes = np.diff(np.append(starts, len(order)))
        is_report = order < report_count
        is_settled = order >= report_count + send_count
        reports = np.add.reduceat(is_report, starts, dtype=np.int64)
        settled = np.add.reduceat(is_settled, starts, dtype=np.int64)
        sends = sizes - reports - settled

        pairs = (reports == 1) & (sends == 1) & (settled == 0)
        # The sort is stable: in a pair the report stands first, then the send.
        pair_starts = starts[pairs]
        report_side, send_side = order[pair_starts], order[pair_starts + 1] - report_count
        equal = self._same_keys(report_side, send_side)
        pairs[np.flatnonzero(pairs)[~equal]] = False
        self._leaving.append(leaving(report_side[equal], send_side[equal]))
        self._counts["matched_reports"] += int(equal.sum())
        self._counts["matched_sends"] += int(equal.sum())

        lone_reports = (reports == 1) & (sends == 0) & (settled == 0)
        self._place_lone_reports(order[starts[lone_reports]])
        lone_sends = (sends == 1) & (reports == 0) & (settled == 0)
        self._place_lone_sends(order[starts[lone_sends]] - report_count)

        only_settled = settled == sizes
        undecided = ~(pairs | lone_reports | lone_sends | only_settled)
        return np.asarray(order[np.repeat(undecided, sizes)], dtype=np.int64)

    def _same_keys(self, report_side: Positions, send_side: Positions) -> npt.NDArray[np.bool_]:
        """Compare the keys themselves: equal hashes are not yet equal keys."""
        same = np.ones(len(report_side), dtype=np.bool_)
        for name in ("biz_id", "phone_number"):
            left = column(self._reports, name).take(pa.array(report_side))
            right = column(self._sends, name).take(pa.array(send_side))
            same &= pc.equal(left, right).fill_null(False).to_numpy(zero_copy_only=False)
        return same

    def _place_lone_reports(self, positions: Positions) -> None:
        leaves = self._enqueued_at_ms[positions] < self._patience.reports_before_ms
        leaves |= self._ambiguous[positions]
        orphans = positions[leaves]
        self._leaving.append(leaving(orphans, np.full(len(orphans), NO_SEND)))
        self._counts["orphan_reports"] += len(orphans)
        self._waiting.append(positions[~leaves])

    def _place_lone_sends(self, positions: Positions) -> None:
        is_given_up = positions >= self._first_unreported
        is_late = self._requested_at_ms[positions] < self._patience.sends_before_ms
        self._counts["unreported_kept"] += int(is_given_up.sum())
        self._open.append(positions[~is_given_up & ~is_late])
        self._unreported.append(positions[~is_given_up & is_late])

    # -- every other key ----------------------------------------------------------------------------

    def _match_other_keys(self, undecided: Positions) -> None:
        if not len(undecided):
            return
        report_count, send_count = self._reports.num_rows, self._sends.num_rows
        is_report = undecided < report_count
        is_settled = undecided >= report_count + send_count
        reports = self._report_facts(undecided[is_report])
        sends = self._send_facts(undecided[~is_report & ~is_settled] - report_count)
        settled = self._settled_facts(undecided[is_settled] - report_count - send_count)
        verdicts: dict[Key, Verdict] = {}
        # A set would make the order of rows in a file depend on the process: dicts keep theirs.
        for key in dict.fromkeys((*reports, *sends, *settled)):
            patience = self._patience
            if any(self._ambiguous[report.position] for report in reports[key]):
                patience = patience._replace(reports_before_ms=_PAST_EVERY_DEADLINE)
            verdicts[key] = match(reports[key], sends[key], settled[key], patience)
        changed = [key for key, verdict in verdicts.items() if verdict.rows and settled[key]]
        standing = self._standing_rows(changed)
        for key, verdict in verdicts.items():
            self._follow(key, verdict, sends[key], standing[_event_id(key)])

    def _standing_rows(self, changed: Sequence[Key]) -> Mapping[str, list[Mapping[str, Any]]]:
        """Fetch, in one go, the full rows of keys that change after they were written."""
        rows: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        if changed:
            for row in self._fetch_rows([_event_id(key) for key in changed]).to_pylist():
                rows[row["event_id"]].append(row)
        return rows

    def _report_facts(self, positions: Positions) -> Mapping[Key, list[Report]]:
        facts: defaultdict[Key, list[Report]] = defaultdict(list)
        rows = self._reports.take(pa.array(positions)).select(
            ["biz_id", "phone_number", "message_id", "success", "err_code", "origin"]
        )
        for position, row in zip(positions.tolist(), rows.to_pylist(), strict=True):
            report = Report(
                _outcome(row),
                int(self._enqueued_at_ms[position]),
                row["message_id"],
                position,
            )
            facts[_key(row)].append(report)
        return facts

    def _send_facts(self, positions: Positions) -> Mapping[Key, list[Send]]:
        facts: defaultdict[Key, list[Send]] = defaultdict(list)
        rows = self._sends.take(pa.array(positions)).select(["biz_id", "phone_number"])
        for position, row in zip(positions.tolist(), rows.to_pylist(), strict=True):
            key = (row["biz_id"], row["phone_number"], None)
            facts[key].append(Send(int(self._requested_at_ms[position]), "", position))
        # Any total order will do for repeated entries of one moment, as long as it is always the same.
        for repeated in (sends for sends in facts.values() if len(sends) > 1):
            repeated[:] = [
                send._replace(order=repr(self._sends.slice(send.position, 1).to_pylist()))
                for send in repeated
            ]
        return facts

    def _settled_facts(self, positions: Positions) -> Mapping[Key, list[Settled]]:
        facts: defaultdict[Key, list[Settled]] = defaultdict(list)
        rows = self._settled.take(pa.array(positions))
        enqueued_at_ms = milliseconds(column(rows, "enqueued_at")).tolist()
        requested_at_ms = milliseconds(column(rows, "requested_at")).tolist()
        for index, row in enumerate(rows.to_pylist()):
            facts[_key(row)].append(
                Settled(
                    _outcome(row),
                    enqueued_at_ms[index],
                    row["message_id"],
                    row["revision"],
                    requested_at_ms[index] if row["requested_at"] is not None else None,
                    int(positions[index]),
                )
            )
        return facts

    def _follow(
        self,
        key: Key,
        verdict: Verdict,
        sends: Sequence[Send],
        standing: Sequence[Mapping[str, Any]],
    ) -> None:
        """Do as the verdict says with the facts of one key."""
        self._counts["duplicate_reports"] += len(verdict.duplicates)
        self._counts["duplicate_sends"] += len(verdict.duplicate_sends)
        self._waiting.append(_positions(verdict.waiting))
        if verdict.matched_send is not None:
            self._counts["matched_sends"] += 1
        self._follow_lone_send(verdict, sends)
        for row in verdict.rows:
            self._write(key, row, standing)

    def _follow_lone_send(self, verdict: Verdict, sends: Sequence[Send]) -> None:
        send = verdict.open_send or verdict.unreported
        if send is None:
            return
        given_up = sum(other.position >= self._first_unreported for other in sends)
        if given_up:
            # The key stands in unreported_sends already; whatever repeats it adds nothing.
            self._counts["unreported_kept"] += given_up
            self._counts["duplicate_sends"] += len(sends) - given_up - len(verdict.duplicate_sends)
        else:
            target = self._open if verdict.unreported is None else self._unreported
            target.append(_positions([send]))

    def _write(self, key: Key, row: Row, standing: Sequence[Mapping[str, Any]]) -> None:
        """Let one row leave; what was written before is needed only if it still has a say."""
        report = row.report
        is_matched = row.send is not None or any(old["match"] == "matched" for old in standing)
        if isinstance(report, Settled):
            self._counts["revised_rows"] += 1
        else:
            self._counts["matched_reports" if is_matched else "orphan_reports"] += 1
            self._counts["corrections"] += row.revision > 1
            if row.send is not None or not is_matched:
                send_position = NO_SEND if row.send is None else row.send.position
                self._leaving.append(
                    leaving(_position(report.position), _position(send_position), row.revision)
                )
                return
        self._revise(key, row, standing)

    def _revise(self, key: Key, row: Row, standing: Sequence[Mapping[str, Any]]) -> None:
        """Build one row by hand: the report's side, then the send's."""
        report = row.report
        if isinstance(report, Settled):
            record = _standing_row(standing, report)
        else:
            (fields,) = self._reports.slice(report.position, 1).to_pylist()
            record = new_record(fields, _event_id(key))
        send_side = self._send_side(row.send, standing)
        self._revised.append(revised_record(record, send_side, row.revision))

    def _send_side(
        self, send: Send | None, standing: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Any] | None:
        if send is not None:
            entry: Mapping[str, Any] = self._sends.slice(send.position, 1).to_pylist()[0]
            return entry
        matched = [row for row in standing if row["match"] == "matched"]
        return min(matched, key=lambda row: row["requested_at"], default=None)

    # -- the end ------------------------------------------------------------------------------------

    def _gathered(self) -> Enriched:
        plain = enriched_rows(self._reports, self._sends, self._leaving)
        revised = revised_rows(self._revised)
        waiting = take(self._reports, self._waiting)
        open_sends = take(self._sends, self._open)
        unreported = take(self._sends, self._unreported)
        self._counts.update(
            reports_to_match=self._facts.reports.num_rows,
            waiting_before=self._facts.waiting.num_rows,
            waiting_after=waiting.num_rows,
            sends_to_match=self._facts.sends.num_rows,
            open_before=self._facts.open_sends.num_rows,
            unreported_before=self._facts.unreported.num_rows,
            open_after=open_sends.num_rows,
            unreported_new=unreported.num_rows,
        )
        return Enriched(
            rows=pa.concat_tables([plain, revised]),
            waiting=waiting,
            open_sends=open_sends,
            unreported=unreported_rows(unreported),
            counts=self._counts,
        )


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(row["success"], row["err_code"], row["origin"] == _ANSWER)


def _position(position: int) -> Positions:
    return np.array([position], dtype=np.int64)


def _positions(facts: Sequence[Report] | Sequence[Send]) -> Positions:
    return np.array([fact.position for fact in facts], dtype=np.int64)


def _key(row: Mapping[str, Any]) -> Key:
    phone = row["phone_number"]
    return (row["biz_id"], phone, row["message_id"] if phone is None else None)


def key_hashes(*tables: pa.Table) -> keys.Hashes:
    """Hash the key of each row of some tables of reports, sends or settled rows, one after the other.

    See :data:`Key`. All at once, since a call costs some 100 us however few the rows are.
    """
    return key_and_group_hashes(*tables)[0]


def key_and_group_hashes(*tables: pa.Table) -> tuple[keys.Hashes, keys.Hashes]:
    """Hash the key of each row of some tables, and its ``biz_id``; see :func:`key_hashes`."""
    biz_ids, phones = (_strings(tables, name) for name in ("biz_id", "phone_number"))
    groups = keys.hash_strings(biz_ids)
    hashes = keys.combine(groups, keys.hash_strings(phones))
    if phones.null_count:
        by_message = keys.combine(hashes, keys.hash_strings(_strings(tables, "message_id")))
        hashes = np.where(phones.is_null().to_numpy(zero_copy_only=False), by_message, hashes)
    return hashes, groups


def _strings(tables: Sequence[pa.Table], name: str) -> pa.StringArray:
    """One column of several tables; nulls where a table has no such column."""
    columns = [
        column(table, name) if name in table.schema.names else pa.nulls(table.num_rows, pa.string())
        for table in tables
        if table.num_rows
    ]
    if not columns:
        return pa.array([], pa.string())
    return columns[0] if len(columns) == 1 else pa.concat_arrays(columns)


def _event_id(key: Key) -> str:
    biz_id, phone_number, message_id = key
    if message_id is not None:
        return keys.message_event_id(biz_id, message_id)
    return keys.event_id(biz_id, phone_number)


def _standing_row(standing: Sequence[Mapping[str, Any]], settled: Settled) -> Mapping[str, Any]:
    """Find the full row that a settled fact was reduced from."""
    return next(
        row
        for row in standing
        if row["message_id"] == settled.message_id
        and row["revision"] == settled.revision
        and _outcome(row) == settled.outcome
    )


def _with_known_phones(
    reports: pa.Table, sends: pa.Table, settled: pa.Table
) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Give reports without a phone number the number of their only recipient.

    Returns:
        The reports, and for each whether it can never be told whose it is: it has no number and its
        ``biz_id`` has several recipients, so there is no use in waiting.
    """
    phones = column(reports, "phone_number")
    ambiguous = np.zeros(reports.num_rows, dtype=np.bool_)
    if not phones.null_count:
        return reports, ambiguous
    missing = np.flatnonzero(phones.is_null().to_numpy(zero_copy_only=False))
    biz_ids = column(reports, "biz_id").take(pa.array(missing))
    recipients: defaultdict[str, set[str]] = defaultdict(set)
    # The recipients are those that the send log names: an orphan tells of itself, not of who else there is.
    logged = settled.filter(pc.equal(column(settled, "match"), "matched"))
    for table in (sends, logged):
        of_interest = table.filter(pc.is_in(column(table, "biz_id"), value_set=biz_ids))
        for row in of_interest.select(["biz_id", "phone_number"]).to_pylist():
            if row["phone_number"] is not None:
                recipients[row["biz_id"]].add(row["phone_number"])
    # A message that has left without a number keeps its identity when it is delivered again.
    nameless = settled.filter(column(settled, "phone_number").is_null())
    has_left = set(
        zip(*(column(nameless, name).to_pylist() for name in ("biz_id", "message_id")), strict=True)
    )
    message_ids = column(reports, "message_id").take(pa.array(missing)).to_pylist()
    found: dict[int, str] = {}
    for position, biz_id, message_id in zip(
        missing.tolist(), biz_ids.to_pylist(), message_ids, strict=True
    ):
        candidates = recipients[biz_id]
        ambiguous[position] = len(candidates) > 1
        if len(candidates) == 1 and (biz_id, message_id) not in has_left:
            found[position] = next(iter(candidates))
    if found:
        numbers = phones.to_pylist()
        for position, phone_number in found.items():
            numbers[position] = phone_number
        index = reports.schema.get_field_index("phone_number")
        field = reports.schema.field(index)
        reports = reports.set_column(index, field, pa.array(numbers, type=pa.string()))
    return reports, ambiguous
