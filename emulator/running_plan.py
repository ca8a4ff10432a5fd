"""A fault plan at work: which requests its rules hit. No I/O; the time is an argument.

The injector and the services ask :class:`RequestFaults` at each moment of a request; what a hit then
means is theirs to carry out.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from random import Random
from typing import Final, NamedTuple

from emulator.faults import ANSWER, ARRIVAL, DELETE, LEASE, POLL, TOKEN, FaultPlan, Rule

# The codes of faults whose rules do not choose one.
_CODES: Final = {
    "internal_error": "InternalError",
    "unavailable": "ServiceUnavailable",
    "qps_limit": "QpsLimitExceeded",
}


class Hit(NamedTuple):
    """A rule that hits a request, and chance for whatever else is to be decided."""

    rule: Rule
    random: Random

    @property
    def code(self) -> str:
        """The error code that the request is answered with; empty if it gets no such answer."""
        return self.rule.code or _CODES.get(self.rule.fault, "")

    def choose(self, entries: int) -> list[int]:
        """Choose the places of the entries to touch: the rule's share of them, at least one."""
        count = max(1, round(self.rule.share_of_entries * entries))
        return sorted(self.random.sample(range(entries), min(count, entries)))


class Counts(NamedTuple):
    """How many requests one rule was for, and how many of them it hit."""

    matched: int
    injected: int


class RunningPlan:
    """A plan and how far it has come."""

    def __init__(self, plan: FaultPlan, since_ms: int) -> None:
        """Begin; the rules' windows count from ``since_ms``."""
        self.plan = plan
        self._since_ms = since_ms
        self._matched = [0] * len(plan.rules)
        self._hits = [0] * len(plan.rules)

    @property
    def counts(self) -> list[Counts]:
        """The counts, in the order of the rules."""
        return [Counts(*pair) for pair in zip(self._matched, self._hits, strict=True)]

    def hits(self, moment: str, operation: str, queue_name: str | None, now_ms: int) -> list[Hit]:
        """Show a request to the rules of that moment; return the hits in the order of the rules."""
        elapsed_secs = (now_ms - self._since_ms) / 1000
        hits: list[Hit] = []
        for place, rule in enumerate(self.plan.rules):
            if rule.moment == moment and _is_for(rule, operation, queue_name, elapsed_secs):
                self._matched[place] += 1
                random = Random(f"{self.plan.seed}/{place}/{self._matched[place]}")  # noqa: S311
                if self._is_hit(place, rule, random):
                    self._hits[place] += 1
                    hits.append(Hit(rule, random))
        return hits

    def _is_hit(self, place: int, rule: Rule, random: Random) -> bool:
        if self._matched[place] <= rule.skip:
            return False
        if rule.times is not None and self._hits[place] >= rule.times:
            return False
        return random.random() < rule.share


def _is_for(rule: Rule, operation: str, queue_name: str | None, elapsed_secs: float) -> bool:
    if operation not in rule.operations or elapsed_secs < rule.from_secs:
        return False
    if rule.until_secs is not None and elapsed_secs >= rule.until_secs:
        return False
    if rule.queues is None:
        return True
    if queue_name is None:
        return False
    return any(fnmatchcase(queue_name, pattern) for pattern in rule.queues)


class RequestFaults:
    """What the running plan does to one request; each method is asked at most once."""

    def __init__(self, plan: RunningPlan, operation: str, queue_name: str | None) -> None:
        """Nothing is decided yet. ``operation`` may be one that no rule is for."""
        self._plan = plan
        self._operation = operation
        self._queue_name = queue_name
        self.skew_ms = 0
        self.delay_secs = 0.0

    def at_arrival(self, now_ms: int) -> Hit | None:
        """Set ``skew_ms`` and ``delay_secs``; return what ends the request before it is done."""
        ending: Hit | None = None
        for hit in self._hits(ARRIVAL, now_ms):
            match hit.rule.fault:
                case "clock_skew":
                    self.skew_ms += int(hit.rule.secs * 1000)
                case "slow":
                    self.delay_secs += hit.rule.delay_secs
                case _:
                    ending = ending or hit
        return ending

    def revokes_token(self, now_ms: int) -> bool:
        """Whether the token of this request dies; to be asked of one with a valid token."""
        return bool(self._hits(TOKEN, now_ms))

    def at_lease(self, now_ms: int) -> dict[str, Hit]:
        """Return what happens to the leases that this request is about to give, by fault."""
        return {hit.rule.fault: hit for hit in reversed(self._hits(LEASE, now_ms))}

    def cuts_poll(self, now_ms: int) -> bool:
        """Whether a receive that has found nothing may not wait."""
        return bool(self._hits(POLL, now_ms))

    def at_delete(self, entries: int, now_ms: int) -> dict[int, str | None]:
        """Return the places of entries that stay, with the code that says so or None."""
        staying: dict[int, str | None] = {}
        for hit in self._hits(DELETE, now_ms):
            for place in hit.choose(entries):
                staying.setdefault(place, hit.code or None)
        return staying

    def at_answer(self, now_ms: int) -> Hit | None:
        """Return what becomes of the answer to a request that was done."""
        return next(iter(self._hits(ANSWER, now_ms)), None)

    def _hits(self, moment: str, now_ms: int) -> list[Hit]:
        return self._plan.hits(moment, self._operation, self._queue_name, now_ms)
