"""Flink's REST API at the wire: how a job ends, for what a healthy cluster would not do on request."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.errors import EndpointError, EngineError, QueueError
from pipeline.flink import Flink
from pipeline.stopping import forget_stop, request_stop
from pipeline.stream_on_flink import FlinkJob, StreamFailedError

pytestmark = pytest.mark.integration

JOB = "a" * 32
CHECKPOINT = {
    "id": 7,
    "latest_ack_timestamp": 1_793_577_600_000,
    "state_size": 1_000,
    "end_to_end_duration": 250,
    "external_path": "file:/c/chk-7",
    "discarded": False,
}
# What Flink 1.19 has said of a worker that raised; the middle is left out.
QUEUE_TRACE = """\
org.apache.flink.runtime.taskmanager.AsynchronousException: Caught exception while processing timer.
\tat org.apache.flink.streaming.runtime.tasks.StreamTask.handleAsyncException(StreamTask.java:1575)
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 5: Traceback (most recent call last):
  File "pipeline/mns/inbox.py", line 218, in _run_fetcher
pipeline.errors.QueueError: There is no queue q: correct --mns_queues. [while running 'ReadInboxes/Read']

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient$ResponseStreamObserver.onNext(x.java:180)
"""  # noqa: E501


class FakeFlink:
    """Answers what it is told to, by method and path; 404 for the rest."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "GET /jobmanager/config": [],
            f"GET /jobs/{JOB}": {"state": "RUNNING"},
            f"GET /jobs/{JOB}/metrics?get=numRestarts": [{"id": "numRestarts", "value": "0"}],
            f"GET /jobs/{JOB}/exceptions": {},
        }
        self.checkpoints(completed=CHECKPOINT)
        self.asked: list[tuple[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def checkpoints(self, **latest: Any) -> None:
        """Say which checkpoint or savepoint is the latest."""
        self.answers[f"GET /jobs/{JOB}/checkpoints"] = {
            "counts": {"completed": 7},
            "latest": {"completed": None, "savepoint": None, **latest},
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (two selves)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers["content-length"] or 0)
                body = json.loads(self.rfile.read(length) or "null")
                asked = f"{self.command} {self.path}"
                fake.asked.append((asked, body))
                answer = fake.answers.get(asked, (404, {"errors": ["Not found."]}))
                if isinstance(answer, list) and answer and isinstance(answer[0], tuple):
                    answer = answer.pop(0)
                status, said = answer if isinstance(answer, tuple) else (200, answer)
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def fake() -> Iterator[FakeFlink]:
    fake = FakeFlink()
    yield fake
    fake.close()


@pytest.fixture
def flink(fake: FakeFlink) -> Iterator[Flink]:
    forget_stop()
    with Flink(fake.url) as flink:
        yield flink
    forget_stop()


@pytest.fixture
def job(flink: Flink) -> FlinkJob:
    return FlinkJob(flink, JOB, "file:///s", ticking(), lambda _: None)


def ticking() -> Callable[[], datetime]:
    """A clock that goes on by a minute whenever it is read."""
    moments = (
        datetime(2026, 11, 2, tzinfo=timezone.utc) + timedelta(minutes=n) for n in range(10_000)
    )
    return lambda: next(moments)


def test_a_job_that_fails_for_what_the_operator_can_mend_is_told_in_a_sentence(
    fake: FakeFlink, job: FlinkJob
) -> None:
    fake.answers[f"GET /jobs/{JOB}"] = {"state": "FAILED"}
    entries = [{"timestamp": 1, "stacktrace": "old"}, {"timestamp": 2, "stacktrace": QUEUE_TRACE}]
    fake.answers[f"GET /jobs/{JOB}/exceptions"] = {"exceptionHistory": {"entries": entries}}

    with pytest.raises(QueueError, match=r"^There is no queue q: correct --mns_queues\.$"):
        job.follow()


def test_a_job_that_fails_for_another_reason_shows_its_trace(
    fake: FakeFlink, job: FlinkJob
) -> None:
    fake.answers[f"GET /jobs/{JOB}"] = {"state": "FAILED"}
    fake.answers[f"GET /jobs/{JOB}/exceptions"] = {"root-exception": "ValueError: a bug\n\tat x"}

    with pytest.raises(StreamFailedError, match="has failed:\nValueError: a bug\n\tat x"):
        job.follow()


def test_a_restart_is_told_with_its_reason(fake: FakeFlink, flink: Flink) -> None:
    said: list[str] = []
    fake.answers[f"GET /jobs/{JOB}/metrics?get=numRestarts"] = [{"id": "r", "value": "2"}]
    fake.answers[f"GET /jobs/{JOB}/exceptions"] = {"root-exception": QUEUE_TRACE}
    fake.answers[f"GET /jobs/{JOB}"] = {"state": "CANCELED"}

    FlinkJob(flink, JOB, "file:///s", ticking(), said.append).follow()

    assert said[0] == "flink: restarted (2): There is no queue q: correct --mns_queues."
    assert said[1].startswith("flink: CANCELED, 7 checkpoints, the last ")
    assert said[1].endswith(" s ago in 0.2 s with 1,000 bytes")


@pytest.mark.parametrize(
    ("latest", "path"),
    [
        ({"completed": CHECKPOINT}, "file:/c/chk-7"),
        ({"completed": CHECKPOINT, "savepoint": {"external_path": "file:/s/1"}}, "file:/s/1"),
    ],
)
def test_a_job_that_somebody_else_has_ended_can_go_on(
    fake: FakeFlink, job: FlinkJob, latest: dict[str, Any], path: str
) -> None:
    fake.answers[f"GET /jobs/{JOB}"] = {"state": "FINISHED"}
    fake.checkpoints(**latest)

    assert f"by somebody else (FINISHED): {path}\nNext: the same command" in job.follow()


def test_a_job_that_left_nothing_says_so(fake: FakeFlink, job: FlinkJob) -> None:
    fake.answers[f"GET /jobs/{JOB}"] = {"state": "CANCELED"}
    fake.checkpoints(completed={**CHECKPOINT, "discarded": True})

    assert "left nothing to go on from" in job.follow()


def test_a_stop_makes_a_savepoint_and_drains_nothing(fake: FakeFlink, job: FlinkJob) -> None:
    fake.answers[f"POST /jobs/{JOB}/stop"] = {"request-id": "r1"}
    fake.answers[f"GET /jobs/{JOB}/savepoints/r1"] = [
        (200, {"status": {"id": "IN_PROGRESS"}}),
        (200, {"status": {"id": "COMPLETED"}, "operation": {"location": "file:/s/1"}}),
    ]
    request_stop()

    ended = job.follow()

    assert "Stopped with a savepoint: file:/s/1" in ended
    assert "--savepoint_path=file:/s/1" in ended
    wanted = {"drain": False, "targetDirectory": "file:///s"}
    assert (f"POST /jobs/{JOB}/stop", wanted) in fake.asked


def test_a_job_that_cannot_make_a_savepoint_goes_on_and_says_why(
    fake: FakeFlink, job: FlinkJob
) -> None:
    fake.answers[f"POST /jobs/{JOB}/stop"] = {"request-id": "r1"}
    cause = {"stack-trace": "CheckpointException: Not all required tasks are running.\n\tat x"}
    fake.answers[f"GET /jobs/{JOB}/savepoints/r1"] = {
        "status": {"id": "COMPLETED"},
        "operation": {"failure-cause": cause},
    }
    request_stop()

    with pytest.raises(EngineError, match="goes on. Flink made no savepoint: .* are running.$"):
        job.follow()


def test_a_cluster_that_does_not_answer_is_told(fake: FakeFlink, flink: Flink) -> None:
    fake.answers["GET /jobmanager/config"] = (503, {"errors": ["Service Unavailable."]})

    with pytest.raises(
        EndpointError, match="No Flink answers at .*: start the cluster, or correct"
    ):
        flink.savepoint_directory()


def test_another_server_than_flink_is_told(fake: FakeFlink, flink: Flink) -> None:
    fake.answers["GET /jobmanager/config"] = {"hello": 1}

    with pytest.raises(EndpointError, match="No Flink answers"):
        flink.savepoint_directory()


@pytest.mark.parametrize("key", ["state.savepoints.dir", "execution.checkpointing.savepoint-dir"])
def test_a_cluster_knows_its_directory_for_savepoints(
    fake: FakeFlink, flink: Flink, key: str
) -> None:
    fake.answers["GET /jobmanager/config"] = [{"key": key, "value": "file:///s"}]

    assert flink.savepoint_directory() == "file:///s"


def test_silence_for_a_while_is_told_and_the_job_is_followed_on(
    fake: FakeFlink, flink: Flink
) -> None:
    said: list[str] = []
    unavailable = (500, {"errors": ["Unable to get JobMasterGateway.\n\tat x"]})
    fake.answers[f"GET /jobs/{JOB}"] = [unavailable, unavailable, (200, {"state": "CANCELED"})]

    FlinkJob(flink, JOB, "file:///s", ticking(), said.append).follow()

    assert said[0] == (
        "flink: Flink answers 500: Unable to get JobMasterGateway; the job may go on"
    )
