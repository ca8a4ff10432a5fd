"""What a request to stop does not wait for: where it is left, and where it is not."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.stopping import GivenUpError, forget_stop, given_up_to_stop, stopping_on_signals

_ROOT = Path(__file__).parents[2]
# Long enough for whoever is in the context to be there.
SOON_SECS = 0.02
STUCK = """
import signal, threading
import pipeline.stopping
from pipeline.stopping import given_up_to_stop, stopping_on_signals

pipeline.stopping._WAY_OUT_SECS = 0.1
with stopping_on_signals(b"stopping\\n", 0.1), given_up_to_stop():
    try:
        signal.raise_signal(signal.SIGTERM)
        threading.Event().wait()
    finally:
        threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    forget_stop()


@given_up_to_stop()
def never_end() -> None:
    """What takes for ever, and is asked to stop."""
    signal.raise_signal(signal.SIGTERM)
    threading.Event().wait()


def test_what_takes_too_long_is_left_where_it_is() -> None:
    with stopping_on_signals(b"", SOON_SECS), pytest.raises(GivenUpError):
        never_end()


def test_what_is_done_in_time_is_done() -> None:
    with stopping_on_signals(b"", 60), given_up_to_stop():
        signal.raise_signal(signal.SIGTERM)


def test_what_must_not_be_left_is_finished_and_nothing_begins_after_it() -> None:
    with stopping_on_signals(b"", SOON_SECS):
        signal.raise_signal(signal.SIGTERM)
        threading.Event().wait(5 * SOON_SECS)  # a commit

        with pytest.raises(GivenUpError), given_up_to_stop():
            pytest.fail("nothing begins")


def test_without_a_limit_a_stop_waits() -> None:
    with stopping_on_signals(b""), given_up_to_stop():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getitimer(signal.ITIMER_REAL)[1] == 0, "no timer of ours"


def test_an_earlier_request_is_forgotten() -> None:
    with stopping_on_signals(b"", SOON_SECS), pytest.raises(GivenUpError):
        never_end()

    with stopping_on_signals(b"", SOON_SECS), given_up_to_stop():
        threading.Event().wait(3 * SOON_SECS)


def test_who_hangs_on_the_way_out_is_not_waited_for() -> None:
    ended = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", STUCK], cwd=_ROOT, capture_output=True, timeout=20, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert (
        ended.stderr == b"stopping\nstopping: what was not committed is left for the next start\n"
    )
