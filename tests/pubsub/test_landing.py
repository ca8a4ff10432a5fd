"""From a subscription to the archive, as a pipeline: nothing is acknowledged before it is archived."""

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.inboxes.inbox import InboxSpec
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.registry import close_run
from pipeline.inboxes.source import ReadInboxes
from pipeline.pubsub.settings import PubSubSettings
from pipeline.pubsub.spec import PubSubInboxSpec
from pipeline.send_log_files import SendLogFilesSpec
from pipeline.stopping import forget_stop, request_stop
from tests.pubsub.conftest import counts
from tests.pubsub.test_inbox import line
from tests.pubsub_emulator import PubSubEmulator, wait_until
from transforms.archive import ArchiveError, ArchiveRaw, list_archive, read_archive
from transforms.tally import close_tally, tally_of

pytestmark = pytest.mark.integration

RUN = "land-send-log"
NOW = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _run() -> Iterator[None]:
    forget_stop()
    yield
    close_run(RUN)
    close_tally(RUN)
    forget_stop()


def now() -> datetime:
    return NOW


def land(archive: Path, *inboxes: InboxSpec, acknowledged: int) -> None:
    """Land until so many messages were acknowledged, or it fails."""

    def stop_when_done() -> None:
        try:
            wait_until(lambda: counts(RUN, "acknowledged") >= (acknowledged,) or is_over.is_set())
        finally:
            request_stop()

    is_over = threading.Event()
    watch = threading.Thread(target=stop_when_done)
    watch.start()
    try:
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            messages = pipeline | ReadInboxes(
                inboxes, Reading(max_bundle_secs=0.5, advance_wait_secs=0.1), run_id=RUN
            )
            _ = messages | ArchiveRaw(str(archive), now, run_id=RUN)
    finally:
        is_over.set()
        watch.join()


def inbox_of(subscription: str) -> PubSubInboxSpec:
    return PubSubInboxSpec(PubSubSettings(subscription, wait_secs=1, fetchers=1))


def test_what_is_acknowledged_is_archived_from_subscription_and_files(
    pubsub: PubSubEmulator, tmp_path: Path
) -> None:
    topic = pubsub.make_topic()
    bodies = [line(f"{number}^0") for number in range(50)]
    topic.publish(*bodies[:40])
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(body + b"\n" for body in bodies[40:]))

    files = SendLogFilesSpec(str(log), str(tmp_path / "positions.json"))
    land(tmp_path / "archive", inbox_of(topic.subscription), files, acknowledged=50)

    archived = list_archive(str(tmp_path / "archive"))
    assert {file.queue_name for file in archived} == {
        topic.subscription.rpartition("/")[2],
        "send-log-files",
    }
    found = {
        body.as_py()
        for file in archived
        for batch in read_archive(file.path).batches
        for body in batch.column("body")
    }
    assert found == set(bodies)
    assert counts(RUN, "archived", "acknowledged", "unacknowledged") == (50, 50, 0)
    assert topic.pull_ids(timeout_secs=1) == set()


def test_nothing_is_acknowledged_that_could_not_be_archived(
    pubsub: PubSubEmulator, tmp_path: Path
) -> None:
    topic = pubsub.make_topic()
    ids = topic.publish(line("1^0"), line("2^0"))
    (tmp_path / "archive").write_text("a file where a directory should be")

    with pytest.raises(Exception, match="archive"):
        land(tmp_path / "archive", inbox_of(topic.subscription), acknowledged=2)

    assert isinstance(tally_of(RUN).failure, ArchiveError)
    close_run(RUN)
    wait_until(lambda: topic.pull_ids() == set(ids))
    assert counts(RUN, "acknowledged") == (0,)
