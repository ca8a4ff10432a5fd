"""A request to stop, in every state that a read can be in: it ends in time, and accounts for everything."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from pipeline.stopping import request_stop
from tests.mns.fake_mns import DROPPED, EMPTY, SILENCE, Answer, error, messages, renewed
from tests.mns.reading import Reading

pytestmark = pytest.mark.integration

_Read = Callable[..., Reading]
_STOP_SECS = 0.8
# What nobody can end is the call for a token; one may have begun just before the time was over.
_TOKEN_SECS = 3.0
# A busy machine is slow; what waits for the poll takes 30 s, and what is never answered takes for ever.
_SLACK_SECS = 8.0
_OURS = ("fetch-", "watch-inbox", "delete", "renew", "release")


def _idle(reading: Reading) -> None:
    _poll(reading, EMPTY._replace(after_secs=0.5))


def _idle_in_a_poll_that_outlasts_the_stop(reading: Reading) -> None:
    _poll(reading, EMPTY._replace(after_secs=20))


def _with_a_full_buffer(reading: Reading) -> None:
    reading.queue.change = lambda request: renewed(request)._replace(after_secs=0.02)
    reading.queue.receives += [
        messages(*range(first, first + 16)) for first in range(16, 16 + 256, 16)
    ]
    reading.wait_for(lambda: reading.count("received") == 16 + 256)


def _in_a_black_hole(reading: Reading) -> None:
    reading.queue.change = lambda _: SILENCE
    reading.queue.deletes += [SILENCE] * 9
    reading.queue.receives += [messages(16)]
    _poll(reading, SILENCE)


def _in_an_outage(reading: Reading) -> None:
    reading.queue.change = lambda _: DROPPED
    reading.queue.deletes += [DROPPED] * 99
    reading.queue.receives += [messages(16), *[DROPPED] * 99]
    reading.wait_for(lambda: reading.count("receive_faults") == 2)


def _without_tokens(reading: Reading) -> None:
    reading.queue.token = lambda: Answer(503)
    reading.queue.change = lambda _: error(403, "SecurityTokenExpired")
    reading.queue.deletes += [error(403, "SecurityTokenExpired")] * 99
    reading.queue.receives += [messages(16), *[error(403, "SecurityTokenExpired")] * 99]
    reading.wait_for(lambda: reading.count("receive_faults") == 2)


def _waiting_for_a_token(reading: Reading) -> None:
    asked = threading.Event()

    def token() -> Answer:
        asked.set()
        return SILENCE

    reading.queue.token = token
    reading.queue.receives += [error(403, "SecurityTokenExpired")] * 99
    assert asked.wait(5)


def _in_a_long_pause(reading: Reading) -> None:
    reading.queue.receives += [error(500, "InternalError")] * 99
    reading.wait_for(lambda: reading.count("receive_faults") == 4)


def _while_renewing(reading: Reading) -> None:
    reading.queue.change = lambda request: renewed(request)._replace(after_secs=0.4)
    reading.queue.receives += [messages(16, visible_secs=0.5)]
    reading.wait_for(lambda: bool(reading.queue.asked("PUT")))


def _poll(reading: Reading, answer: Answer) -> None:
    """Have the fetcher ask for messages, and answer that poll so."""
    reading.queue.receives.append(answer)
    reading.wait_for(lambda: not reading.queue.receives)


@pytest.mark.parametrize(
    ("state", "acknowledged", "released", "within_secs"),
    [
        (_idle, 16, 0, _STOP_SECS),
        (_idle_in_a_poll_that_outlasts_the_stop, 16, 0, _STOP_SECS),
        (_with_a_full_buffer, 16, 256, _STOP_SECS),
        (_in_a_black_hole, 0, 1, _STOP_SECS),
        (_in_an_outage, 0, 1, _STOP_SECS),
        (_without_tokens, 0, 1, _STOP_SECS),
        (_waiting_for_a_token, 0, 0, _STOP_SECS + 2 * _TOKEN_SECS),
        (_in_a_long_pause, 16, 0, _STOP_SECS),
        (_while_renewing, 16, 1, _STOP_SECS),
    ],
)
def test_a_stop_ends_in_time_and_accounts_for_every_message(
    read: _Read,
    state: Callable[[Reading], None],
    acknowledged: int,
    released: int,
    within_secs: float,
) -> None:
    sockets = _sockets()
    reading = read(wait_secs=30, stop_secs=_STOP_SECS)
    reading.queue.receives += [messages(*range(16))]
    reading.inbox.start()
    reading.take()
    state(reading)
    began = time.monotonic()
    request_stop()
    reading.wait_for(lambda: reading.inbox.is_finished)
    reading.acknowledge()
    reading.inbox.close()
    assert time.monotonic() - began < within_secs + _SLACK_SECS
    counts = reading.tally.counts()
    settled = counts["acknowledged"] + counts["unacknowledged"] + counts["unconfirmed"]
    assert (counts["acknowledged"], settled) == (acknowledged, 16)
    assert counts["released"] == counts["received"] - 16 == released
    assert reading.inbox.failure is None
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(_OURS)] == []
    reading.close()
    # Alibaba's client keeps the connection to the token service for the life of the process.
    assert _sockets() <= sockets + 1


def test_a_stop_amid_slow_deletes_finishes_them(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(*range(first, first + 16)) for first in range(0, 192, 16)]
    reading.queue.deletes += [Answer(204, after_secs=0.3)] * 12
    reading.inbox.start()
    for _ in range(12):
        reading.take()
    threading.Timer(0.1, request_stop).start()
    reading.acknowledge()
    assert reading.inbox.is_finished
    assert reading.count("acknowledged") == 192


def test_a_stop_amid_deletes_that_are_never_answered_gives_them_up(read: _Read) -> None:
    reading = read(stop_secs=0.5)
    reading.queue.receives += [messages(1)]
    reading.queue.deletes += [SILENCE] * 9
    reading.inbox.start()
    reading.take()
    request_stop()
    began = time.monotonic()
    reading.acknowledge()
    assert time.monotonic() - began < 0.5 + _SLACK_SECS
    assert reading.count("unacknowledged") == 1


def test_messages_that_come_for_the_last_poll_are_given_back(read: _Read) -> None:
    reading = read(wait_secs=1)
    reading.queue.receives += [messages(1, 2)._replace(after_secs=0.4)]
    reading.inbox.start()
    reading.wait_for(lambda: bool(reading.queue.asked("GET")))
    request_stop()
    reading.inbox.close()
    assert sorted(request.query["receiptHandle"] for request in reading.queue.asked("PUT")) == [
        "handle-1", "handle-2",
    ]  # fmt: skip
    assert (reading.count("received"), reading.count("released")) == (2, 2)


def test_nothing_is_received_after_a_stop_that_came_first(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1)]
    request_stop()
    reading.inbox.start()
    assert reading.inbox.take(5.0) is None
    reading.inbox.close()
    assert reading.queue.requests == []


def _sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:  # the one that listed them
            continue
    return count
