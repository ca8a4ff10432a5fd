"""What happens in a seed: a pure function of the seed and of the moment at which it begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Final, Literal, TypeAlias

from tests.job.oracle import BEIJING, Row
from tests.simulation import bodies, mishaps
from tests.simulation.bodies import Draft, Sms
from tests.simulation.mishaps import Interruption, Rule

Command: TypeAlias = Literal["run", "follow", "backfill"]

VISIBILITY_SECS: Final = 30
TWO_PROCESSES: Final = "--landing_processes=2"
_DAY_SECS: Final = 86_400
_LONGEST_RETENTION_SECS: Final = 7 * _DAY_SECS
_PATIENCES_SECS: Final = (0, 3_600, _DAY_SECS, 3 * _DAY_SECS)
_BATCH: Final = 16
# What nobody's patience may end within: how long a seed takes, so that the outcome is not a matter of luck.
_MARGIN_SECS: Final = 900
# Long enough for every lease that a killed job leaves behind.
HEALING_SECS: Final = 120


@dataclass(frozen=True)
class Round:
    """Something is logged and enqueued, the job runs under faults, and time passes.

    Attributes:
        log: what is appended to the send log; may begin and end in the middle of a line.
        logged: the entries whose lines are whole after that.
        batches: what is put on the queues; the messages of a batch share their enqueue time.
        faults: the emulator's fault plan.
        command: what is run.
        stopped_after_secs: a run that follows its queues is asked to stop then.
        interruption: what happens to it.
        jump_secs: how much time passes afterwards.
    """

    log: bytes
    logged: Sequence[Row]
    batches: Sequence[Sequence[Draft]]
    faults: Sequence[Rule]
    command: Command
    stopped_after_secs: float | None
    interruption: Interruption | None
    jump_secs: float


@dataclass(frozen=True)
class Scenario:
    """A seed, written out.

    Attributes:
        seed: the seed.
        patience: how long sends and reports wait for each other.
        retention_secs: how long the queues keep a message.
        flags: settings of the job.
        files_per_size: how many files of a size are merged into one.
        rounds: what happens, in this order.
        garbage_lines: lines of the send log that cannot be used.
        is_recomputed: whether a backfill of all days has to give the same tables at the end.
    """

    seed: int
    patience: timedelta
    retention_secs: int
    flags: Sequence[str]
    files_per_size: int
    rounds: Sequence[Round]
    garbage_lines: int
    is_recomputed: bool


@dataclass
class Plan:
    """What is to happen in a round, as it is being made up."""

    at: datetime
    lines: list[bytes] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    may_be_torn: bool = False


def begins_at(seed: int, now: datetime) -> datetime:
    """The next moment at which the clock shows this seed's time of day: days end where the seed says."""
    second = Random(f"begin/{seed}").randrange(_DAY_SECS)  # noqa: S311 - a simulation
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + timedelta(seconds=second)
    return moment if moment > now else moment + timedelta(days=1)


def scenario(seed: int, begin: datetime) -> Scenario:
    """Make up what happens."""
    random = Random(f"scenario/{seed}")  # noqa: S311 - a simulation
    patience_secs = random.choice(_PATIENCES_SECS)
    forgets = random.random() < 0.08
    retention_secs = _DAY_SECS if forgets else _LONGEST_RETENTION_SECS
    jumps = list(_jumps(random, patience_secs, forgets=forgets))
    plans = [Plan(begin + timedelta(seconds=sum(jumps[:number]))) for number in range(len(jumps))]
    story = Story(random, seed, plans)
    story.tell(random.randrange(8, 40))
    story.spoil()
    garbage_lines = story.garbage_lines
    jumps[-1] += _clear_of_deadlines(story.moments, plans[-1].at, jumps[-1], patience_secs)
    rounds = list(_rounds(random, plans, jumps))
    return Scenario(
        seed=seed,
        patience=timedelta(seconds=patience_secs),
        retention_secs=retention_secs,
        flags=_flags(random, patience_secs),
        files_per_size=random.choice((2, 3, 16)),
        rounds=rounds,
        garbage_lines=garbage_lines,
        is_recomputed=not forgets and random.random() < 0.2,
    )


