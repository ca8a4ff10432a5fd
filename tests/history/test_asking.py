"""Asking about many sends: patience with a service in trouble, and a stop in good order."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import chain

import pytest

from pipeline.asking import Asked, Asker
from pipeline.clock import utc_now
from pipeline.errors import CredentialsError, EndpointError
from pipeline.sms_api import SmsApi
from tests.history.past import Past
from transforms.decode_query import Question, decode_answer

pytestmark = pytest.mark.integration

NOON = utc_now().replace(hour=4, minute=0) - timedelta(days=5)


def questions(count: int, phone_number: str = "13800000001") -> list[Question]:
    """Sends that Alibaba does not know, at noon."""
    return [Question(f"{number}^0", phone_number, NOON) for number in range(count)]


def ask(
    past: Past, asked: Iterable[Question], is_stopped: Callable[[], bool] = lambda: False
) -> list[Asked]:
    asker = Asker(SmsApi(past.emulator.url), 1000, utc_now)
    try:
        return [each for batch in asker.ask(asked, is_stopped) for each in batch]
    finally:
        asker.close()


def test_every_question_is_answered_once(past: Past) -> None:
    answers = ask(past, questions(100))
    assert Counter(each.outcome for each in answers) == {"unknown": 100}
    bodies = [each.message.body for each in answers if each.message]
    assert {decode_answer(body).question.biz_id for body in bodies} == {
        f"{number}^0" for number in range(100)
    }
    assert past.calls() == sum(each.calls for each in answers) == 100


def test_throttling_is_waited_out(past: Past) -> None:
    past.set_rules({"fault": "throttling", "times": 40})
    answers = ask(past, questions(40))
    assert Counter(each.outcome for each in answers) == {"unknown": 40}
    assert past.calls() == sum(each.calls for each in answers) == 80


def test_lost_and_broken_answers_are_asked_for_again(past: Past) -> None:
    past.set_rules(
        {"fault": "reset_after", "times": 10},
        {"fault": "half_answer", "skip": 10, "times": 10},
        {"fault": "internal_error", "skip": 20, "times": 10},
    )
    answers = ask(past, questions(60))
    assert Counter(each.outcome for each in answers) == {"unknown": 60}
    assert past.calls() == 60 + 30


def test_a_refused_number_never_stops_the_rest(past: Past) -> None:
    answers = ask(past, [*questions(1, "12"), *questions(3), *questions(1, "no number")])
    assert Counter(each.outcome for each in answers) == {"unknown": 3, "refused": 2}
    assert past.calls() == 5


def test_a_send_near_midnight_is_unknown_only_when_both_days_say_so(past: Past) -> None:
    midnight = NOON.replace(hour=16, second=0, microsecond=0)
    (answer,) = ask(past, [Question("1^0", "13800000001", midnight)])
    assert (answer.outcome, answer.calls) == ("unknown", 2)


def test_wrong_keys_stop_everything(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "wrong")
    with pytest.raises(CredentialsError):
        ask(past, questions(1000))
    assert past.calls() <= 64


def test_a_service_that_has_never_answered_is_given_up_on_soon(past: Past) -> None:
    past.set_rules({"fault": "reset_before"})
    with pytest.raises(EndpointError, match="check --dysmsapi_endpoint .* run this again"):
        ask(past, questions(2))
    assert past.calls() <= 8


def test_what_was_answered_is_handed_over_before_the_rest_fails(past: Past) -> None:
    past.set_rules({"fault": "forbidden", "code": "Forbidden.RAM", "skip": 50})
    asker = Asker(SmsApi(past.emulator.url), 1000, utc_now)
    answered: list[Asked] = []
    with pytest.raises(CredentialsError):
        answered.extend(chain.from_iterable(asker.ask(questions(100), lambda: False)))
    asker.close()
    # Those under way at the same time may have lost the race.
    assert 50 - 32 <= len(answered) <= 50


def test_who_stops_reads_no_further_question(past: Past) -> None:
    read = 0

    def endless() -> Iterator[Question]:
        nonlocal read
        for number in range(1_000_000):
            read += 1
            yield Question(f"{number}^0", "13800000001", NOON)

    answers = ask(past, endless(), lambda: read > 100)
    outcomes = Counter(each.outcome for each in answers)
    assert sum(outcomes.values()) == read < 200
    assert past.calls() == outcomes["unknown"]
