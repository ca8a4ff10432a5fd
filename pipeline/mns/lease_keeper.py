"""The threads that talk to the queues about messages held: renew, delete, give back.

Whatever the outcome of a call, a message is deleted by a handle that the queue gave out for it, or it
comes back. When the answer to a renewal is lost, the queue may have replaced the handle or not: the
old one is kept and tried again, and if the queue refuses it, that lease is lost, which is a redelivery.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime
from math import inf
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from pipeline.errors import OperatorError, TransientError
from pipeline.inboxes.backoff import Draw, outage_pause_secs
from pipeline.mns.client import MnsClient, Renewed
from pipeline.mns.faults import LOST_LEASE, UnclearAnswerError
from pipeline.mns.leases import Lease, LeaseLedger
from pipeline.mns.settings import BATCH_MESSAGES, MnsSettings
from pipeline.mns.transport import Line, UnreachableError
from transforms.tally import Tally

# How often an entry of a batch is asked for that the queue says it could not delete.
_ENTRY_TRIES: Final = 5
# What MNS allows at least (doc 35142): as good as visible at once.
_RELEASE_SECS: Final = 1
# Threads of each kind, started when needed. Renewing and giving back is one call a message: over the
# internet, at 100 ms a call, one thread does 10 messages a second, and these 160.
_MOST_THREADS: Final = 16
# How long deletes may take before more threads help.
_MORE_THREADS_SECS: Final = 1.0
# So many renewals in a row may fail by chance; more is an outage, and worth a pause.
_CHANCE_FAULTS: Final = 3
# What a call is assumed to take before any was timed, and the share of a newer one in the mean.
_ASSUMED_CALL_SECS: Final = 0.1
_NEWEST_SHARE: Final = 0.1
# The share of a stop's time that deletes get which begin when that is nearly over, or has been.
_LATE_SHARE: Final = 1 / 3
_TICK_SECS: Final = 0.25
_T = TypeVar("_T")


class _Chunk(NamedTuple):
    """Handles of one queue, deleted by one request."""

    queue_name: str
    receipt_handles: list[str]
    expires_secs: float
    """When the last of them ends."""
    tries: int = 1
    is_unsure: bool = False
    """Whether an answer was lost that may have said that they are deleted."""


class LeaseKeeper:
    """Holds leases, renews the tail of them, and ends them; safe to share between threads.

    A renewal keeps nobody waiting but those who want that very lease, for one call at most.
    """

    def __init__(
        self,
        settings: MnsSettings,
        client: MnsClient,
        tally: Tally,
        draw: Draw,
        fail: Callable[[Exception], None],
    ) -> None:
        """Call ``client``, count into ``tally``, and tell ``fail`` what only the operator can mend."""
        self._settings = settings
        self._line = Line()
        self._client = client.on(self._line)
        self._tally = tally
        self._draw = draw
        self._fail = fail
        self._changed = threading.Condition()  # guards everything down to the pause
        self._ledger = LeaseLedger(settings.max_hold_secs)
        self._call_secs = _ASSUMED_CALL_SECS
        self._failed_renewals = 0
        self._paused_until_secs = 0.0
        self._stop_secs = inf
        self._deletes_under_way = 0
        self._deleters = ThreadPoolExecutor(max(settings.ack_threads, _MOST_THREADS), "delete")
        self._renewers = ThreadPoolExecutor(_MOST_THREADS, "renew")
        self._releasers = ThreadPoolExecutor(_MOST_THREADS, "release")
        self._releases: list[Future[None]] = []
        self._ended = threading.Event()

    def hold(self, lease: Lease) -> int:
        """Hold a lease; return its number."""
        with self._changed:
            return self._ledger.hold(lease)

    def oldest_enqueued_at(self) -> datetime | None:
        """Return the event time of the oldest message held; None while nothing is."""
        with self._changed:
            return self._ledger.oldest_enqueued_at()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held that can be deleted or given back, and nobody is doing that."""
        with self._changed:
            is_ending = self._deletes_under_way or not all(end.done() for end in self._releases)
            return not is_ending and self._ledger.oldest_enqueued_at() is None

    def tend(self) -> None:
        """Begin to renew what is due; to be called several times a second. Does not wait."""
        now_secs = monotonic()
        due: list[tuple[int, Lease]] = []
        with self._changed:
            lost = self._ledger.write_off_ended(now_secs)
            if now_secs >= self._paused_until_secs:
                for number in self._ledger.due(now_secs, self._lead_secs()):
                    lease = self._ledger.get(number)
                    if lease is not None:
                        lease.is_renewing = True
                        due.append((number, lease))
        if lost:
            self._tally.add(lost_leases=lost)
        for number, lease in due:
            self._renewers.submit(self._renew, number, lease)

    def delete(self, numbers: Iterable[int]) -> None:
        """Delete the messages of leases, as often as it takes while they last; count the others."""
        began_secs = monotonic()
        chunks: deque[_Chunk] = deque()
        with self._changed:
            self._deletes_under_way += 1
        try:
            chunks.extend(self._chunks(self._take(numbers, began_secs)))
            self._delete_all(chunks, began_secs)
        finally:
            self._give_up(chunks)
            with self._changed:
                self._deletes_under_way -= 1

    def release(self, numbers: Sequence[int]) -> None:
        """Begin to give messages back to their queue; what cannot be, comes back by its timeout."""
        began_secs = monotonic()
        with self._changed:
            self._releases += [
                self._releasers.submit(self._release_all, numbers[first::_MOST_THREADS], began_secs)
                for first in range(min(_MOST_THREADS, len(numbers)))
            ]

    def forget(self, numbers: Iterable[int]) -> None:
        """Let leases go that nobody will settle: their messages come back."""
        for lease in self._take(numbers, monotonic()):
            self._tally.add(unacknowledged=len(lease.receipt_handles))

    def stop_by(self, stop_secs: float) -> None:
        """Be done by that moment of the monotonic clock, whatever the service does."""
        self._stop_secs = stop_secs

    def close(self) -> None:
        """Wait for what is under way, by the moment of ``stop_by``, and end the threads."""
        self._wait_for(self._releases, -inf)
        self._ended.set()
        self._line.close()
        for pool in (self._deleters, self._renewers, self._releasers):
            pool.shutdown(cancel_futures=True)

    # -- time --------------------------------------------------------------------------------------

    def _lead_secs(self) -> float:
        """How long before its end to begin with a lease, so that all that is held can be renewed."""
        lead_secs = self._settings.renewal_margin_secs
        lead_secs += self._ledger.messages * self._call_secs / _MOST_THREADS
        # A renewal that took more than half of its time away would shorten a lease.
        return min(lead_secs, self._settings.visibility_timeout_secs / 2)

    def _is_over(self, began_secs: float) -> bool:
        """Whether what began then is to be given up.

        What is not renewed any more is not ours for longer than a renewal lasts; and an outage is
        not to keep a bundle of many deletes waiting for hours, or a stop for more than its time.
        """
        over_secs = began_secs + self._settings.visibility_timeout_secs
        return monotonic() >= min(over_secs, self._stop_of(began_secs))

    def _stop_of(self, began_secs: float) -> float:
        """When a stop ends what began then."""
        return max(self._stop_secs, began_secs + self._settings.stop_secs * _LATE_SHARE)

    def _wait_for(self, futures: Iterable[Future[None]], began_secs: float) -> None:
        futures = list(futures)
        while wait(futures, _TICK_SECS).not_done:
            self._hang_up_if_stopped(began_secs)
        for future in futures:
            future.result()

    def _hang_up_if_stopped(self, began_secs: float) -> None:
        if monotonic() >= self._stop_of(began_secs):
            self._line.hang_up()

    def _work_off(
        self, tasks: deque[_T], attempt: Callable[[_T], _T | None], began_secs: float
    ) -> None:
        """Do tasks that other threads do, too; what is left of one comes back at the end.

        Leaves what is not done in time.
        """
        failures = 0
        while not self._is_over(began_secs):
            try:
                task = tasks.popleft()
            except IndexError:
                return
            try:
                left = attempt(task)
            except BaseException:
                tasks.append(task)  # whoever began this counts it
                raise
            if left is None:
                failures = 0
                continue
            tasks.append(left)
            failures += 1
            self._ended.wait(outage_pause_secs(failures, self._draw))

    # -- renewing ----------------------------------------------------------------------------------

    def _renew(self, number: int, lease: Lease) -> None:
        try:
            # A fault that hits one may not hit the next: what is left is due again at once.
            done = [self._renew_one(number, lease, at) for at in range(len(lease.receipt_handles))]
            if all(done):
                self._tally.add(renewals=1)
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not be kept by a pool
            self._fail(failure)
        finally:
            with self._changed:
                lease.is_renewing = False

    def _renew_one(self, number: int, lease: Lease, position: int) -> bool:
        """Renew one handle if that is due; return whether nothing is left to do about it."""
        lasts_secs = self._settings.visibility_timeout_secs
        began_secs = monotonic()
        with self._changed:
            is_held = self._ledger.get(number) is lease and not lease.is_written_off
            if not is_held or began_secs < self._paused_until_secs:
                return False
            handle = lease.receipt_handles[position]
            if handle is None or lease.expires_secs[position] > began_secs + lasts_secs / 2:
                return True
            lease.is_in_call = True
        outcome: Renewed | Exception | None
        try:
            outcome = self._client.change_visibility(lease.queue_name, handle, lasts_secs)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the lease is free again
            outcome = failure
        self._book_renewal(lease, position, outcome, began_secs)
        if outcome is None:
            self._tally.add(lost_leases=1)
        elif isinstance(outcome, Exception):
            if not isinstance(outcome, TransientError):
                self._fail(outcome)
            return False
        return True

    def _book_renewal(
        self,
        lease: Lease,
        position: int,
        outcome: Renewed | Exception | None,
        began_secs: float,
    ) -> None:
        now_secs = monotonic()
        with self._changed:
            lease.is_in_call = False
            if isinstance(outcome, Renewed):
                lease.renew(position, outcome.receipt_handle, now_secs, outcome.secs)
            elif outcome is None:
                lease.lose(position)
            if isinstance(outcome, TransientError):
                self._failed_renewals += 1
                in_a_row = self._failed_renewals - _CHANCE_FAULTS
                if in_a_row > 0:
                    self._paused_until_secs = now_secs + outage_pause_secs(in_a_row, self._draw)
            else:
                self._failed_renewals = 0
                self._call_secs += _NEWEST_SHARE * (now_secs - began_secs - self._call_secs)
            self._changed.notify_all()

    # -- ending ------------------------------------------------------------------------------------

    def _take(self, numbers: Iterable[int], began_secs: float) -> list[Lease]:
        """Take leases, once their handles are those that work: a renewal may be replacing one."""
        with self._changed:
            leases = [lease for number in numbers if (lease := self._ledger.take(number))]
            while any(lease.is_in_call for lease in leases):
                self._changed.wait(_TICK_SECS)
                self._hang_up_if_stopped(began_secs)
        return leases

    def _chunks(self, leases: Iterable[Lease]) -> list[_Chunk]:
        """Return what to delete; count what cannot be."""
        held: dict[str, tuple[list[str], list[float]]] = {}
        lost = 0
        for lease in leases:
            handles, ends = held.setdefault(lease.queue_name, ([], []))
            for handle, ends_secs in zip(lease.receipt_handles, lease.expires_secs, strict=True):
                if handle is None:
                    lost += 1
                else:
                    handles.append(handle)
                    ends.append(ends_secs)
        if lost:
            self._tally.add(unacknowledged=lost)
        return [
            _Chunk(
                queue_name,
                handles[first : first + BATCH_MESSAGES],
                max(ends[first : first + BATCH_MESSAGES]),
            )
            for queue_name, (handles, ends) in held.items()
            for first in range(0, len(handles), BATCH_MESSAGES)
        ]

    def _delete_all(self, chunks: deque[_Chunk], began_secs: float) -> None:
        """Delete chunks with some threads, and with as many more for every second that takes."""
        threads = self._settings.ack_threads
        deletions: list[Future[None]] = []
        try:
            while chunks and len(deletions) < max(threads, _MOST_THREADS):
                for _ in range(min(threads, len(chunks))):
                    deletions.append(  # noqa: PERF401 - a thread may start, and the next one not
                        self._deleters.submit(self._work_off, chunks, self._delete, began_secs)
                    )
                wait(deletions, _MORE_THREADS_SECS)
        finally:
            self._wait_for(deletions, began_secs)

    def _give_up(self, chunks: MutableSequence[_Chunk]) -> None:
        with suppress(IndexError):
            while True:  # not all at once: a thread may be taking the next
                self._tally.add(unacknowledged=len(chunks.pop().receipt_handles))

    def _delete(self, chunk: _Chunk) -> _Chunk | None:
        """Try to delete a chunk; return what to try again."""
        try:
            errors = self._client.delete(chunk.queue_name, chunk.receipt_handles)
        except TransientError as fault:
            if isinstance(fault, (UnreachableError, UnclearAnswerError)):
                # They may be gone: the queue will refuse their handles then.
                chunk = chunk._replace(is_unsure=True)
            if monotonic() < chunk.expires_secs:
                return chunk
            self._give_up([chunk])
            return None
        except OperatorError as failure:
            self._fail(failure)
            self._give_up([chunk])
            return None
        refused = [error.receipt_handle for error in errors if error.code in LOST_LEASE]
        kept = [error.receipt_handle for error in errors if error.code not in LOST_LEASE]
        self._tally.add(acknowledged=len(chunk.receipt_handles) - len(errors))
        if refused:
            name = "unconfirmed" if chunk.is_unsure else "unacknowledged"
            self._tally.add(**{name: len(refused)})
        if not kept:
            return None
        chunk = chunk._replace(receipt_handles=kept, tries=chunk.tries + 1)
        if chunk.tries <= _ENTRY_TRIES:
            return chunk
        self._give_up([chunk])
        return None

    def _release_all(self, numbers: Iterable[int], began_secs: float) -> None:
        handles: deque[tuple[str, str]] = deque()
        for lease in self._take(numbers, began_secs):
            handles.extend((lease.queue_name, handle) for handle in lease.receipt_handles if handle)
            self._tally.add(released=len(lease.receipt_handles))
        self._work_off(handles, self._release, began_secs)
        if handles:
            self._tally.add(failed_releases=len(handles))

    def _release(self, handle: tuple[str, str]) -> tuple[str, str] | None:
        """Try to give a message back; return its handle if that is worth another try."""
        try:
            self._client.change_visibility(*handle, _RELEASE_SECS)
        except TransientError:
            return handle
        except OperatorError:
            self._tally.add(failed_releases=1)
        return None
