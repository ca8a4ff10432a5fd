"""Landing against the emulator: nothing is deleted before it is on disk, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.clock import utc_now
from pipeline.errors import CredentialsError, EndpointError, OutputError, QueueError
from pipeline.inboxes import registry
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.source import ReadInboxes
from pipeline.landing import Landed, Landing
from pipeline.mns.settings import MnsSettings, Until
from pipeline.mns.spec import MnsInboxSpec
from pipeline.stopping import forget_stop, request_stop
from schemas.records import MnsMessage
from tests.emulator_process import EmulatorProcess
from tests.mns.fake_mns import Answer, FakeMns, Request, messages
from transforms.archive import ArchiveRaw, list_archive, read_archive
from transforms.tally import close_tally

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[1]
_SILENT_CARRIER = "--carrier_reply_rate=0"


def _now() -> datetime:
    return datetime.now(timezone.utc)


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "emulator-key-id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "emulator-key-secret")
    forget_stop()
    yield
    forget_stop()


def _settings(emulator: EmulatorProcess, **changes: object) -> MnsSettings:
    chosen: dict[str, object] = {
        "queues": (emulator.report_queue,),
        "mns_endpoint": emulator.url,
        "dybaseapi_endpoint": emulator.url,
        "fetchers": 2,
        **changes,
    }
    return MnsSettings(**chosen)  # type: ignore[arg-type]


def _archived_ids(archive: Path) -> Counter[str]:
    return Counter(
        message_id
        for file in list_archive(str(archive))
        for batch in read_archive(file.path).batches
        for message_id in batch.column("message_id").to_pylist()
    )


def _land(settings: MnsSettings, archive: str, until: Until) -> Landed:
    with Landing(settings, archive, utc_now) as landing:
        return landing.land(until)


def test_every_message_is_landed_once_and_the_queues_are_empty(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator(
        "--traffic=500", "--carrier_duplicate_rate=0", "--carrier_delay_secs=0"
    )
    queues = (emulator.report_queue, emulator.reply_queue)
    seen: list[Landed] = []
    with Landing(_settings(emulator, queues=queues), str(tmp_path), utc_now) as landing:
        first = landing.land(Until(empty=True), seen.append)
        again = landing.land(Until(empty=True))
    assert first.received == first.archived == first.acknowledged >= 400
    assert first.unacknowledged == first.released == first.redelivered == 0
    assert seen
    assert again == Landed(*(0 for _ in Landed._fields))
    archived = _archived_ids(tmp_path)
    assert set(archived.values()) == {1}
    assert len(archived) == first.archived
    assert sum(file.messages for file in list_archive(str(tmp_path))) == first.archived


def test_a_bounded_read_takes_exactly_what_it_was_asked_for(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator("--traffic=200", "--carrier_delay_secs=0")
    with Landing(_settings(emulator), str(tmp_path), utc_now) as landing:
        taken = [landing.land(Until(max_messages=37)).acknowledged for _ in range(3)]
    assert taken == [37, 37, 37]


def test_a_read_of_limited_time_ends_in_time_and_keeps_what_it_took(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator("--traffic=50", "--carrier_delay_secs=0")
    began = time.monotonic()
    landed = _land(_settings(emulator), str(tmp_path), Until(max_secs=2))
    assert time.monotonic() - began < 8
    assert landed.received == landed.acknowledged > 0
    assert landed.released == 0


def _fail(_: list[MnsMessage]) -> None:
    raise ZeroDivisionError("a step behind the archive fails")


class _FailInFinishBundleFn(beam.DoFn):
    def process(self, messages: list[MnsMessage]) -> Iterator[list[MnsMessage]]:
        yield messages

    def finish_bundle(self) -> None:
        raise ZeroDivisionError("a step behind the archive fails")


@pytest.mark.parametrize(
    "step", [beam.Map(_fail), beam.ParDo(_FailInFinishBundleFn())], ids=["element", "bundle"]
)
def test_a_failing_step_behind_the_archive_loses_nothing(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path, step: beam.ParDo
) -> None:
    emulator = start_emulator("--traffic=100", "--carrier_delay_secs=0", _SILENT_CARRIER)
    settings = _settings(emulator)
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags=[]))
    (
        pipeline
        | "ReadInboxes"
        >> ReadInboxes([MnsInboxSpec(settings, Until(empty=True))], Reading(), run_id="failing")
        | "ArchiveRaw" >> ArchiveRaw(str(tmp_path / "failed"), _now)
        | "Fail" >> step
    )
    with pytest.raises((ZeroDivisionError, RuntimeError), match="behind the archive fails"):
        pipeline.run()
    registry.close_run("failing")
    close_tally("failing")
    after = _land(settings, str(tmp_path / "after"), Until(empty=True))
    assert after.acknowledged == after.received == len(_archived_ids(tmp_path / "after"))
    assert set(_archived_ids(tmp_path / "failed")) <= set(_archived_ids(tmp_path / "after"))
    assert after.received >= 80


class _WatchfulMns(FakeMns):
    """Looks into the archive, and at what was synced, whenever something is deleted."""

    def __init__(self, archive: Path, synced: set[int]) -> None:
        super().__init__()
        self._archive = archive
        self._synced = synced
        self.unsafe_deletes: list[str] = []
        self.deleted: list[str] = []

    def answer(self, request: Request) -> Answer:
        if request.method == "DELETE":
            for path in {Path(file.path) for file in list_archive(str(self._archive))}:
                if not {path.stat().st_ino, path.parent.stat().st_ino} <= self._synced:
                    self.unsafe_deletes.append(path.name)
            archived = _archived_ids(self._archive)
            self.deleted += request.handles
            self.unsafe_deletes += [
                handle
                for handle in request.handles
                if handle.replace("handle", "id") not in archived
            ]
        return super().answer(request)


def test_nothing_is_deleted_before_its_bytes_are_synced_in_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    queue = _WatchfulMns(tmp_path, synced)
    queue.receives += [messages(*range(first, first + 16)) for first in range(0, 320, 16)]
    settings = MnsSettings(
        queues=("q-SmsReport",), mns_endpoint=queue.endpoint, dybaseapi_endpoint=queue.endpoint,
        max_bundle_messages=64, drain_wait_secs=0,
    )  # fmt: skip
    landed = _land(settings, str(tmp_path), Until(empty=True))
    queue.close()
    assert queue.unsafe_deletes == []
    assert sorted(queue.deleted) == sorted(f"handle-{number}" for number in range(320))
    assert landed.archive_files >= 5


def test_an_archive_that_fails_midway_acknowledges_nothing(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    emulator = start_emulator("--traffic=100", "--carrier_delay_secs=0", _SILENT_CARRIER)
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / emulator.report_queue).write_text("a file where a directory should be")
    with pytest.raises(OutputError, match=r"cannot be written .*: free space or grant"):
        _land(_settings(emulator), str(archive), Until(empty=True))
    assert "Traceback" not in caplog.text
    assert "cannot be written" not in caplog.text
    (archive / emulator.report_queue).unlink()
    landed = _land(_settings(emulator), str(archive), Until(empty=True))
    assert landed.acknowledged == landed.received == len(_archived_ids(archive)) >= 80


def test_an_unwritable_archive_is_refused_before_anything_is_received(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    settings = MnsSettings(queues=("q-SmsReport",), mns_endpoint="http://127.0.0.1:9")
    with pytest.raises(OutputError, match="cannot be written"):
        _land(settings, str(blocked / "archive"), Until(empty=True))


def test_wrong_keys_are_said_in_one_sentence(
    start_emulator: Callable[..., EmulatorProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    emulator = start_emulator()
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "not-the-secret")
    with pytest.raises(CredentialsError, match="refused the account keys .*ALIBABA_CLOUD"):
        _land(_settings(emulator), str(tmp_path), Until(empty=True))
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "queue_name",
    [
        "Alicom-Queue-1000000000000001-SmsReports",  # no such message type
        "Alicom-Queue-1000000000000001-GlobeSmsReport",  # not subscribed to
        "Alicom-Queue-2000000000000002-SmsReport",  # somebody else's
    ],
)
def test_a_wrong_queue_name_is_said_in_one_sentence(
    emulator: EmulatorProcess, tmp_path: Path, queue_name: str
) -> None:
    settings = _settings(emulator, queues=(queue_name,))
    with pytest.raises(QueueError, match=f"queue {queue_name} .*check .*--mns_queues"):
        _land(settings, str(tmp_path), Until(empty=True))


@pytest.mark.parametrize("which", ["mns_endpoint", "dybaseapi_endpoint"])
def test_an_endpoint_where_nobody_answers_is_given_up_after_a_few_tries(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path, which: str
) -> None:
    emulator = start_emulator()
    settings = _settings(emulator, **{which: "http://127.0.0.1:9"}, start_tries=2)
    with pytest.raises(EndpointError, match=r"Nobody answers at http://127.0.0.1:9: check --mns"):
        _land(settings, str(tmp_path), Until(empty=True))


def test_tokens_that_expire_during_the_drain_are_replaced(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator(
        "--token_lifetime_secs=1", "--traffic_per_sec=50", "--carrier_delay_secs=0", _SILENT_CARRIER
    )
    landed = _land(_settings(emulator), str(tmp_path), Until(max_secs=4))
    assert landed.acknowledged == landed.received == landed.archived > 50
    assert landed.receive_faults == 0


def test_a_request_to_stop_commits_the_last_bundle_and_gives_the_rest_back(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator("--traffic=2000", "--carrier_delay_secs=0", _SILENT_CARRIER)
    settings = _settings(emulator, max_bundle_messages=64, wait_secs=1, prefetch_messages=512)

    def stop_once_begun(landed: Landed) -> None:
        if landed.received:
            request_stop()

    with Landing(settings, str(tmp_path), utc_now) as landing:
        stopped = landing.land(Until(), stop_once_begun)
        assert stopped.received == stopped.archived + stopped.released
        assert stopped.archived == stopped.acknowledged
        forget_stop()
        rest = landing.land(Until(empty=True))
    archived = _archived_ids(tmp_path)
    assert set(archived.values()) == {1}
    assert rest.redelivered == stopped.released
    assert len(archived) == stopped.acknowledged + rest.acknowledged >= 1500


_DRAIN_UNTIL_SIGTERM = """
import signal, sys
from pipeline.clock import utc_now
from pipeline.landing import Landing
from pipeline.mns.settings import MnsSettings, Until
from pipeline.stopping import request_stop
signal.signal(signal.SIGTERM, lambda *_: request_stop())
url, queue, archive = sys.argv[1:]
settings = MnsSettings(queues=(queue,), mns_endpoint=url, dybaseapi_endpoint=url, wait_secs=30,
                       stop_secs=3, max_bundle_messages=64)
