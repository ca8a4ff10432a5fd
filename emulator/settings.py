"""What can be set on the emulator: flags in, one frozen object out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

from emulator.carrier import CarrierRates
from emulator.faults import FaultPlan, FaultPlanError, parse_plan
from emulator.open_questions import (
    DEAD_HANDLE_CODES,
    EXPIRED_TOKEN_CODES,
    RAM_DENIAL_CODES,
    TIME_EXPIRED_STATUSES,
    WRONG_DIGEST_CODES,
    OpenQuestions,
)
from emulator.queues import QueueAttributes


class SettingsError(Exception):
    """Raised when the emulator cannot start with these settings; one sentence with the fix."""


@dataclass(frozen=True)
class TrafficSettings:
    """The simulated application."""

    sms: int = 0
    days: float = 0.0
    per_sec: float = 0.0
    garbage: int = 0
    send_log: str | None = None


@dataclass(frozen=True)
class EmulatorSettings:
    """Everything that makes one emulator; the defaults are those that the README promises."""

    host: str = "127.0.0.1"
    port: int = 8650
    seed: str = "0"
    uid: str = "1000000000000001"
    key_id: str = "emulator-key-id"
    key_secret: str = field(default="emulator-key-secret", repr=False)
    token_lifetime_secs: int = 600
    open_questions: OpenQuestions = OpenQuestions()
    queue: QueueAttributes = QueueAttributes()
    carrier: CarrierRates = CarrierRates()
    traffic: TrafficSettings = TrafficSettings()
    faults: FaultPlan | None = None

    @property
    def queue_prefix(self) -> str:
        """The start of every queue name; the message type follows."""
        return f"Alicom-Queue-{self.uid}-"

    @property
    def queue_names(self) -> tuple[str, str]:
        """The queues that exist from the start: delivery reports, inbound SMS."""
        return f"{self.queue_prefix}SmsReport", f"{self.queue_prefix}SmsUp"


def parse_settings(argv: Sequence[str]) -> EmulatorSettings:
    """Read the command line; raises :class:`SettingsError` for what argparse cannot judge."""
    flags = _parser().parse_args(argv)
    if not (flags.allow_remote or _is_loopback(flags.host)):
        raise SettingsError(
            f"--host={flags.host} would offer the emulator to other machines: "
            "use 127.0.0.1, or add --allow_remote"
        )
    rates = {
        rate.name: getattr(flags, _rate_flag(rate.name))
        for rate in fields(CarrierRates)
        if rate.name != "delay_secs"
    }
    return EmulatorSettings(
        host=flags.host,
        port=flags.port,
        seed=flags.seed,
        uid=flags.uid,
        key_id=flags.key_id,
        key_secret=flags.key_secret,
        token_lifetime_secs=flags.token_lifetime_secs,
        open_questions=OpenQuestions(
            **{question.name: getattr(flags, question.name) for question in fields(OpenQuestions)}
        ),
        queue=QueueAttributes(
            retention_secs=flags.retention_secs,
            visibility_timeout_secs=flags.visibility_timeout_secs,
            polling_wait_secs=flags.polling_wait_secs,
        ),
        carrier=CarrierRates(delay_secs=flags.carrier_delay_secs, **rates),
        traffic=TrafficSettings(
            sms=flags.traffic,
            days=flags.traffic_days,
            per_sec=flags.traffic_per_sec,
            garbage=flags.traffic_garbage,
            send_log=flags.traffic_send_log,
        ),
        faults=None if flags.faults is None else _read_plan(flags.faults),
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse a wrong flag in one sentence."""
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help explains the flags.\n")


