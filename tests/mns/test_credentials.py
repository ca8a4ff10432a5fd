"""Queue tokens under a clock that the test moves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from traceback import format_exception

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import CredentialsError, OperatorError, QueueError, TransientError
from pipeline.inboxes.backoff import Draw, outage_pause_secs
from pipeline.mns.credentials import TokenService
from pipeline.mns.faults import ServiceFaultError
from pipeline.mns.tokens import Operation, QueueTokens, TokenAnswer, read_token
from pipeline.mns.transport import UnreachableError
from tests.mns.fake_mns import Answer, FakeMns

_NOW = datetime(2026, 11, 22, 4, 0, tzinfo=timezone.utc)  # noon in Beijing
_QUEUE = "Alicom-Queue-1000000000000001-SmsReport"
_RECEIVE = Operation.RECEIVE


_REFUSAL = QueueError("The queue may not be read with these keys")


class _Service:
    """A token service and the world's clock."""

    def __init__(self, life: timedelta = timedelta(minutes=10), draw: Draw = lambda: 0.0) -> None:
        self.now = _NOW
        self.life = life
        self.calls = 0
        self.is_down = False
        self.refusal: OperatorError | None = None
        self.tokens = QueueTokens(self.fetch, lambda: self.now, draw)

    def fetch(self, _: str) -> TokenAnswer:
        self.calls += 1
        if self.is_down:
            raise UnreachableError("Nobody answers")
        if self.refusal is not None:
            raise self.refusal
        ends = (self.now + self.life).astimezone(timezone(timedelta(hours=8)))
        return TokenAnswer("id", "secret", f"token-{self.calls}", f"{ends:%Y-%m-%d %H:%M:%S}")

    def be_refused(self, operation: Operation) -> None:
        """Try the token at hand, which may have ended, and fresh ones, until there is a pause."""
        for _ in range(4):
            token = self.tokens.current(_QUEUE, operation)
            self.tokens.reject(_QUEUE, operation, token, _REFUSAL)

    def token_after(self, secs: float) -> str:
        self.now += timedelta(seconds=secs)
        return self.tokens.current(_QUEUE, _RECEIVE).security_token


@pytest.mark.parametrize(
    ("expire_time", "refresh_secs", "end_secs"),
    [
        ("2026-11-22 12:10:00", 480, 600),  # Beijing time, 2 minutes before the end
        ("2026-11-22 12:02:00", 60, 120),  # short: at half its life
        ("2026-11-22 20:00:00", 3480, 3600),  # 8 hours: trusted for one
        ("2026-11-22 11:59:59", 480, 600),  # born expired
        ("2026-11-22T04:10:00Z", 480, 600),  # another form
        ("", 480, 600),
    ],
)
def test_a_token_is_replaced_in_time(expire_time: str, refresh_secs: int, end_secs: int) -> None:
    token = read_token(TokenAnswer("id", "secret", "token", expire_time), _NOW)
    assert token.refresh_at - _NOW == timedelta(seconds=refresh_secs)
    assert token.expires_at - _NOW == timedelta(seconds=end_secs)


def test_a_token_is_fetched_once_and_replaced_two_minutes_before_its_end() -> None:
    service = _Service()
    assert [service.token_after(secs) for secs in (0, 400, 79, 1)] == [
        "token-1", "token-1", "token-1", "token-2",
    ]  # fmt: skip


def test_a_refused_token_is_replaced_once_however_many_complain() -> None:
    service = _Service()
    token = service.tokens.current(_QUEUE, _RECEIVE)
    service.tokens.reject(_QUEUE, _RECEIVE, token, _REFUSAL)
    assert service.token_after(0) == "token-2"
    service.tokens.reject(_QUEUE, _RECEIVE, token, _REFUSAL)
    assert service.token_after(0) == "token-2"


def test_a_token_that_still_works_outlives_its_service() -> None:
    service = _Service()
    service.token_after(0)
    service.is_down = True
    assert service.token_after(500) == "token-1"
    calls = service.calls
    assert service.token_after(0.05) == "token-1"
    assert service.calls == calls  # it backs off
    with pytest.raises(TransientError):
        service.token_after(100)


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.floats(0, 60))
def test_a_service_that_returns_is_used_within_five_seconds(
    random: Random, down_secs: float
) -> None:
    def draw() -> float:
        return random.uniform(0.8, 1.0)  # the longest pauses are the worst

    service = _Service(draw=draw)
    returns_at = _NOW + timedelta(seconds=down_secs)
    failures = 0
    while True:
        service.is_down = service.now < returns_at
        try:
            service.token_after(0)
        except TransientError:
            failures += 1
            # As a fetcher does that has found no token.
            service.now += timedelta(seconds=outage_pause_secs(failures, draw))
        else:
            break
    assert service.now - returns_at < timedelta(seconds=4)
    # Twice a second at the beginning, then once in one to four seconds.
    assert service.calls <= down_secs + 8


