"""``sms-receipts audit``: exit codes, and what is told when the totals cannot be had."""

import json
from datetime import timedelta

import pytest

from pipeline.__main__ import main
from pipeline.clock import utc_now
from pipeline.errors import CredentialsError, EndpointError, OperatorError
from tests.history.past import AWAITING, DELIVERED, FAILED, SMS, History
from transforms.moments import BEIJING

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

TODAY = utc_now().astimezone(BEIJING).date()


def test_the_exit_code_tells_whether_the_tables_are_complete(
    history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        f"--from={TODAY - timedelta(days=3)}",
        f"--to={TODAY}",
        f"--dysmsapi_endpoint={history.past.emulator.url}",
        f"--dataset={history.dataset}",
    ]
    assert main(["audit", *flags]) == 2
    assert "There is no dataset at" in capsys.readouterr().err

    # The send log is read, and nobody has asked Alibaba yet.
    history.past.set_rules({"fault": "forbidden", "code": "Forbidden.RAM", "times": 1})
    with pytest.raises(CredentialsError):
        history.reconcile()
    history.past.set_rules()
    assert main(["audit", *flags]) == 1
    told = capsys.readouterr().out
    assert "outside of the tolerance of 0.10%" in told
    assert told.splitlines()[-1].startswith("Next: sms-receipts reconcile --from=")
    assert main(["audit", *flags, "--tolerance=1"]) == 0

    history.reconcile()
    capsys.readouterr()
    assert main(["audit", *flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["is_within_tolerance"]
    assert [
        sum(day[side][word] for day in document["days"])
        for side, word in (
            ("alibaba", "total"),
            ("tables", "logged"),
            ("tables", "delivered"),
            ("tables", "failed"),
            ("tables", "silent"),
        )
    ] == [SMS, SMS, DELIVERED, FAILED, AWAITING]
    one_sign = history.audit("--sign_name=星河商城")
    assert 0 < sum(day.theirs.total for day in one_sign.days) < SMS
    assert one_sign.gaps == []
    one_type = history.audit("--template_type=0", "--template_code=SMS_154950901")
    assert 0 < sum(day.theirs.total for day in one_type.days) < SMS
    assert one_type.gaps == []
    # A code is missing, or is none of the type.
    assert history.audit("--template_type=2", "--template_code=SMS_154950901").gaps


@pytest.mark.parametrize(
    ("rule", "error", "sentence"),
    [
        (
            {"fault": "forbidden", "code": "Forbidden.RAM"},
            CredentialsError,
            "allow the RAM user the action dysms:QuerySendStatistics",
        ),
        (
            {"fault": "refusal", "code": "isv.INVALID_PARAMETERS"},
            OperatorError,
            r"will not tell its totals .*\(isv.INVALID_PARAMETERS\)",
        ),
        ({"fault": "unavailable"}, EndpointError, r"cannot answer now \(ServiceUnavailable\)"),
    ],
)
def test_without_totals_there_is_no_verdict(
    history: History, rule: dict[str, str], error: type[OperatorError], sentence: str
) -> None:
    history.past.set_rules(rule)
    with pytest.raises(error, match=sentence):
        history.audit()


def test_the_future_cannot_be_audited(history: History) -> None:
    with pytest.raises(OperatorError, match="is still to come: today is"):
        history.audit(f"--to={TODAY + timedelta(days=2)}")


def test_an_account_that_may_not_send_abroad_is_audited(history: History) -> None:
    history.past.set_rules({"fault": "refusal", "code": "isv.PRODUCT_UN_SUBSCRIPT", "skip": 1})
    with pytest.raises(OperatorError, match="There is no dataset"):
        history.audit()
    assert history.past.calls() == 2


def test_a_moment_of_trouble_is_waited_out(history: History) -> None:
    history.past.set_rules({"fault": "throttling", "times": 1})
    with pytest.raises(OperatorError, match="There is no dataset"):
        history.audit()
    assert history.past.calls() == 3
