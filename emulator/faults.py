"""The fault plan: which requests the emulator treats badly, and how. No I/O, no clock.

A plan is a JSON document, given by ``--faults=FILE`` or ``PUT /emulator/faults``::

    {"seed": "any text", "rules": [
      {"fault": "reset_after", "operations": ["delete"], "share": 0.1, "skip": 3},
      {"fault": "slow", "delay_secs": 2, "queues": ["*-SmsUp"], "from_secs": 60, "until_secs": 90}]}

What every rule may say besides its ``fault``:

* ``operations``: of ``receive``, ``peek``, ``delete`` (single and batch), ``renew``
  (ChangeMessageVisibility), ``send``, ``token`` (QueryTokenForMnsQueue) and ``rpc`` (the SMS API);
  default: all that the fault is for. The administration of queues is never disturbed.
* ``queues``: patterns as of ``fnmatch`` (default: all). A ``token`` request belongs to the queue that
  it is for; ``rpc`` belongs to none, so that a rule with ``queues`` never touches it.
* ``from_secs``, ``until_secs``: a window of emulator time since the plan was set (default: always).
* ``skip``: that many matching requests are left alone first (default 0).
* ``share``: the share of the others that is hit, from 0 to 1 (default 1).
* ``times``: no more hits than that (default: no limit).

Whether the n-th request that matches a rule is hit depends on (seed, place of the rule, n) alone: the
same plan, the same fate, however requests of different kinds interleave. Rules that hit the same
request add up as far as they can; of those that end it, or do the same, the first in the plan wins.

Before anything is done (any operation, unless said otherwise):

* ``internal_error``: 500 InternalError. ``unavailable``: 503 ServiceUnavailable.
* ``qps_limit``: 400 QpsLimitExceeded (MNS). ``throttling``: 400 ``code`` (token, rpc): Throttling.User
  (default) or Throttling.
* ``forbidden``: refused with ``code``. MNS (the default operations), all 403: AccessDenied (default),
  AccessDeniedByRamPolicy, InvalidAccessKeyId, InvalidSecurityToken, SecurityTokenExpired,
  SignatureDoesNotMatch. For ``"operations": ["token"]`` or ``rpc``: Forbidden.RAM (403, default),
  InvalidAccessKeyId.NotFound (404), InvalidAccessKeyId.Inactive (400), SignatureDoesNotMatch (400).
* ``refusal``: HTTP 200 whose Code is ``code`` (any text; default isp.SYSTEM_ERROR) (token, rpc).
* ``reset_before``: the connection is reset (TCP RST) and nothing was done.
* ``clock_skew``: the server believes it is ``secs`` later (negative: earlier): the Date header of
  the answer, and the check of the request's date. Nothing else moves.
* ``slow``: the answer comes ``delay_secs`` real seconds (default 1) after it was worked out.

Of a request with a valid queue token (receive, peek, delete, renew):

* ``token_revoked``: that token is dead from now on: the code of ``--expired_token_code``, for this
  request and all later ones; QueryTokenForMnsQueue hands out working ones.

Of a receive that has something to hand out (requests of an empty queue do not match):

* ``empty``: 404 MessageNotExist, at once. ``fewer``: at most ``most`` (default 1) messages.
* ``shuffle``: any messages of the same priority, in any order.
* ``redeliver``: what is handed out stays visible, too: the next receive hands it out again, first of
  all, with another handle. The first handle is good until then, as a re-receive ends every handle.
* ``early_expiry``: the lease ends after ``secs`` (default 0: at once) whatever NextVisibleTime
  says; also for leases given by ``renew``.

Of a receive that finds nothing and wants to wait:

* ``no_wait``: 404 MessageNotExist at once, as when too many long polls are open.

Of a delete:

* ``partial_delete``: entries are refused with ``code`` and stay leased: ReceiptHandleError (default),
  MessageNotExist or InternalError; a batch lists them in its ``<Errors>``.
* ``lost_delete``: entries are answered as deleted, and come back when their leases end.

Once a request has been done and its answer is a success (2xx):

* ``reset_after``: the connection is reset instead of an answer.
* ``half_answer``: the first half of the body (without a body: of the head), then the end.
* ``garbage_answer``: 200 with bytes that are neither XML nor JSON. Unless ``applied`` is true, it
  comes before anything is done, and to any request.

``redeliver``, ``early_expiry``, ``partial_delete`` and ``lost_delete`` take ``share_of_entries``: the
share of the messages in that request that they touch, at least one (default 1; partial_delete 0.5).

Leases, tokens and messages that run out need no plan: ``POST /emulator/clock`` lets the time pass
(emulator/admin.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

_MNS: Final = ("receive", "peek", "delete", "renew", "send")
_RPC: Final = ("token", "rpc")
_ALL: Final = _MNS + _RPC

# The moments of a request at which rules are asked: the sections of the docstring.
ARRIVAL: Final = "arrival"
TOKEN: Final = "token"  # noqa: S105 (a moment)
LEASE: Final = "lease"
POLL: Final = "poll"
DELETE: Final = "delete"
ANSWER: Final = "answer"

_FORBIDDEN_MNS: Final = (
    "AccessDenied", "AccessDeniedByRamPolicy", "InvalidAccessKeyId", "InvalidSecurityToken",
    "SecurityTokenExpired", "SignatureDoesNotMatch",
)  # fmt: skip
_FORBIDDEN_RPC: Final = (
    "Forbidden.RAM", "InvalidAccessKeyId.Inactive", "InvalidAccessKeyId.NotFound",
    "SignatureDoesNotMatch",
)  # fmt: skip
_UNDELETED: Final = ("ReceiptHandleError", "MessageNotExist", "InternalError")
_MAX_SECS: Final = 10_000_000


class FaultPlanError(ValueError):
    """Raised for a plan that cannot be carried out; one sentence names rule, field and fix."""


@dataclass(frozen=True)
class Rule:
    """One rule of a plan; the fields below ``until_secs`` matter to some faults only."""

    fault: str
    moment: str
    operations: tuple[str, ...]
    queues: tuple[str, ...] | None = None
    share: float = 1.0
    skip: int = 0
    times: int | None = None
    from_secs: float = 0.0
    until_secs: float | None = None
    code: str = ""
    secs: float = 0.0
    delay_secs: float = 0.0
    most: int = 1
    share_of_entries: float = 1.0
    applied: bool = False


class FaultPlan(NamedTuple):
    """A plan as it was read: nothing has happened yet."""

    seed: str
    rules: tuple[Rule, ...]
    document: Mapping[str, object]


class _Kind(NamedTuple):
    """One fault: when rules for it are asked, what it is for, its own fields and their defaults."""

    moment: str
    operations: tuple[str, ...]
    defaults: Mapping[str, object] = {}
    codes: tuple[str, ...] = ()


_KINDS: Final[dict[str, _Kind]] = {
    "internal_error": _Kind(ARRIVAL, _ALL),
    "unavailable": _Kind(ARRIVAL, _ALL),
    "qps_limit": _Kind(ARRIVAL, _MNS),
    "throttling": _Kind(
        ARRIVAL, _RPC, {"code": "Throttling.User"}, ("Throttling.User", "Throttling")
    ),
    "forbidden": _Kind(ARRIVAL, _ALL, {"code": ""}),
    "refusal": _Kind(ARRIVAL, _RPC, {"code": "isp.SYSTEM_ERROR"}),
    "reset_before": _Kind(ARRIVAL, _ALL),
    "clock_skew": _Kind(ARRIVAL, _ALL, {"secs": None}),
    "slow": _Kind(ARRIVAL, _ALL, {"delay_secs": 1.0}),
    "token_revoked": _Kind(TOKEN, ("receive", "peek", "delete", "renew")),
    "empty": _Kind(LEASE, ("receive",)),
    "fewer": _Kind(LEASE, ("receive",), {"most": 1}),
    "shuffle": _Kind(LEASE, ("receive",)),
    "redeliver": _Kind(LEASE, ("receive",), {"share_of_entries": 1.0}),
    "early_expiry": _Kind(LEASE, ("receive", "renew"), {"secs": 0.0, "share_of_entries": 1.0}),
    "no_wait": _Kind(POLL, ("receive",)),
    "partial_delete": _Kind(
        DELETE, ("delete",), {"code": _UNDELETED[0], "share_of_entries": 0.5}, _UNDELETED
    ),
    "lost_delete": _Kind(DELETE, ("delete",), {"share_of_entries": 1.0}),
    "reset_after": _Kind(ANSWER, _ALL),
    "half_answer": _Kind(ANSWER, _ALL),
    "garbage_answer": _Kind(ANSWER, _ALL, {"applied": False}),
}
_COMMON: Final = (
    "fault", "operations", "queues", "share", "skip", "times", "from_secs", "until_secs"
)  # fmt: skip


def parse_plan(text: str | bytes) -> FaultPlan:
    """Read a plan; raises :class:`FaultPlanError`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise FaultPlanError(
            "the fault plan is not JSON: see emulator/faults.py for an example"
        ) from None
    if not isinstance(document, dict):
        raise FaultPlanError('the fault plan must be an object like {"seed": "1", "rules": []}')
    for name in document:
        if name not in ("seed", "rules"):
            raise FaultPlanError(f"{name} is not a field of a fault plan: it has seed and rules")
    seed, rules = document.get("seed", ""), document.get("rules")
    if not isinstance(seed, str):
        raise FaultPlanError('seed must be a text, like "1"')
    if not isinstance(rules, list):
        raise FaultPlanError("rules must be a list of rules, each with its fault")
    parsed = (_parse_rule(f"rules[{place}]", given) for place, given in enumerate(rules))
    return FaultPlan(seed, tuple(parsed), document)


