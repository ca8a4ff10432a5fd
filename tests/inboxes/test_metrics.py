"""Beam metrics: what an operator sees in the engine is what has happened, whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics.execution import MetricsContainer
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.worker import statesampler
from apache_beam.utils.counters import CounterFactory

from pipeline.clock import utc_now
from pipeline.inboxes import registry
from pipeline.inboxes.metrics import tell_engine
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.source import ReadInboxes
from pipeline.mns.settings import MnsSettings, Until
from pipeline.mns.spec import MnsInboxSpec
from pipeline.stopping import forget_stop
from schemas.records import MnsMessage
from tests.inboxes.post import EPOCH, Post, PostSpec
from tests.mns.fake_mns import DROPPED, Answer, FakeMns, messages, undeleted
from transforms.archive import ArchiveRaw
from transforms.decode_bundles import DecodeMessages
from transforms.tally import close_tally, tally_of

_RUN = "test-metrics"
_TOKEN_SECS = 600  # of one whose end the queue tells badly


@pytest.fixture(autouse=True)
def _run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")
    forget_stop()
    yield
    registry.close_run(_RUN)
    close_tally(_RUN)


@pytest.fixture
def queue() -> Iterator[FakeMns]:
    fake = FakeMns()
    yield fake
    registry.close_run(_RUN)  # before the server that it talks to
    fake.close()


def _told(result: Any) -> dict[str, int]:
    """What the engine shows of ours, by namespace and name."""
    metrics = result.metrics().query()
    ours = [
        metric
        for metric in (*metrics["counters"], *metrics["gauges"])
        if metric.key.metric.namespace in {"inboxes", "archive", "decode"}
    ]
    values = {f"{m.key.metric.namespace}/{m.key.metric.name}": m.committed for m in ours}
    assert len(values) == len(ours)
    return {name: getattr(value, "value", value) for name, value in values.items()}


@pytest.mark.integration
def test_every_message_is_in_the_counters_and_every_fault(queue: FakeMns, tmp_path: Path) -> None:
    redelivered = messages(*range(16, 32)).body.replace("<DequeueCount>1<", "<DequeueCount>2<", 3)
    queue.receives += [
        messages(*range(16)),
        Answer(200, "no answer of a queue"),
        Answer(200, redelivered),
        messages(32, 33, body="no JSON"),
        messages(34, 35, body='{"version": 2}'),
    ]
    # Of the first bundle the answer is lost, and one message is gone by then; of the second, a lease.
    queue.deletes += [DROPPED, undeleted(handle_3="ReceiptHandleError")]
    queue.deletes += [undeleted(handle_16="ReceiptHandleError", handle_17="MessageNotExist")]
    settings = MnsSettings(
        queues=("q-SmsReport",), mns_endpoint=queue.endpoint, dybaseapi_endpoint=queue.endpoint,
        fetchers=1, wait_secs=0, drain_wait_secs=0, max_bundle_messages=16,
    )  # fmt: skip
    spec = MnsInboxSpec(settings, Until(empty=True))

    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags=[])) as pipeline:
        read = ReadInboxes([spec], Reading(max_bundle_messages=16), run_id=_RUN)
        archived = pipeline | read | ArchiveRaw(str(tmp_path), utc_now)
        archived | DecodeMessages(4, utc_now)

    told = _told(pipeline.result)
    remaining = told.pop("inboxes/token_remaining_secs")
    assert _TOKEN_SECS - 60 < remaining <= _TOKEN_SECS
    assert 0 <= told.pop("inboxes/watermark_age_secs") < 60
    assert 0 <= told.pop("inboxes/oldest_held_message_age_secs") < 60
    assert told == {
        "inboxes/received_messages": 36,
        "inboxes/redelivered_messages": 3,
        "inboxes/acknowledged_messages": 15 + 14 + 4,
        "inboxes/unconfirmed_messages": 1,
        "inboxes/unacknowledged_messages": 2,
        "inboxes/receive_faults": 1,
        "archive/archived_messages": 36,
        "archive/archive_files": 4,
        "decode/messages": 36,
        "decode/decoded_messages": 32,
        "decode/reports": 32,
        "decode/failed_messages": 4,
        "decode/failed/malformed_json": 2,
        "decode/failed/unknown_shape": 2,
    }


def _told_at(now: datetime) -> dict[str, int]:
    """What one bundle tells, as Beam gathers it: FnApiRunner merges no gauges of several."""
    container = MetricsContainer("read")
    sampler = statesampler.StateSampler("", CounterFactory())
    statesampler.set_current_tracker(sampler)
    try:
        with sampler.scoped_state("read", "finish", metrics_container=container):
            tell_engine(_RUN, now)
    finally:
        statesampler.set_current_tracker(None)
    told = container.get_cumulative()
    gauges = {key.metric.name: gauge.value or 0 for key, gauge in told.gauges.items()}
    return {str(key.metric.name): count for key, count in told.counters.items()} | gauges


def test_ages_are_of_what_the_process_holds_and_each_count_is_told_once() -> None:
    now = EPOCH + timedelta(hours=2)
    reading = Reading(advance_wait_secs=0.01)
    early, late = Post("early"), Post("late")
    assert _told_at(now) == {"oldest_held_message_age_secs": 0}

    inboxes = [
        registry.shared_inbox(_RUN, split, PostSpec(post.name), reading)
        for split, post in enumerate((early, late))
    ]
    early.bring(30)  # minutes
    late.bring(40)
    late.token_expires_at = now + timedelta(seconds=5)
    bundles = [inbox.begin_bundle(0) for inbox in inboxes]
    for inbox, bundle in zip(inboxes, bundles, strict=True):
        inbox.take(bundle, 0)
    tally_of(_RUN).add(lost_leases=2, renewals=3)
    assert _told_at(now) == {
        "oldest_held_message_age_secs": 90 * 60,
        "watermark_age_secs": 90 * 60,
        "token_remaining_secs": 5,
        "lost_leases": 2,
    }

    for inbox, bundle in zip(inboxes, bundles, strict=True):
        inbox.finalize(inbox.cut_mark(bundle))
    tally_of(_RUN).add(lost_leases=1, released=4)
    assert _told_at(now + timedelta(seconds=7.5)) == {
        "oldest_held_message_age_secs": 0,
        "watermark_age_secs": 120 * 60 + 7,  # with nothing held, the queue's
        "token_remaining_secs": -3,
        "lost_leases": 1,
        "released_messages": 4,
    }


@pytest.mark.integration
def test_a_record_that_breaks_its_contract_is_counted_like_one_that_cannot_be_decoded() -> None:
    entry = {"biz_id": "1^0", "phone_number": "13800000001", "requested_at": "2026-11-01T04:00:00Z"}
    bodies = ["{", json.dumps(entry), json.dumps(entry | {"unknown": 1}), json.dumps(entry)]
    sends = [
        MnsMessage(str(number), "sends", "SendLogEntry", EPOCH, 1, body.encode())
        for number, body in enumerate(bodies)
    ]
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags=[])) as pipeline:
        received = pipeline | beam.Create([sends]).with_output_types(list[MnsMessage])
        received | DecodeMessages(4, utc_now)

    assert _told(pipeline.result) == {
        "decode/messages": 4,
        "decode/plain_bodies": 4,
        "decode/decoded_messages": 2,
        "decode/sends": 2,
        "decode/failed_messages": 2,
        "decode/failed/malformed_json": 1,
        "decode/failed/contract_violation": 1,
    }
