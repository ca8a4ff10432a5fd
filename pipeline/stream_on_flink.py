"""The streaming job on a Flink cluster: submitted by Beam, followed and stopped by Flink's own API."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from threading import Event
from typing import Final

import apache_beam as beam
import grpc
from apache_beam.runners.runner import PipelineResult, PipelineState

from pipeline.errors import EngineError, SmsReceiptsError
from pipeline.flink import Flink, FlinkSilentError, JobStatus
from pipeline.graph_faults import sentence_in
from pipeline.options_stream import StreamOptions
from pipeline.stopping import is_stop_requested, stopping_on_signals

_STOPPING: Final = b"stopping: Flink is asked for a savepoint\n"
_LOOK_SECS: Final = 1.0
_STATUS_EVERY: Final = timedelta(seconds=20)
# Java may have to start, and a job of a busy cluster to wait.
_SUBMITTED_WITHIN: Final = timedelta(minutes=5)
# A job that restarts cannot make a savepoint.
_STOPPED_WITHIN: Final = timedelta(minutes=3)


class StreamFailedError(SmsReceiptsError):
    """Raised when a job has failed for a reason that nobody foresaw."""


def run_on_flink(
    pipeline: beam.Pipeline,
    options: StreamOptions,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> str:
    """Run until a signal comes, then stop with a savepoint; return how it ended, in words.

    Raises:
        OperatorError: only the operator can help.
        StreamFailedError: a bug; the text has the trace.
    """
    settings, job_name = options.flink, options.job_name
    assert settings is not None  # noqa: S101 - as options_stream has made sure
    with Flink(settings.rest_url) as flink, stopping_on_signals(_STOPPING):
        savepoints = settings.savepoint_directory or flink.savepoint_directory()
        if savepoints is None:
            raise EngineError(
                "The cluster has no directory for savepoints, and without one the job could not be stopped: "
                "give --savepoint_directory."
            )
        if running := flink.jobs(job_name):
            raise EngineError(
                f"A job {job_name} runs there already ({', '.join(running)}): two would share the queues, "
                "and reports would miss their sends. Stop it, or choose another --job_name."
            )
        job_id = _submitted(pipeline, flink, job_name, clock)
        say(f"flink: job {job_id} ({job_name})")
        job = FlinkJob(flink, job_id, savepoints, clock, say)
        return job.left() if options.is_detached else job.follow()


def _submitted(
    pipeline: beam.Pipeline, flink: Flink, job_name: str, clock: Callable[[], datetime]
) -> str:
    """Hand a job in and wait until the cluster has it; return its id there."""
    try:
        result = pipeline.run()
    except (OSError, RuntimeError, grpc.RpcError) as failure:
        raise EngineError(
            "Beam's job server for Flink does not take the job "
            f"({type(failure).__name__}: {_first_line(str(failure))}): it needs Java and Maven Central, "
            "or --flink_job_server_jar, or --job_endpoint of one that runs."
        ) from failure
    deadline, pause = clock() + _SUBMITTED_WITHIN, Event()
    while clock() < deadline:
        _require_submission(result)
        with suppress(FlinkSilentError):  # asked again
            for job_id in flink.jobs(job_name):
                return job_id
        pause.wait(_LOOK_SECS)
    raise EngineError(
        f"The cluster has not got the job within {_SUBMITTED_WITHIN}: look at the job server's log."
    )


class FlinkJob:
    """A job on a cluster, from its submission on."""

    def __init__(
        self,
        flink: Flink,
        job_id: str,
        savepoints: str,
        clock: Callable[[], datetime],
        say: Callable[[str], None],
    ) -> None:
        """Describe the job; ``savepoints`` is the directory where a stop leaves one."""
        self._flink = flink
        self._job_id = job_id
        self._savepoints = savepoints
        self._clock = clock
        self._say = say
        self._pause = Event()
        self._restarts = 0
        self._told: tuple[str, datetime] | None = None
        self._silent_since: datetime | None = None

    def left(self) -> str:
        """Say how the job goes on alone."""
        url = f"{self._flink.url}/jobs/{self._job_id}/stop"
        wanted = f'{{"drain": false, "targetDirectory": "{self._savepoints}"}}'
        return (
            f"The job {self._job_id} runs by itself. Stop it with a savepoint, and never drain it (that ends "
            "everybody's patience):\n"
            f"  flink stop --savepointPath {self._savepoints} {self._job_id}\n"
            f"  curl -X POST -H 'Content-Type: application/json' {url} -d '{wanted}'"
        )

    def follow(self) -> str:
        """Say how the job stands until it ends, or a signal asks to stop it; return how it ended, in words.

        Raises:
            OperatorError: the job has failed, and only the operator can help; or it cannot be stopped.
            StreamFailedError: the job has failed for another reason.
        """
        while not is_stop_requested():
            if (ended := self._look()) is not None:
                return ended
            self._pause.wait(_LOOK_SECS)
        return self._stop()

    def _look(self) -> str | None:
        """Say how the job stands; once it has ended, return how."""
        try:
            status = self._flink.status(self._job_id)
            self._silent_since = None
            self._tell(status)
            return self._ended(status) if status.has_ended else None
        except FlinkSilentError as failure:
            # A job that begins is not told of for a moment.
            self._silent_since = self._silent_since or self._clock()
            if self._clock() - self._silent_since > _STATUS_EVERY:
                self._tell_once_in_a_while("silent", f"flink: {failure}; the job may go on")
            return None

    def _tell(self, status: JobStatus) -> None:
        if status.restarts > self._restarts:
            self._restarts = status.restarts
            # Flink tells of failures a few seconds late, and of restarts later still, but not always.
            text = self._flink.failure(self._job_id)
            reason = _reason(text) if text else "see Flink's own pages for the reason"
            self._say(f"flink: restarted ({status.restarts}): {reason}")
        last = status.last_checkpoint
        checkpoint = "no checkpoint yet"
        if last is not None:
            age = max(timedelta(), self._clock() - last.completed_at)
            checkpoint = (
                f"{status.checkpoints:,} checkpoints, the last {age.total_seconds():.0f} s ago in "
                f"{last.duration_ms / 1000:.1f} s with {last.size_bytes:,} bytes"
            )
        self._tell_once_in_a_while(status.state, f"flink: {status.state}, {checkpoint}")

    def _tell_once_in_a_while(self, kind: str, line: str) -> None:
        """Say a line when its kind is new, and else now and then."""
        now = self._clock()
        if self._told is None or self._told[0] != kind or now - self._told[1] >= _STATUS_EVERY:
            self._told = (kind, now)
            self._say(line)

    def _stop(self) -> str:
        """Stop with a savepoint; a job that restarts is waited for."""
        deadline = self._clock() + _STOPPED_WITHIN
        while True:
            try:
                return _continued("Stopped with a savepoint", self._savepoint(deadline))
            except (EngineError, FlinkSilentError) as failure:
                if self._clock() > deadline:
                    raise EngineError(f"The job {self._job_id} goes on. {failure}") from None
            if (ended := self._look()) is not None:
                return ended
            self._pause.wait(_LOOK_SECS)

    def _savepoint(self, deadline: datetime) -> str:
        request_id = self._flink.stop(self._job_id, self._savepoints)
        while (path := self._flink.savepoint(self._job_id, request_id)) is None:
            if self._clock() > deadline:
                raise EngineError(f"Flink has made no savepoint within {_STOPPED_WITHIN}.")
            self._pause.wait(_LOOK_SECS)
        return path

    def _ended(self, status: JobStatus) -> str:
        if status.state == "FAILED":
            text = self._flink.failure(self._job_id)
            raise sentence_in(text) or StreamFailedError(
                f"The job {self._job_id} has failed:\n{text}"
            )
        last = self._flink.last_savepoint(self._job_id)
        if last is None and status.last_checkpoint is not None:
            last = status.last_checkpoint.path
        ended = f"The job was ended by somebody else ({status.state})"
        return (
            f"{ended}, and left nothing to go on from." if last is None else _continued(ended, last)
        )


def _continued(ended: str, path: str) -> str:
    return (
        f"{ended}: {path}\n"
        f"Next: the same command with --savepoint_path={path}\n"
        "Queues and settings of the queues stay as they were at the first start; what was read and not "
        "acknowledged comes again, and is told by its id."
    )


def _require_submission(result: PipelineResult) -> None:
    """Raise what the job server could not do."""
    if result.state != PipelineState.FAILED:
        return
    try:
        result.wait_until_finish()
    except RuntimeError as failure:
        raise sentence_in(str(failure)) or EngineError(
            f"Flink does not take the job: {_first_line(str(failure))}."
        ) from failure


def _reason(text: str) -> str:
    """What is at the bottom of a stack trace, in a line."""
    return str(sentence_in(text) or _first_line(text.rpartition("Caused by: ")[2]))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip().rstrip(".") or "no reason"