def test_threads_that_waited_for_a_call_in_vain_do_not_repeat_it_one_after_another() -> None:
    moments = iter([_NOW] * 6)
    have_come = threading.Semaphore(0)
    calls = []

    def clock() -> datetime:
        have_come.release()
        # The call takes longer than any pause.
        return next(moments, _NOW + timedelta(seconds=5))

    def fetch(queue_name: str) -> TokenAnswer:
        calls.append(queue_name)
        for _ in range(6):  # the four threads, this one at the door of this call, and its start
            assert have_come.acquire(timeout=5)
        raise UnreachableError("Nobody answers")

    tokens = QueueTokens(fetch, clock, lambda: 0.0)
    with ThreadPoolExecutor(5) as pool:
        faults = [pool.submit(tokens.current, _QUEUE, _RECEIVE).exception for _ in range(5)]
        assert [type(fault()) for fault in faults] == [UnreachableError] * 5
    assert len(calls) == 1


def test_an_account_that_is_refused_works_to_the_end_of_its_token_and_stops() -> None:
    service = _Service()
    service.tokens.accept(_QUEUE, _RECEIVE, service.tokens.current(_QUEUE, _RECEIVE))
    service.refusal = CredentialsError("Alibaba Cloud refused the account keys")
    assert {service.token_after(1) for _ in range(599)} == {"token-1"}
    # One at once, then after pauses of 1 to 15 s, with this jitter.
    assert 8 <= service.calls <= 15
    with pytest.raises(CredentialsError, match="refused the account keys"):
        service.token_after(1)


def test_an_account_that_is_refused_for_a_minute_is_not_given_up() -> None:
    service = _Service()
    service.tokens.accept(_QUEUE, _RECEIVE, service.tokens.current(_QUEUE, _RECEIVE))
    service.refusal = CredentialsError("Alibaba Cloud refused the account keys")
    service.token_after(570)
    for _ in range(29):
        service.token_after(1)
    service.now += timedelta(seconds=1)
    for _ in range(10):  # the token has ended, and still the service may come to its senses
        with pytest.raises(TransientError, match="refused the account keys"):
            service.token_after(0.1)
    service.refusal = None
    assert service.token_after(15).startswith("token-")


def test_an_account_that_is_refused_at_the_start_is_wrong() -> None:
    service = _Service()
    service.refusal = CredentialsError("Alibaba Cloud refused the account keys")
    with pytest.raises(CredentialsError):
        service.token_after(0)
    assert service.calls == 1


@pytest.mark.parametrize(
    ("operation", "is_final"), [(Operation.DELETE, True), (Operation.CHANGE_VISIBILITY, False)]
)
def test_an_operation_that_is_refused_is_neither_forgiven_for_receives_nor_keeps_them_waiting(
    operation: Operation, is_final: bool
) -> None:
    service = _Service()
    fault: Exception | None = None
    for _ in range(100):
        # Whoever receives has a token at any time.
        service.tokens.accept(_QUEUE, _RECEIVE, service.tokens.current(_QUEUE, _RECEIVE))
        with pytest.raises((TransientError, QueueError), match="may not be read") as caught:
            service.be_refused(operation)
        fault = caught.value
        if isinstance(fault, QueueError):
            break
        service.now += timedelta(seconds=1)
    assert service.tokens.is_refused_for_good(_QUEUE, operation) == is_final
    assert (service.now - _NOW < timedelta(seconds=90)) == is_final
    assert not service.tokens.is_refused_for_good(_QUEUE, _RECEIVE)


def test_a_clock_that_is_set_back_does_not_prolong_a_pause() -> None:
    service = _Service()
    service.is_down = True
    with pytest.raises(TransientError):
        service.token_after(0)
    service.is_down = False
    assert service.token_after(-3600) == "token-2"


def test_a_day_of_ten_minute_tokens_never_fails() -> None:
    service = _Service()
    for _ in range(24 * 60):
        service.token_after(60)
        assert service.tokens.current(_QUEUE, _RECEIVE).expires_at > service.now
    assert service.calls == 24 * 60 // 8


def test_secrets_are_not_in_the_repr() -> None:
    answer = TokenAnswer("key-id", "key-secret", "the-token", "2026-11-22 12:10:00")
    shown = repr(answer) + repr(read_token(answer, _NOW))
    assert not any(secret in shown for secret in ("key-id", "key-secret", "the-token"))


@pytest.mark.integration
@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("isv.INVALID_PARAMETERS", r"gives no token .*\(isv\.INVALID_PARAMETERS\)"),
        ("Throttling.User", "with the error Throttling.User:"),
        ("x 13800000000 your code\nERROR forged", "with an error whose code is of no known form:"),
    ],
)
def test_only_what_looks_like_a_code_of_the_token_service_is_repeated(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, said: str
) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")
    fake = FakeMns()
    fake.token = lambda: Answer(status, json.dumps({"Code": code, "Message": code}))
    with closing(fake), pytest.raises((QueueError, ServiceFaultError), match=said) as caught:
        TokenService(fake.endpoint).fetch(_QUEUE)
    assert "13800000000" not in "".join(format_exception(caught.value))


@pytest.mark.integration
def test_no_keys_anywhere_is_said_in_one_sentence(tmp_path: Path) -> None:
    program = (
        "from pipeline.mns.credentials import TokenService\n"
        "try: TokenService('http://127.0.0.1:9').fetch('q-SmsReport')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ALIBABA_CLOUD")}
    environment |= {"HOME": str(tmp_path), "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true"}
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.startswith("CredentialsError No Alibaba Cloud account keys were found")
    assert "Traceback" not in ran.stderr