def _parse_rule(where: str, given: object) -> Rule:
    if not isinstance(given, dict):
        raise FaultPlanError(f'{where} must be an object like {{"fault": "unavailable"}}')
    fault = given.get("fault")
    if not isinstance(fault, str) or fault not in _KINDS:
        raise FaultPlanError(f"{where}.fault must be one of {', '.join(_KINDS)}")
    kind = _KINDS[fault]
    for name, value in given.items():
        if name not in _COMMON and name not in kind.defaults:
            known = ", ".join([*_COMMON, *kind.defaults])
            raise FaultPlanError(f"{where}.{name} is not a field of {fault}: it has {known}")
        is_good, wanted = _FIELDS[name]
        if not is_good(value):
            raise FaultPlanError(f"{where}.{name} must be {wanted}")
    values: dict[str, Any] = {**kind.defaults, **given, "moment": kind.moment}
    if values.get("until_secs", _MAX_SECS) <= values.get("from_secs", -1):
        raise FaultPlanError(f"{where}.until_secs must be greater than from_secs")
    if "secs" in values and values["secs"] is None:
        raise FaultPlanError(f"{where}.secs is missing: say by how much the server's clock is fast")
    if fault == "early_expiry" and values["secs"] < 0:
        raise FaultPlanError(f"{where}.secs must be 0 or more: no lease ends before it begins")
    if fault == "garbage_answer" and not values["applied"]:
        values["moment"] = ARRIVAL
    values["operations"] = _operations(where, fault, given.get("operations"))
    values["code"] = _code(where, fault, values)
    values["queues"] = tuple(given["queues"]) if "queues" in given else None
    return Rule(**values)