def _jumps(random: Random, patience_secs: int, *, forgets: bool) -> Iterator[float]:
    """How much time passes after each round; the last one lets every lease end."""
    rounds = random.choice((1, 1, 2, 2, 3))
    # Messages may be enqueued in any round, and unless the queues are to forget, none may expire.
    left = 99 * _DAY_SECS if forgets else _LONGEST_RETENTION_SECS - _DAY_SECS
    for number in range(rounds):
        jump = random.choice(
            (0, 0, 3, VISIBILITY_SECS + 5, 660, 3_000, 7 * 3_600, patience_secs + 2_000, _DAY_SECS)
        )
        if forgets and random.random() < 0.5:
            jump = _DAY_SECS + 2_000
        jump = jump if jump <= left else 0
        left -= jump
        yield jump + (HEALING_SECS if number == rounds - 1 else 0)


def _clear_of_deadlines(
    moments: Sequence[datetime], at: datetime, jump_secs: float, patience_secs: int
) -> float:
    """How much more time has to pass, so that no deadline lies around the last run."""
    extra = 0.0
    while True:
        deadline = at + timedelta(seconds=jump_secs + extra - patience_secs)
        if all(abs((moment - deadline).total_seconds()) > _MARGIN_SECS for moment in moments):
            return extra
        extra += _MARGIN_SECS


def _flags(random: Random, patience_secs: int) -> Sequence[str]:
    fetchers = random.choice((1, 1, 2))
    return (
        *([TWO_PROCESSES] if random.random() < 0.15 else []),
        f"--join_patience_secs={patience_secs}",
        f"--mns_fetchers={fetchers}",
        f"--mns_ack_threads={random.choice((1, 2))}",
        f"--mns_prefetch_messages={random.choice((16, 64, 2048))}",
        f"--mns_max_bundle_messages={random.choice((16, 48, 16_000))}",
        f"--mns_max_bundle_secs={random.choice((0.05, 0.2))}",
        f"--mns_renewal_margin_secs={random.choice((0.2, 0.2, 10, 30))}",
        "--mns_drain_wait_secs=0",
        "--mns_wait_secs=1",
        "--epoch_secs=0.4",
    )


def _rounds(random: Random, plans: Sequence[Plan], jumps: Sequence[float]) -> Iterator[Round]:
    torn = b""
    torn_entries: list[Row] = []
    for number, (plan, jump_secs) in enumerate(zip(plans, jumps, strict=True)):
        log = torn + b"".join(plan.lines)
        entries = torn_entries + plan.entries
        torn, torn_entries = b"", []
        is_last = number == len(plans) - 1
        if not is_last and plan.may_be_torn and random.random() < 0.2:
            # The sending application is in the middle of a write: the end of its last line comes later.
            cut = random.randrange(2, len(plan.lines[-1]))
            log, torn = log[:-cut], log[-cut:]
            entries, torn_entries = entries[:-1], entries[-1:]
        command: Command = "run"
        if number and random.random() < 0.1:
            command = "backfill"
        elif random.random() < 0.15:
            command = "follow"
        yield Round(
            log=log,
            logged=entries,
            batches=list(batches_of(random, plan.drafts)),
            faults=mishaps.faults(random),
            command=command,
            stopped_after_secs=random.uniform(0.3, 1.5) if command == "follow" else None,
            interruption=mishaps.interruption(random),
            jump_secs=jump_secs,
        )


def batches_of(random: Random, drafts: list[Draft]) -> Iterator[Sequence[Draft]]:
    random.shuffle(drafts)
    for message_type in (bodies.REPORTS, bodies.REPLIES):
        left = [draft for draft in drafts if draft.message_type == message_type]
        while left:
            size = random.choice((1, 3, _BATCH))
            yield left[:size]
            left = left[size:]


