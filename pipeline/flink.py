"""Flink's REST API (v1), as far as a streaming job needs it: how it stands, and how it is stopped.

Beam's job server is not asked: its ``cancel`` says CANCELLED while the cluster's job goes on (measured, Beam
2.70), and it knows no savepoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

import requests
from typing_extensions import Self

from pipeline.errors import EndpointError, EngineError, TransientError

_ANSWER_SECS: Final = 30.0
# Where a cluster says which directory takes savepoints: Flink 1.20 and later, and before.
_SAVEPOINT_KEYS: Final = ("execution.checkpointing.savepoint-dir", "state.savepoints.dir")
_ENDED: Final = frozenset({"CANCELED", "FAILED", "FINISHED"})


class FlinkSilentError(TransientError):
    """Raised when the REST API does not answer, or says that it cannot now."""


class Checkpoint(NamedTuple):
    """A checkpoint that is complete."""

    number: int
    path: str | None
    """Where it is; None if it is not kept when the job ends."""
    size_bytes: int
    duration_ms: int
    completed_at: datetime


class JobStatus(NamedTuple):
    """How a job stands."""

    state: str
    """CREATED, RUNNING, RESTARTING, FAILING, CANCELLING and so on, as Flink names it."""
    restarts: int
    """Since it was submitted."""
    checkpoints: int
    """Complete ones, since it was submitted."""
    last_checkpoint: Checkpoint | None

    @property
    def has_ended(self) -> bool:
        """Whether it will never run again."""
        return self.state in _ENDED


class Flink:
    """A Flink cluster. Use it as a context manager."""

    def __init__(self, url: str) -> None:
        """Prepare to ask ``http(s)://host:port``."""
        self.url = url
        self._session = requests.Session()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._session.close()

    def savepoint_directory(self) -> str | None:
        """Return where the cluster leaves savepoints by itself, if it was told.

        Raises:
            EndpointError: nobody answers at the address.
        """
        try:
            answer = self._ask("GET", "/jobmanager/config")
            settings = {entry["key"]: entry["value"] for entry in answer}
        except (FlinkSilentError, EngineError, TypeError, KeyError):
            raise EndpointError(
                f"No Flink answers at {self.url}: start the cluster, or correct --flink_master."
            ) from None
        return next((settings[key] for key in _SAVEPOINT_KEYS if key in settings), None)

    def jobs(self, name: str) -> dict[str, str]:
        """Return the states of the jobs of a name that have not ended, by their ids."""
        jobs = self._ask("GET", "/jobs/overview")["jobs"]
        return {
            job["jid"]: job["state"]
            for job in jobs
            if job["name"] == name and job["state"] not in _ENDED
        }

    def status(self, job_id: str) -> JobStatus:
        """Return how a job stands."""
        job = self._ask("GET", f"/jobs/{job_id}")
        checkpoints = self._ask("GET", f"/jobs/{job_id}/checkpoints")
        restarts = self._ask("GET", f"/jobs/{job_id}/metrics?get=numRestarts")
        return JobStatus(
            state=job["state"],
            restarts=int(restarts[0]["value"]) if restarts else 0,
            checkpoints=checkpoints["counts"]["completed"],
            last_checkpoint=_checkpoint(checkpoints["latest"]["completed"]),
        )

    def failure(self, job_id: str) -> str:
        """Return what Flink knows of a job's last failure, stack traces and all; empty if there was none."""
        said = self._ask("GET", f"/jobs/{job_id}/exceptions")
        history = said.get("exceptionHistory", {}).get("entries", [])
        latest: Mapping[str, Any] = max(history, key=lambda entry: entry["timestamp"], default={})
        text: str = latest.get("stacktrace") or said.get("root-exception") or ""
        return text

    def last_savepoint(self, job_id: str) -> str | None:
        """Return the path of the last savepoint that was made of a job, if there is one."""
        latest = self._ask("GET", f"/jobs/{job_id}/checkpoints")["latest"]["savepoint"]
        return None if latest is None else latest["external_path"]

    def stop(self, job_id: str, directory: str | None) -> str:
        """Begin to stop a job with a savepoint; return the request's id, for :meth:`savepoint`.

        Without draining: that would end everybody's patience, and hangs until the source ends by itself
        (measured, Beam 2.70).
        """
        wanted: dict[str, Any] = {"drain": False}
        if directory is not None:
            wanted["targetDirectory"] = directory
        request_id: str = self._ask("POST", f"/jobs/{job_id}/stop", wanted)["request-id"]
        return request_id

    def savepoint(self, job_id: str, request_id: str) -> str | None:
        """Return the path of the savepoint that was asked for; None while it is in the making.

        Raises:
            EngineError: there will be none, and why; the job goes on.
        """
        answer = self._ask("GET", f"/jobs/{job_id}/savepoints/{request_id}")
        if answer["status"]["id"] != "COMPLETED":
            return None
        done = answer["operation"]
        if "location" not in done:
            cause = done.get("failure-cause", {}).get("stack-trace", "")
            raise EngineError(f"Flink made no savepoint: {_first_line(cause)}.")
        path: str = done["location"]
        return path

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self._session.request(method, self.url + path, json=body, timeout=_ANSWER_SECS)
            said = answer.json()
        except (requests.RequestException, ValueError) as failure:
            raise FlinkSilentError(f"Flink does not answer ({type(failure).__name__})") from None
        if answer.status_code >= requests.codes.server_error:
            raise FlinkSilentError(f"Flink answers {answer.status_code}: {_error_of(said)}")
        if not answer.ok:
            raise EngineError(f"Flink answers {answer.status_code}: {_error_of(said)}.")
        return said


def _checkpoint(completed: Mapping[str, Any] | None) -> Checkpoint | None:
    if completed is None:
        return None
    ended_ms = completed["latest_ack_timestamp"]
    return Checkpoint(
        number=completed["id"],
        path=None if completed["discarded"] else completed["external_path"],
        size_bytes=completed["state_size"],
        duration_ms=completed["end_to_end_duration"],
        completed_at=datetime.fromtimestamp(ended_ms / 1000, timezone.utc),
    )


def _error_of(said: Any) -> str:
    errors = said.get("errors") if isinstance(said, dict) else None
    # The last one has the stack trace; its first line says what happened.
    return _first_line(str(errors[-1])) if errors else "no reason"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip().rstrip(".") or "no reason"
