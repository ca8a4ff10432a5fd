"""The streaming job on Prism: from the queues to files, and a clean stop."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulator_process import EmulatorProcess
from tests.engines import outputs
from tests.engines.fetch import FETCH_SECS
from tests.engines.flink_cluster import wait_until
from tests.engines.load import Load
from tests.engines.streams import Stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(FETCH_SECS + 120),
    # Alibaba's client, which the load uses.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_stream_brings_every_message_to_its_outputs_and_stops_cleanly(
    prism: Path, tmp_path: Path, start_emulator: Callable[..., EmulatorProcess]
) -> None:
    emulator = start_emulator()
    stream = Stream(emulator, tmp_path)
    load = Load(emulator, stream.send_log, per_sec=100)
    load.send(200)
    flags = ("--runner=PrismRunner", f"--prism_location={prism}", f"--avro_sink={stream.avro}")
    with stream.start(*flags, "--join_patience_secs=3") as streaming:
        streaming.wait_for(r"stream: [1-9]\d* received")
        load.start()

        def has_expired() -> bool:
            return len(outputs.found(stream.parquet).unreported) >= 10  # noqa: PLR2004

        # Patience ends by timer, while messages come.
        wait_until(has_expired, 60, "sends whose patience has ended")
        books = load.stop()

        def is_taken() -> bool:
            return not stream.waiting() and outputs.archived_sends(stream.archive) == books.logged

        wait_until(is_taken, 60, "all messages and sends")
        said = streaming.interrupt()

    # The last sends have left because of the stop.
    assert outputs.differences(books, outputs.found(stream.parquet), stream.archive) == []
    avro = outputs.found(stream.avro, outputs.avro_rows)
    assert outputs.differences(books, avro, stream.archive) == []
    assert outputs.archived_ids(stream.archive).keys() == books.message_ids
    assert "Stopped." in said
    counted = re.findall(r"^(\S.*?) +([\d,]+)$", said, re.MULTILINE)
    counts = {name: int(count.replace(",", "")) for name, count in counted}
    assert len(counts) == len(counted)
    messages = len(books.message_ids) + books.logged
    assert counts["received"] - counts["redelivered"] == counts["acknowledged"] == messages
    assert counts["failed/malformed json"] == counts["failed messages"] == len(books.unusable)


def test_a_queue_that_is_not_there_ends_the_stream_with_one_sentence(
    prism: Path, tmp_path: Path, emulator: EmulatorProcess
) -> None:
    stream = Stream(emulator, tmp_path)
    stream.send_log.touch()
    flags = ("--runner=PrismRunner", f"--prism_location={prism}", "--mns_queues=no-such-queue")

    with stream.start(*flags) as streaming:
        assert streaming.process.wait(60) == 2  # noqa: PLR2004

    sentence = streaming.said.splitlines()[-1]
    assert "Traceback" not in streaming.said
    assert sentence.startswith("sms-receipts stream: The token service at http://127.0.0.1:")
    assert "gives no token for the queue no-such-queue" in sentence


def test_prism_that_is_not_there_is_told(tmp_path: Path, emulator: EmulatorProcess) -> None:
    stream = Stream(emulator, tmp_path)
    flags = ("--runner=PrismRunner", f"--prism_location={tmp_path}/prism")

    with stream.start(*flags) as streaming:
        assert streaming.process.wait(60) == 2  # noqa: PLR2004

    assert "Prism does not start" in streaming.said
    assert "go install github.com/apache/beam/sdks/v2/go/cmd/prism@v" in streaming.said
