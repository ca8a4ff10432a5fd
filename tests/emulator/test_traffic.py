from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from emulator.carrier import Carrier, CarrierRates
from emulator.outbox import Outbox
from emulator.queues import QueueAttributes, QueueStore
from emulator.settings import TrafficSettings
from emulator.sms_center import SmsCenter
from emulator.traffic import Traffic

NOW = 1_790_000_000_000
DAY = 86_400_000


class Application:
    """Traffic with everything behind it, and no server."""

    def __init__(self, settings: TrafficSettings, seed: str = "seed") -> None:
        self.store = QueueStore(seed)
        for name in ("Q-SmsReport", "Q-SmsUp"):
            self.store.create(name, QueueAttributes(), NOW)
        self.carrier = Carrier(CarrierRates(), seed)
        self.outbox = Outbox(self.store)
        self.center = SmsCenter(self.carrier, self.outbox, "Q-", NOW, seed)
        self.traffic = Traffic(settings, self.center, self.outbox, "Q-", seed)

    def bodies(self, name: str, now_ms: int = NOW) -> list[str]:
        queue = self.store.get(name)
        assert queue is not None
        return [message.body for message in queue.peek(10**9, now_ms)]

    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(base64.b64decode(body)) for body in self.bodies("Q-SmsReport")]


def log_entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_books_of_the_traffic_add_up(tmp_path: Path) -> None:
    log = tmp_path / "sends.jsonl"
    application = Application(TrafficSettings(sms=3000, days=2, send_log=str(log)))
    application.traffic.preload(NOW)
    traffic, carrier = application.traffic.counts, application.carrier.counts
    assert traffic["sms"] == application.center.accepted == 3000
    assert traffic["logged_sms"] + traffic["unlogged_sms"] == 3000
    assert traffic["unlogged_sms"] > 0
    assert carrier["reports"] + carrier["silent"] + carrier["lost"] == 3000
    reports, entries = application.reports(), log_entries(log)
    assert len(entries) == traffic["logged_sms"]
    assert len(reports) == carrier["reports"] + carrier["duplicates"] + carrier["corrections"]
    assert len(application.bodies("Q-SmsUp")) == carrier["replies"]
    keys = {(entry["biz_id"], entry["phone_number"]) for entry in entries}
    assert len(keys) == len(entries)
    known = [r for r in reports if (r["biz_id"], r.get("phone_number")) in keys]
    assert 0.9 * len(reports) < len(known) < len(reports)
    assert 0.03 < sum(not report["success"] for report in reports) / len(reports) < 0.06


def test_a_log_entry_has_the_fields_of_the_send_log(tmp_path: Path) -> None:
    log = tmp_path / "sends.jsonl"
    Application(TrafficSettings(sms=500, days=2, send_log=str(log))).traffic.preload(NOW)
    entries = log_entries(log)
    required = {"biz_id", "phone_number", "requested_at", "tags"}
    optional = {
        "out_id",
        "sign_name",
        "template_code",
        "template_param",
        "sms_up_extend_code",
        "campaign",
        "request_id",
    }
    assert {name for entry in entries for name in entry} == required | optional
    assert all(required <= set(entry) for entry in entries)
    at = [datetime.fromisoformat(e["requested_at"].replace("Z", "+00:00")) for e in entries]
    assert at == sorted(at)
    assert at[0].timestamp() * 1000 >= NOW - 2 * DAY
    assert at[-1].timestamp() * 1000 <= NOW
    assert len({entry["campaign"] for entry in entries if "campaign" in entry}) > 3
    by_biz_id = [entry["biz_id"] for entry in entries]
    assert max(by_biz_id.count(biz_id) for biz_id in set(by_biz_id)) > 5


def test_the_same_seed_makes_the_same_traffic(tmp_path: Path) -> None:
    made = []
    for number, seed in enumerate(("a", "a", "b")):
        log = tmp_path / f"{number}.jsonl"
        settings = TrafficSettings(sms=300, garbage=5, send_log=str(log))
        application = Application(settings, seed)
        application.traffic.preload(NOW)
        made.append((application.bodies("Q-SmsReport"), log.read_bytes()))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_garbage_is_counted_and_can_travel_in_xml() -> None:
    application = Application(TrafficSettings(garbage=60))
    application.traffic.preload(NOW)
    bodies = application.bodies("Q-SmsReport") + application.bodies("Q-SmsUp")
    # There are fewer kinds than that; the rest is repeated.
    assert len(bodies) == application.traffic.counts["garbage"] == 60
    assert all(body.isprintable() and body for body in bodies)


def test_live_traffic_keeps_its_rate_and_logs_behind_it(tmp_path: Path) -> None:
    log = tmp_path / "sends.jsonl"
    application = Application(TrafficSettings(per_sec=200, send_log=str(log)))
    traffic = application.traffic
    traffic.start_live(NOW)
    for tick in range(1, 101):
        traffic.send_due(NOW + tick * 50)
        application.outbox.deliver_due(NOW + tick * 50)
    # A call to many numbers may run ahead of the rate, by one call.
    assert 1000 <= traffic.counts["sms"] < 1200
    assert traffic.counts["sends"] < traffic.counts["sms"]
    written = len(log_entries(log))
    assert written < traffic.counts["logged_sms"]
    keys = {(entry["biz_id"], entry["phone_number"]) for entry in log_entries(log)}
    early = [r for r in application.reports() if (r["biz_id"], r.get("phone_number")) not in keys]
    assert early != []
    traffic.close()
    assert len(log_entries(log)) == traffic.counts["logged_sms"]


def test_a_directory_gets_one_send_log_per_beijing_day(tmp_path: Path) -> None:
    directory = tmp_path / "sends"
    Application(TrafficSettings(sms=200, days=2, send_log=f"{directory}/")).traffic.preload(NOW)
    names = sorted(path.name for path in directory.iterdir())
    assert names == [f"sends-2026-09-{day}.jsonl" for day in (19, 20, 21)]
