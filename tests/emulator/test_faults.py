"""The fault plan as a function: what it may say, and whom it hits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator import faults
from emulator.faults import ARRIVAL, FaultPlanError, parse_plan
from emulator.running_plan import Counts, RequestFaults, RunningPlan
from emulator.settings import SettingsError, parse_settings

NOW = 1_790_000_000_000
REPORTS, REPLIES = "Alicom-Queue-1-SmsReport", "Alicom-Queue-1-SmsUp"
Rule = dict[str, Any]


def run(*rules: Rule, seed: str = "1") -> RunningPlan:
    return RunningPlan(parse_plan(json.dumps({"seed": seed, "rules": rules})), NOW)


def is_hit(plan: RunningPlan, operation: str = "receive", queue: str = REPORTS) -> bool:
    return bool(plan.hits(ARRIVAL, operation, queue, NOW))


def draw(plan: RunningPlan, requests: int) -> list[bool]:
    return [is_hit(plan) for _ in range(requests)]


def test_a_plan_is_the_same_whenever_it_is_replayed_and_another_with_another_seed() -> None:
    rule = {"fault": "unavailable", "share": 0.5}
    assert draw(run(rule), 64) == draw(run(rule), 64)
    assert draw(run(rule), 64) != draw(run(rule, seed="2"), 64)


def test_rules_do_not_disturb_each_others_chance() -> None:
    rule = {"fault": "unavailable", "operations": ["receive"], "share": 0.5}
    other = {"fault": "unavailable", "operations": ["delete"], "share": 0.5}
    alone, together = run(rule), run(rule, other)
    for _ in range(64):
        is_hit(together, "delete")
        assert is_hit(alone) == is_hit(together)


def test_each_rule_has_a_chance_of_its_own() -> None:
    rule = {"fault": "unavailable", "share": 0.5}
    first, second = run(rule), run({"fault": "unavailable", "operations": ["send"]}, rule)
    assert draw(first, 64) != draw(second, 64)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.text(max_size=5))
def test_the_share_is_kept(share: float, seed: str) -> None:
    hits = sum(draw(run({"fault": "slow", "share": share}, seed=seed), 400))
    assert abs(hits - 400 * share) <= 65 * (0 < share < 1)


def test_skipped_requests_are_left_alone_and_hits_can_be_limited() -> None:
    plan = run({"fault": "unavailable", "skip": 2, "times": 3})
    assert draw(plan, 8) == [False, False, True, True, True, False, False, False]
    assert plan.counts == [Counts(matched=8, injected=3)]


def test_a_rule_is_for_its_operations_and_queues() -> None:
    plan = run({"fault": "unavailable", "operations": ["delete"], "queues": ["*-SmsReport"]})
    assert not is_hit(plan, "receive")
    assert not is_hit(plan, "delete", REPLIES)
    assert is_hit(plan, "delete")
    assert plan.counts == [Counts(matched=1, injected=1)]


def test_the_sms_api_belongs_to_no_queue() -> None:
    assert not run({"fault": "slow", "queues": ["*"]}).hits(ARRIVAL, "rpc", None, NOW)
    assert run({"fault": "slow"}).hits(ARRIVAL, "rpc", None, NOW)


def test_a_window_opens_and_closes_in_emulator_time() -> None:
    plan = run({"fault": "unavailable", "from_secs": 10, "until_secs": 20})
    seen = [
        bool(plan.hits(ARRIVAL, "send", REPORTS, NOW + ms))
        for ms in (9_999, 10_000, 19_999, 20_000)
    ]
    assert seen == [False, True, True, False]
    assert plan.counts == [Counts(matched=2, injected=2)]


def test_the_first_ending_wins_and_delays_and_skews_add_up() -> None:
    plan = run(
        {"fault": "slow", "delay_secs": 1},
        {"fault": "unavailable"},
        {"fault": "clock_skew", "secs": -5},
        {"fault": "reset_before"},
        {"fault": "slow", "delay_secs": 2},
        {"fault": "clock_skew", "secs": 60},
    )
    request = RequestFaults(plan, "receive", REPORTS)
    ending = request.at_arrival(NOW)
    assert ending is not None
    assert ending.code == "ServiceUnavailable"
    assert (request.delay_secs, request.skew_ms) == (3, 55_000)


def test_garbage_comes_before_the_request_is_done_unless_it_says_otherwise() -> None:
    early = RequestFaults(run({"fault": "garbage_answer"}), "send", REPORTS)
    assert (early.at_arrival(NOW) is None, early.at_answer(NOW) is None) == (False, True)
    late = RequestFaults(run({"fault": "garbage_answer", "applied": True}), "send", REPORTS)
    assert (late.at_arrival(NOW) is None, late.at_answer(NOW) is None) == (True, False)


@pytest.mark.parametrize(("share", "touched"), [(0, 1), (0.2, 3), (0.5, 8), (1, 16)])
def test_a_share_of_the_entries_is_touched_at_least_one(share: float, touched: int) -> None:
    plan = run({"fault": "partial_delete", "share_of_entries": share, "code": "InternalError"})
    fates = RequestFaults(plan, "delete", REPORTS).at_delete(16, NOW)
    assert len(fates) == touched
    assert set(fates.values()) == {"InternalError"}
    assert fates.keys() <= set(range(16))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"fault": "qps_limit"}, "QpsLimitExceeded"),
        ({"fault": "internal_error"}, "InternalError"),
        ({"fault": "forbidden"}, "AccessDenied"),
        ({"fault": "forbidden", "code": "SignatureDoesNotMatch"}, "SignatureDoesNotMatch"),
        ({"fault": "forbidden", "operations": ["token"]}, "Forbidden.RAM"),
        ({"fault": "throttling"}, "Throttling.User"),
        ({"fault": "refusal", "code": "isp.RAM_PERMISSION_DENY"}, "isp.RAM_PERMISSION_DENY"),
    ],
)
def test_a_refusal_has_a_code(rule: Rule, code: str) -> None:
    plan = run(rule)
    (hit,) = plan.hits(ARRIVAL, plan.plan.rules[0].operations[0], REPORTS, NOW)
    assert hit.code == code


def with_rule(**rule: object) -> str:
    return json.dumps({"rules": [{"fault": "slow"}, rule]})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        (b"\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must be an object"),
        ("{}", "rules must be a list"),
        ('{"rules": {}}', "rules must be a list"),
        ('{"rules": [], "sed": "1"}', "sed is not a field"),
        ('{"rules": [], "seed": 1}', "seed must be a text"),
        ('{"rules": ["slow"]}', "rules[0] must be an object"),
        (with_rule(), "rules[1].fault must be one of internal_error, "),
        (with_rule(fault="slwo"), "rules[1].fault must be one of"),
        (with_rule(fault=["slow"]), "rules[1].fault must be one of"),
        (with_rule(fault="slow", dely_secs=1), "rules[1].dely_secs is not a field of slow: it has"),
        (with_rule(fault="slow", most=1), "rules[1].most is not a field of slow"),
        (with_rule(fault="slow", delay_secs="1"), "rules[1].delay_secs must be seconds"),
        (with_rule(fault="slow", delay_secs=-1), "rules[1].delay_secs must be seconds"),
        (with_rule(fault="slow", share=1.5), "rules[1].share must be a number from 0 to 1"),
        (with_rule(fault="slow", share=True), "rules[1].share must be a number from 0 to 1"),
        (with_rule(fault="slow", share=float("nan")), "rules[1].share must be a number"),
        (with_rule(fault="slow", skip=-1), "rules[1].skip must be a whole number from 0"),
        (with_rule(fault="slow", times=1.5), "rules[1].times must be a whole number"),
        (with_rule(fault="slow", until_secs=float("inf")), "rules[1].until_secs must be seconds"),
        (with_rule(fault="slow", from_secs=5, until_secs=5), "rules[1].until_secs must be greater"),
        (with_rule(fault="slow", queues="*"), "rules[1].queues must be a list of texts"),
        (with_rule(fault="slow", queues=[]), "rules[1].queues must be a list of texts"),
        (
            with_rule(fault="slow", operations=["recieve"]),
            "rules[1].operations: slow is for receive",
        ),
        (with_rule(fault="empty", operations=["send"]), "empty is for receive, not for send"),
        (with_rule(fault="fewer", most=0), "rules[1].most must be a whole number from 1"),
        (with_rule(fault="clock_skew"), "rules[1].secs is missing"),
        (with_rule(fault="early_expiry", secs=-1), "rules[1].secs must be 0 or more"),
        (with_rule(fault="garbage_answer", applied=1), "rules[1].applied must be true or false"),
        (with_rule(fault="partial_delete", code="QpsLimitExceeded"), "code must be one of"),
        (with_rule(fault="refusal", code=""), "rules[1].code must be a text"),
        (with_rule(fault="forbidden", code="Forbidden.RAM"), "one of AccessDenied, "),
        (
            with_rule(fault="forbidden", operations=["token"], code="AccessDenied"),
            "one of Forbidden.RAM, ",
        ),
        (with_rule(fault="forbidden", operations=["send", "rpc"]), "make two rules"),
    ],
)
def test_a_bad_plan_is_refused_in_one_sentence(text: str | bytes, told: str) -> None:
    with pytest.raises(FaultPlanError) as error:
        parse_plan(text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_documentation_names_every_fault() -> None:
    with pytest.raises(FaultPlanError) as error:
        parse_plan('{"rules": [{"fault": ""}]}')
    names = str(error.value).partition("one of ")[2].split(", ")
    assert len(names) > 20
    assert [name for name in names if f"``{name}``" not in (faults.__doc__ or "")] == []


@pytest.mark.parametrize("name", ["mild", "rough"])
def test_a_plan_that_comes_along_is_taken_by_its_name(name: str) -> None:
    plan = parse_settings([f"--faults={name}"]).faults
    assert plan is not None
    assert plan.seed == name


def test_a_plan_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"rules": [{"fault": "empty"}]}')
    plan = parse_settings([f"--faults={path}"]).faults
    assert plan is not None
    assert [rule.fault for rule in plan.rules] == ["empty"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no-such-file", "cannot be read (No such file or directory): name a file, or mild, rough"),
        (".", "cannot be read (Is a directory)"),
        ("bad.json", "rules[0].fault must be one of"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused_in_one_sentence(
    name: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text('{"rules": [{}]}')
    with pytest.raises(SettingsError) as error:
        parse_settings([f"--faults={tmp_path / name}"])
    assert told in str(error.value)
    assert "\n" not in str(error.value)