class Story:
    """Sends and what becomes of them, spread over the rounds."""

    def __init__(self, random: Random, seed: int, plans: Sequence[Plan]) -> None:
        self._random = random
        self._seed = seed
        self._plans = plans
        self.moments: list[datetime] = []
        self.garbage_lines = 0

    def tell(self, sends: int) -> None:
        """Make up so many calls of SendSms."""
        for number in range(sends):
            self._send(number)
        # Whatever is enqueued may wait from then on.
        self.moments += [plan.at for plan in self._plans]

    def spoil(self) -> None:
        """Add what nobody can use."""
        random = self._random
        for _ in range(random.choice((0, 0, 2, 5))):
            self._plan(0).drafts.append(bodies.garbage(random))
        if random.random() < 0.2:
            self._plan(0).lines.insert(0, b'{"biz_id": "no phone number"}\n')
            self.garbage_lines += 1

    def _send(self, number: int) -> None:
        random = self._random
        born = random.randrange(len(self._plans))
        requested_at = self._plans[born].at.replace(microsecond=0) - timedelta(
            seconds=random.randrange(1, 600)
        )
        self.moments.append(requested_at)
        # At most a day later, as Alibaba keeps an SMS; at times the clocks disagree a little.
        spread = random.choice((0, 2, 60, 3_600, 20 * 3_600))
        sent_at = requested_at + timedelta(seconds=random.randrange(-30, spread + 1))
        recipients = random.choice((1, 1, 1, 1, 2, 3))
        recipients_of_call = [
            Sms(
                biz_id=f"{self._seed:08d}{number:04d}^0",
                phone_number=f"1{random.randrange(30, 99)}{number:04d}{place:04d}",
                sent_at=sent_at,
                out_id=f"order-{number}" if random.random() < 0.3 else None,
            )
            for place in range(recipients)
        ]
        is_logged = random.random() < 0.93
        # A report without a number is given the recipient that the log names *by then*.
        may_lack_phone = random.random() < 0.15
        logged_in = born if may_lack_phone or random.random() < 0.8 else self._later(born)
        if is_logged:
            self._log(logged_in, recipients_of_call, requested_at, is_whole=may_lack_phone)
        for sms in recipients_of_call:
            self._reports(sms, born, may_lack_phone=may_lack_phone)
        if random.random() < 0.1:
            self._push(born, recipients_of_call)

    def _log(
        self, place: int, recipients: Sequence[Sms], requested_at: datetime, *, is_whole: bool
    ) -> None:
        random = self._random
        fields: Row = {
            "sign_name": "Example",
            "template_code": f"SMS_{random.randrange(3)}",
            "campaign": random.choice(("spring", None)),
            "tags": random.choice(({}, {"team": "growth"})),
        }
        entries = [
            {
                "biz_id": sms.biz_id,
                "phone_number": sms.phone_number,
                "out_id": sms.out_id,
                "requested_at": requested_at.isoformat(timespec="milliseconds"),
                **{name: value for name, value in fields.items() if value},
            }
            for sms in recipients
        ]
        self._append(self._plans[place], entries, is_whole=is_whole)
        if random.random() < 0.1:
            again = [dict(entry) for entry in entries]
            later = requested_at + timedelta(seconds=2)
            if random.random() < 0.5 and _beijing_day(later) == _beijing_day(requested_at):
                for entry in again:
                    entry["requested_at"] = later.isoformat(timespec="milliseconds")
            self._append(self._plan(place), again, is_whole=False)

    def _append(self, plan: Plan, entries: Sequence[Row], *, is_whole: bool) -> None:
        lines = [json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries]
        # Only the last line of a round can be torn.
        place = 0 if is_whole else len(plan.lines)
        plan.lines[place:place] = lines
        place = 0 if is_whole else len(plan.entries)
        plan.entries[place:place] = entries
        plan.may_be_torn |= not is_whole

    def _reports(self, sms: Sms, born: int, *, may_lack_phone: bool) -> None:
        random = self._random
        if random.random() < 0.1:
            return
        place = born if random.random() < 0.7 else self._later(born)
        codes = [bodies.outcome(random)]
        if random.random() < 0.15:
            codes.append(bodies.outcome(random, codes))
        if len(codes) > 1 and random.random() < 0.3:
            codes.append(codes[0])
        for code in codes:
            has_phone = not (may_lack_phone and random.random() < 0.7)
            draft = bodies.report(random, sms, code, has_phone=has_phone)
            self._plans[place].drafts.append(draft)
            while random.random() < 0.2:
                self._plan(place).drafts.append(draft)
            place = self._later(place)
        if random.random() < 0.15:
            reply = bodies.reply(random, sms)
            self._plan(place).drafts += [reply] * random.choice((1, 1, 2))

    def _push(self, born: int, recipients: Sequence[Sms]) -> None:
        """A message with reports of other SMS in it, none of which was logged."""
        random = self._random
        others = [
            Sms(f"{sms.biz_id}p{place}", sms.phone_number, sms.sent_at, None)
            for place, sms in enumerate(recipients)
        ]
        batch = [(sms, bodies.outcome(random)) for sms in others]
        self._plan(born).drafts.append(bodies.pushed(random, batch))

    def _plan(self, first: int) -> Plan:
        return self._plans[self._later(first)]

    def _later(self, first: int) -> int:
        return self._random.randrange(first, len(self._plans))


def _beijing_day(at: datetime) -> str:
    return f"{at.astimezone(BEIJING):%Y-%m-%d}"
