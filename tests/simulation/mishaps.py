"""What goes wrong in a seed: the queues' faults, and what happens to the job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, TypeAlias

Rule: TypeAlias = Mapping[str, Any]
Action: TypeAlias = Literal["kill", "halve", "terminate", "insist", "jump"]

# Of these the job may say that only the operator can help, and stop.
_STOPPING: Final = frozenset(
    {
        "internal_error", "unavailable", "qps_limit", "throttling", "forbidden", "refusal",
        "reset_before", "reset_after", "half_answer", "garbage_answer", "clock_skew", "token_revoked",
    }
)  # fmt: skip
# Which operations a job is killed at, and how many of them there are in a run, more or less: every phase
# of a run has its share of the kills, whether it takes many operations or few.
_PHASES: Final = (
    ("", 160),
    ("(send|answered)", 12),
    ("fsync", 20),
    ("rename", 8),
    ("sql (INSERT|UPDATE|DELETE|COMMIT)", 16),
)
# As many draws of each kind as show all that it can be.
_MANY: Final = 500


@dataclass(frozen=True)
class Interruption:
    """What happens to a job at one of its operations (see ``operations.py``).

    Attributes:
        action: ``kill`` is SIGKILL, ``halve`` the same after cutting the file at hand to half its length,
            ``terminate`` is SIGTERM, ``insist`` is SIGINT there and at every later operation, ``jump`` moves
            the clock.
        pattern: which operations count: a regular expression that their text must begin with.
        nth: at which of them it happens, just before it is carried out; from 1, 0 for none.
        jump_secs: how far the clock moves.
        after_secs: kills from outside, so many real seconds after the start, whatever is being done then.
    """

    action: Action
    pattern: str = ""
    nth: int = 1
    jump_secs: float = 0.0
    after_secs: float | None = None


def name_of(rule: Rule) -> str:
    """Name a fault: its kind, its code if it has one, and whether it is the token service's."""
    words = [rule["fault"], rule.get("code")]
    if rule.get("operations") == ["token"]:
        words.append("of tokens")
    return " ".join(filter(None, words))


def fault_names() -> frozenset[str]:
    """Name every fault that may be chosen."""
    random = Random(0)  # noqa: S311 - a simulation
    return frozenset(name_of(choose(random)) for choose in _KINDS for _ in range(_MANY))


def may_stop_the_job(faults: Sequence[Rule]) -> bool:
    """Whether the job may rightly end with exit code 2 under these faults."""
    return any(rule["fault"] in _STOPPING for rule in faults)


def interruption(random: Random) -> Interruption | None:
    """Choose what happens to a run, if anything does."""
    draw = random.random()
    pattern, most = random.choice(_PHASES)
    if draw < 0.68:
        return Interruption("kill", pattern, random.randrange(most) + 1)
    if draw < 0.78:
        return Interruption("kill", nth=0, after_secs=random.uniform(0.1, 1.0))
    if draw < 0.87:
        action: Action = "insist" if random.random() < 0.3 else "terminate"
        return Interruption(action, pattern, random.randrange(most) + 1)
    if draw < 0.96:
        # Just before a lease ends, after it, after a token's life.
        jump_secs = random.choice((29.9, 45.0, 700.0, 3_000.0))
        return Interruption("jump", "(send|answered)", random.randrange(12) + 1, jump_secs)
    return None


def faults(random: Random) -> Sequence[Rule]:
    """Choose what the queues do wrong during a run."""
    if random.random() < 0.25:
        return []
    return [random.choice(_KINDS)(random) for _ in range(random.choice((1, 2, 3)))]


def _service(random: Random) -> Rule:
    """A request that the service cannot do, or does and does not say so."""
    fault = random.choice(
        ("internal_error", "unavailable", "qps_limit", "reset_before", "reset_after", "half_answer")
    )
    return {"fault": fault, **_requests(random), **_some(random)}


def _garbage(random: Random) -> Rule:
    applied = random.random() < 0.5
    return {"fault": "garbage_answer", "applied": applied, **_requests(random), **_some(random)}


def _slow(random: Random) -> Rule:
    delay_secs = random.choice((0.02, 0.1, 0.3))
    return {"fault": "slow", "delay_secs": delay_secs, **_requests(random), **_some(random)}


def _forbidden(random: Random) -> Rule:
    code = random.choice(
        (
            "AccessDenied", "AccessDeniedByRamPolicy", "InvalidAccessKeyId", "InvalidSecurityToken",
            "SecurityTokenExpired", "SignatureDoesNotMatch",
        )
    )  # fmt: skip
    return {"fault": "forbidden", "code": code, **_requests(random), **_some(random)}


def _token_service(random: Random) -> Rule:
    fault = random.choice(
        (
            "unavailable", "throttling", "refusal", "reset_before", "reset_after", "forbidden", "forbidden",
            "forbidden",
        )
    )  # fmt: skip
    code = {}
    if fault == "forbidden":
        kinds = ("Forbidden.RAM", "InvalidAccessKeyId.NotFound", "InvalidAccessKeyId.Inactive")
        code = {"code": random.choice((*kinds, "SignatureDoesNotMatch"))}
    times = random.choice((1, 2))
    return {"fault": fault, **code, "operations": ["token"], "times": times}


def _token(random: Random) -> Rule:
    return {"fault": "token_revoked", **_requests(random), **_some(random)}


def _skew(random: Random) -> Rule:
    secs = random.choice((-2_000, -300, -20, 20, 300, 2_000))
    return {"fault": "clock_skew", "secs": secs, **_requests(random), **_some(random)}


def _receive(random: Random) -> Rule:
    fault = random.choice(("empty", "shuffle", "fewer", "redeliver", "redeliver"))
    most = {"most": random.choice((1, 5))} if fault == "fewer" else {}
    return {"fault": fault, **most, **_some(random)}


def _expiry(random: Random) -> Rule:
    secs = random.choice((0.0, 0.0, 0.05, 0.5))
    entries = random.choice((0.1, 0.5, 1.0))
    return {"fault": "early_expiry", "secs": secs, "share_of_entries": entries, **_some(random)}


def _delete(random: Random) -> Rule:
    entries = random.choice((0.1, 0.5, 1.0))
    if random.random() < 0.3:
        return {"fault": "lost_delete", "share_of_entries": entries, **_some(random)}
    code = random.choice(("ReceiptHandleError", "MessageNotExist", "InternalError"))
    return {"fault": "partial_delete", "code": code, "share_of_entries": entries, **_some(random)}


_KINDS: Final[Sequence[Callable[[Random], Rule]]] = (
    _service, _service, _garbage, _slow, _forbidden, _forbidden, _token_service, _token_service, _token,
    _skew, _receive, _receive, _expiry, _delete, _delete,
)  # fmt: skip


def _requests(random: Random) -> Rule:
    return {
        "operations": random.choice((["receive"], ["delete"], ["renew"], ["receive", "delete"]))
    }


def _some(random: Random) -> Rule:
    """A few of the requests: each fault costs a pause of real time."""
    return {
        "share": random.choice((0.5, 1.0)),
        "skip": random.choice((0, 0, 1, 2)),
        "times": random.choice((1, 2, 4)),
    }
