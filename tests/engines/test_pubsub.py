"""The streaming job between Pub/Sub and Pub/Sub: the send log in, rows out, schemas enforced."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pytest
from google.api_core.exceptions import InvalidArgument
from google.cloud.pubsub_v1 import PublisherClient

import analytics
from pipeline.sinks.rows import STREAMED
from pipeline.sinks.topics import Topics
from tests.emulator_process import EmulatorProcess
from tests.engines import outputs
from tests.engines.application import BEIJING, CARRIER, Application
from tests.engines.fetch import FETCH_SECS
from tests.engines.flink_cluster import wait_until
from tests.engines.streams import Stream, environment
from tests.engines.subscribers import Subscribers
from tests.pubsub_emulator import PROJECT, PubSubEmulator

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(FETCH_SECS + 240),
    # It is right for whoever looks again and again.
    pytest.mark.filterwarnings("ignore:The return_immediately flag:DeprecationWarning"),
]

# Longer than the carrier ever takes.
_PATIENCE_SECS: Final = 4
_CALLS: Final = 150
_SEND: Final = (resources.files("schemas") / "avro" / "send_log_entry.avsc").read_text("utf-8")
# What counts now, without the times of our own clocks.
_CURRENT: Final = (
    "SELECT * FROM all_reports",
    "SELECT * FROM sends WHERE state = 'unreported'",
    "SELECT * FROM replies",
    "SELECT event_id, stage, reason, detail, original, message_id, queue_name, message_type FROM failures",
)


def test_a_stream_from_pubsub_to_pubsub_brings_every_row_once_and_the_archive_knows_them(
    prism: Path,
    tmp_path: Path,
    start_emulator: Callable[..., EmulatorProcess],
    pubsub: PubSubEmulator,
) -> None:
    emulator = start_emulator("--seed=pubsub", *CARRIER)
    sends, lines = pubsub.make_topic(_SEND), pubsub.make_topic()
    topics = Topics(f"{PROJECT}/topics/t-{uuid.uuid4().hex[:12]}")
    stream = Stream(emulator, tmp_path, subscriptions=(sends.subscription, lines.subscription))
    flags = (
        *("--runner=PrismRunner", f"--prism_location={prism}"),
        *(f"--pubsub_sink={topics.prefix}", "--create_topics"),
        f"--join_patience_secs={_PATIENCE_SECS}",
    )
    application = Application(emulator, [sends.topic, lines.topic])

    with stream.start(*flags) as streaming:
        streaming.wait_for("plan: engine")
        subscribers = Subscribers(topics)
        application.send(_CALLS)
        unusable = set(lines.publish(b"no send", b'{"biz_id": "1^0"}'))
        with pytest.raises(InvalidArgument):
            sends.publish(b"no send")
        wait_until(application.has_all_reports, 30, "the carrier's last report")
        books = application.books()
        books.unusable = unusable

        def are_complete() -> bool:
            subscribers.pull()
            rows = found(subscribers)
            return not stream.waiting() and not outputs.differences(books, rows, stream.archive)

        # Silence does not hold back the end of anybody's patience.
        wait_until(are_complete, 120, "complete outputs")
        streaming.stop()

    subscribers.pull()
    assert outputs.differences(books, found(subscribers), stream.archive) == []
    assert len(books.unreported) > 10, "there is something to see"  # noqa: PLR2004
    assert_order(subscribers)
    assert_refused_by_every_topic(topics)
    assert sends.pull_ids(0.5) | lines.pull_ids(0.5) == set(), "all of the send log is acknowledged"

    subscribers.write(tmp_path / "pulled")
    backfill(stream, tmp_path / "dataset")
    assert current_rows(tmp_path / "pulled") == current_rows(tmp_path / "dataset")


def found(subscribers: Subscribers) -> outputs.Found:
    """The books as the messages have them."""
    return outputs.found(Path(), lambda _, table: subscribers.rows(table))


def assert_order(subscribers: Subscribers) -> None:
    """What is said of one SMS has one ordering key, and comes in the order of its revisions."""
    assert {len(keys) for keys in subscribers.ordering_keys.values()} == {1}
    revisions: dict[str, list[int]] = {}
    for row in subscribers.rows("enriched_reports"):
        revisions.setdefault(row["event_id"], []).append(row["revision"])
    # A row may be written again, when an earlier report speaks for it: then its revision comes again, too.
    corrected = [each for each in revisions.values() if len(each) == len(set(each)) > 1]
    assert corrected
    assert all(each == sorted(each) for each in corrected)


def assert_refused_by_every_topic(topics: Topics) -> None:
    """No topic takes what is not a record of its schema."""
    with PublisherClient() as publisher:
        for table in STREAMED.values():
            with pytest.raises(InvalidArgument):
                publisher.publish(topics.topic(table), b"no row").result(timeout=30)


def backfill(stream: Stream, dataset: Path) -> None:
    """Make tables of the stream's archive alone."""
    today = datetime.now(BEIJING).date()
    command = [
        *(sys.executable, "-m", "pipeline", "backfill"),
        *(f"--from={today - timedelta(days=1)}", f"--to={today}"),
        *(f"--archive={stream.archive}", f"--dataset={dataset}"),
        f"--join_patience_secs={_PATIENCE_SECS}",
    ]
    done = subprocess.run(  # noqa: S603 (our own command)
        command, cwd=stream.root, env=environment(stream.emulator), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def current_rows(directory: Path) -> list[list[Any]]:
    """What the report would show."""
    with closing(analytics.connect(directory)) as connection:
        return [sorted(map(repr, connection.sql(each).fetchall())) for each in _CURRENT]
