"""Messages that nobody can read stay where they are: seen on the wire, behind the real source."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.clock import utc_now
from pipeline.errors import UnusableMessagesError
from pipeline.landing import Landing
from pipeline.mns.settings import MnsSettings, Until
from pipeline.stopping import forget_stop
from tests.job.small_job import NOON, report
from tests.mns.fake_mns import FakeMns, messages
from transforms.archive import list_archive
from transforms.breaker import FailureLimit, FailureLimitError, take_breaker_back
from transforms.limit_failures import _LimitFailuresFn, verdicts_on
from transforms.tally import close_tally

QUEUE = "q-SmsReport"
LIMIT = FailureLimit(share=0.5, window_messages=100)
UNKNOWN = '{"version": 2, "receipts": []}'


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")
    forget_stop()
    yield
    forget_stop()


def test_a_verdict_on_each_message_in_its_place() -> None:
    good, bad = report("a"), report("b")._replace(body=b"e30=")
    worse = report("c")._replace(body=b"{", message_id="c")

    assert verdicts_on([good, bad, good, worse], NOON) == [
        None,
        "unknown_shape",
        None,
        "malformed_json",
    ]
    assert verdicts_on([good, good], NOON) == [None, None]


def test_all_instances_of_a_step_count_together() -> None:
    bad = [report("a")._replace(body=b"{")] * 5
    limit = FailureLimit(share=0.5, window_messages=20)
    try:
        for instance in range(2):
            fn = _LimitFailuresFn(limit, utc_now, "together")
            fn.setup()
            fn.start_bundle()
            assert list(fn.process(bad)) == [bad]
            with pytest.raises(FailureLimitError) if instance else nullcontext():
                fn.finish_bundle()
    finally:
        take_breaker_back("together")
        close_tally("together")


@pytest.fixture
def queue() -> Iterator[FakeMns]:
    fake = FakeMns()
    yield fake
    fake.close()


def landing_of(queue: FakeMns, archive: Path) -> Landing:
    settings = MnsSettings(
        queues=(QUEUE,), mns_endpoint=queue.endpoint, dybaseapi_endpoint=queue.endpoint,
        fetchers=1, max_bundle_messages=32, drain_wait_secs=0,
    )  # fmt: skip
    return Landing(settings, str(archive), utc_now, LIMIT)


def fill(queue: FakeMns, first: int, last: int, body: str | None = None) -> None:
    for number in range(first, last, 16):
        numbers = range(number, min(number + 16, last))
        queue.receives.append(messages(*numbers, body=body) if body else messages(*numbers))


@pytest.mark.integration
def test_nothing_of_an_unknown_format_is_archived_or_deleted_and_all_of_it_is_given_back(
    queue: FakeMns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with landing_of(queue, tmp_path) as landing:
        fill(queue, 0, 160)
        landed = landing.land(Until(empty=True))
        assert (landed.archived, landed.acknowledged) == (160, 160)
        assert landing.standing().failed_share == {QUEUE: 0}

        # The window reaches back into the read before: 50 bad ones in 100 are allowed, and no more.
        fill(queue, 160, 208, UNKNOWN)
        landed = landing.land(Until(empty=True))
        assert (landed.archived, landed.acknowledged) == (48, 48)
        assert landing.standing().failed_share == {QUEUE: 0.48}

        fill(queue, 208, 272, UNKNOWN)
        with pytest.raises(
            UnusableMessagesError, match=f"100 messages of {QUEUE} 51 .*unknown_shape 51"
        ):
            landing.land(Until(empty=True))
    received = 272 - 16 * len(queue.receives)
    deleted = {handle for request in queue.asked("DELETE") for handle in request.handles}
    given_back = {
        request.query["receiptHandle"]
        for request in queue.asked("PUT")
        if request.query["visibilityTimeout"] == "1"
    }
    assert deleted == {f"handle-{number}" for number in range(208)}
    assert given_back == {f"handle-{number}" for number in range(208, received)}
    assert sum(file.messages for file in list_archive(str(tmp_path))) == 208
    assert "Traceback" not in caplog.text