def _operations(where: str, fault: str, given: Sequence[str] | None) -> tuple[str, ...]:
    possible = _KINDS[fault].operations
    if given is None:
        return _MNS if fault == "forbidden" else possible
    for operation in given:
        if operation not in possible:
            raise FaultPlanError(
                f"{where}.operations: {fault} is for {', '.join(possible)}, not for {operation}"
            )
    return tuple(given)


def _code(where: str, fault: str, values: Mapping[str, Any]) -> str:
    code: str = values.get("code", "")
    codes = _KINDS[fault].codes
    if fault == "forbidden":
        codes = _FORBIDDEN_MNS
        if any(operation in _RPC for operation in values["operations"]):
            codes = _FORBIDDEN_RPC
        if codes is _FORBIDDEN_RPC and any(each in _MNS for each in values["operations"]):
            raise FaultPlanError(
                f"{where}.operations mixes MNS with token or rpc, whose codes differ: make two rules"
            )
        code = code or codes[0]
    if codes and code not in codes:
        raise FaultPlanError(f"{where}.code must be one of {', '.join(codes)}")
    return code


def _is_number(value: object, lowest: float, highest: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and lowest <= value <= highest  # type: ignore[operator]


def _is_count(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


_SHARE: Final = (lambda value: _is_number(value, 0, 1), "a number from 0 to 1")
_COUNT: Final = (_is_count, "a whole number from 0 on")
_SECS: Final = (lambda value: _is_number(value, 0, _MAX_SECS), f"seconds, from 0 to {_MAX_SECS}")
_TEXTS: Final = (_is_texts, "a list of texts with at least one")
# Field -> what it may be, for the eye of the machine and in words.
_FIELDS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "fault": (_is_text, "a text"),
    "operations": _TEXTS,
    "queues": _TEXTS,
    "share": _SHARE,
    "skip": _COUNT,
    "times": _COUNT,
    "from_secs": _SECS,
    "until_secs": _SECS,
    "code": (_is_text, "a text"),
    "secs": (lambda value: _is_number(value, -_MAX_SECS, _MAX_SECS), "a number of seconds"),
    "delay_secs": _SECS,
    "most": (lambda value: _is_count(value, 1), "a whole number from 1 on"),
    "share_of_entries": _SHARE,
    "applied": (lambda value: isinstance(value, bool), "true or false"),
}