def _parser() -> argparse.ArgumentParser:
    defaults = EmulatorSettings()
    parser = _Parser(
        prog="sms-receipts emulator",
        description="Alibaba's side of the wall on one local port: MNS queues, the token service, "
        "the SMS send and query API, and a simulated carrier.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default=defaults.host, help="where to listen")
    add("--port", type=_IntBetween(0, 65_535), default=defaults.port, help="0 takes a free port")
    add("--allow_remote", action="store_true", help="allow a host that is not loopback")
    add("--seed", default=defaults.seed, help="the same seed, the same ids, fates and traffic")
    add("--uid", default=defaults.uid, help="account id in the queue names")
    add("--key_id", default=defaults.key_id, help="access key id of the account")
    add("--key_secret", default=defaults.key_secret, help="its secret")
    add("--faults", metavar="FILE", help="fault plan to begin with (emulator/faults.py says what it "
        f"may hold), or one that comes along: {', '.join(sorted(_ready_made_plans()))}")  # fmt: skip
    add("--token_lifetime_secs", type=_IntBetween(1, 86_400), default=defaults.token_lifetime_secs,
        help="how long a queue token lives")  # fmt: skip
    _add_open_questions(parser, defaults.open_questions)
    queues = parser.add_argument_group("the two queues, and what CreateQueue leaves unsaid")
    queues.add_argument("--visibility_timeout_secs", type=_IntBetween(1, 43_200),
                        default=defaults.queue.visibility_timeout_secs,
                        help="how long a received message is hidden")  # fmt: skip
    queues.add_argument("--retention_secs", type=_IntBetween(60, 604_800),
                        default=defaults.queue.retention_secs,
                        help="how long a message is kept")  # fmt: skip
    queues.add_argument("--polling_wait_secs", type=_IntBetween(0, 30),
                        default=defaults.queue.polling_wait_secs,
                        help="how long a receive waits that does not say so itself")  # fmt: skip
    _add_carrier_flags(parser, defaults.carrier)
    traffic = parser.add_argument_group("the simulated application")
    traffic.add_argument("--traffic", type=_IntBetween(0, 50_000_000), default=0, metavar="SMS",
                         help="SMS sent before the emulator is ready")  # fmt: skip
    traffic.add_argument("--traffic_days", type=_number_from_zero, default=0.0, metavar="DAYS",
                         help="spread them over this many past days")  # fmt: skip
    traffic.add_argument("--traffic_per_sec", type=_number_from_zero, default=0.0, metavar="SMS",
                         help="SMS sent per second while the emulator runs")  # fmt: skip
    traffic.add_argument("--traffic_garbage", type=_IntBetween(0, 1_000_000), default=0,
                         metavar="MESSAGES", help="hostile bodies put on the queues")  # fmt: skip
    traffic.add_argument("--traffic_send_log", metavar="FILE_OR_DIRECTORY",
                         help="where the application logs its sends, as JSON lines; a directory "
                         "gets one file per Beijing day")  # fmt: skip
    return parser


def _add_open_questions(parser: argparse.ArgumentParser, defaults: OpenQuestions) -> None:
    add = parser.add_argument_group("where Alibaba's documents are silent or disagree").add_argument
    add("--expired_token_code", choices=EXPIRED_TOKEN_CODES, default=defaults.expired_token_code,
        help="how MNS refuses an expired or wrong token (undocumented)")  # fmt: skip
    add("--time_expired_status", type=int, choices=TIME_EXPIRED_STATUSES,
        default=defaults.time_expired_status,
        help="status of TimeExpired, for a clock more than 15 minutes off (docs 27487, 27501)")  # fmt: skip
    add("--dead_handle_code", choices=DEAD_HANDLE_CODES, default=defaults.dead_handle_code,
        help="how a receipt handle that is no longer good is refused (docs 27477, 35138)")  # fmt: skip
    add("--wrong_digest_code", choices=WRONG_DIGEST_CODES, default=defaults.wrong_digest_code,
        help="how a wrong Content-MD5 is refused: as observed, or as doc 27501 spells it")  # fmt: skip
    add("--ram_denial_code", choices=RAM_DENIAL_CODES, default=defaults.ram_denial_code,
        help="how a token is refused that asks for too much: as observed, or as of doc 27501")  # fmt: skip
    add("--allow_zero_visibility", action="store_true",
        help="let ChangeMessageVisibility take 0 for at once; doc 35142 begins at 1")  # fmt: skip
    add("--allow_token_attributes", action="store_true",
        help="let a token call GetQueueAttributes of its queue (undocumented)")  # fmt: skip
    add("--check_content_type", action="store_true",
        help="refuse a Content-Type that is no XML with InvalidContentType (Go client only)")  # fmt: skip
    add("--zero_depths", action="store_true",
        help="count no messages in GetQueueAttributes, as the documents of 2025 announce")  # fmt: skip
    add("--deleted_queue_secs", type=_IntBetween(0, 86_400), default=defaults.deleted_queue_secs,
        help="how long a deleted queue's name is QueueDeletedRecently (no document says)")  # fmt: skip
    add("--queue_qps", type=_IntBetween(0, 1_000_000), default=defaults.queue_qps,
        help="requests per second and queue before QpsLimitExceeded: 3000 once, soft today "
        "(doc 128343); 0 sets no limit")  # fmt: skip
    add("--details_of_2017", action="store_true",
        help="QuerySendDetails tells TotalCount as a number, and TotalPage, as in 2017")  # fmt: skip


def _add_carrier_flags(parser: argparse.ArgumentParser, defaults: CarrierRates) -> None:
    carrier = parser.add_argument_group("the simulated carrier (rates are shares of all SMS)")
    carrier.add_argument("--carrier_delay_secs", type=_number_from_zero,
                         default=defaults.delay_secs, help="median delay of a report")  # fmt: skip
    meanings = {
        "failure": "not delivered",
        "duplicate": "reported twice, under two message ids",
        "correction": "reported again with another outcome",
        "silent": "never reported by the carrier",
        "lost": "reported, but not to the queue: only QuerySendDetails knows",
        "reply": "answered by the handset",
        "instant": "reported before SendSms has answered",
        "missing_phone": "report without phone_number",
        "missing_optional": "report with the promised fields only",
    }
    for name, meaning in meanings.items():
        carrier.add_argument(f"--{_rate_flag(name)}", type=_share,
                             default=getattr(defaults, name), help=meaning)  # fmt: skip


def _rate_flag(name: str) -> str:
    return f"carrier_{name}_rate"


@dataclass(frozen=True)
class _IntBetween:
    lowest: int
    highest: int

    def __call__(self, text: str) -> int:
        if not text.isdigit() or not self.lowest <= int(text) <= self.highest:
            raise argparse.ArgumentTypeError(f"{text} is not in {self.lowest}..{self.highest}")
        return int(text)


def _number_from_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return number


def _share(text: str) -> float:
    number = _number_from_zero(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return number


def _ready_made_plans() -> dict[str, bytes]:
    plans = resources.files("emulator").joinpath("fault_plans").iterdir()
    return {plan.name.removesuffix(".json"): plan.read_bytes() for plan in plans}


def _read_plan(given: str) -> FaultPlan:
    plans = _ready_made_plans()
    try:
        return parse_plan(plans.get(given) or Path(given).read_bytes())
    except OSError as error:
        names = ", ".join(sorted(plans))
        raise SettingsError(
            f"--faults={given} cannot be read ({error.strerror}): name a file, or {names}"
        ) from None
    except FaultPlanError as error:
        raise SettingsError(f"--faults={given}: {error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