with Landing(settings, archive, utc_now) as landing:
    landed = landing.land(Until(), lambda landed: print(landed.received, flush=True))
print(landed.received - landed.acknowledged - landed.released, flush=True)
"""


@pytest.mark.parametrize("sms_per_sec", [50, 0], ids=["busy", "in a long poll of 30 s"])
def test_sigterm_ends_a_process_cleanly(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path, sms_per_sec: int
) -> None:
    emulator = start_emulator(
        "--traffic=300", f"--traffic_per_sec={sms_per_sec}", "--carrier_delay_secs=0"
    )
    process = subprocess.Popen(  # noqa: S603 - our own program
        [
            sys.executable, "-c", _DRAIN_UNTIL_SIGTERM,
            emulator.url, emulator.report_queue, str(tmp_path),
        ],
        cwd=_ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline().strip() in {"0", ""}:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert output.splitlines()[-1] == "0"


def test_landing_again_and_again_leaks_neither_threads_nor_sockets(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator("--traffic=300", "--carrier_delay_secs=0")
    with Landing(_settings(emulator), str(tmp_path), utc_now) as landing:
        landing.land(Until(max_messages=20))
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            landing.land(Until(max_messages=20))
        assert threading.active_count() <= threads
        assert len(os.listdir("/proc/self/fd")) <= files + 2
