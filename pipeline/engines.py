"""The engines that can stream: which runner names one, what it is told, and why others are refused."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from pipeline.errors import EngineError

WORKER_COMMAND: Final = "sms-receipts-worker"
_LOCAL: Final = frozenset(
    {
        "bundlebaseddirectrunner",
        "directrunner",
        "fnapirunner",
        "interactiverunner",
        "pythonrpcdirectrunner",
        "switchingdirectrunner",
        "testdirectrunner",
    }
)
_WITHOUT_FINALIZATION: Final = frozenset({"kafkastreamsrunner", "sparkrunner"})
_MASTER: Final = re.compile(r"(?P<scheme>https?://)?(?P<address>([\w.-]+|\[[0-9A-Fa-f:]+\]):\d+)/?")
# Prism 2.77 splits bundles that are slow. While the first part is at work it lets others begin with the keys
# of the second, and then puts the state of all keys back as the first part has found it: rows were lost and
# doubled (splitBundle and StateForBundle in its elementmanager.go; seen at 1,000 messages a second).
PRISM_FLAGS: Final = ("--experiments=prism_disable_sdf_split",)
# From the end of a task manager until rows leave again: 25 to 42 s in trials, mostly the start of Java.
_RECOVERY_SECS: Final = 60.0


class Engine(Enum):
    """Who runs the unbounded graph, by the name of its Beam runner."""

    PRISM = "PrismRunner"
    FLINK = "FlinkRunner"
    DATAFLOW = "DataflowRunner"


_BY_NAME: Final = {engine.value.lower(): engine for engine in Engine}
_KNOWN: Final = ", ".join(f"--runner={engine.value}" for engine in Engine)


def engine_of(runner: str) -> Engine:
    """Find the engine behind the name of a runner, however Beam lets it be spelt.

    Raises:
        EngineError: it cannot stream, and why.
    """
    name = runner.rpartition(".")[2].lower()
    name = name if name.endswith("runner") else f"{name}runner"
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name in _LOCAL:
        raise EngineError(
            f"{runner} cannot stream: its event-time timers fire at once, and what is grouped leaves only at "
            f"the end. Use sms-receipts run on one machine, or {_KNOWN}."
        )
    if name in _WITHOUT_FINALIZATION:
        raise EngineError(
            f"{runner} cannot stream: it does not tell when a bundle is final, so that no message would ever "
            f"be acknowledged. Use {_KNOWN}."
        )
    if name == "portablerunner":
        raise EngineError(
            f"{runner} does not say which engine runs the job, and not every engine tells when a bundle is "
            f"final: name it with {_KNOWN}; --job_endpoint is handed on."
        )
    raise EngineError(f"No engine is known that is called {runner}: use {_KNOWN}.")


def require_dataflow() -> None:
    """Refuse Dataflow where what it needs is not installed.

    Raises:
        EngineError: it is not.
    """
    try:
        importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
    except ImportError:
        raise EngineError(
            "DataflowRunner needs Beam's packages for Google Cloud: pip install 'apache-beam[gcp]'."
        ) from None


@dataclass(frozen=True)
class FlinkSettings:
    """How a job runs on Flink, as far as the join and the queues depend on it.

    Attributes:
        master: ``[http[s]://]host:port`` of the cluster's REST API.
        checkpointing_interval_ms: time between the beginnings of two checkpoints. Only a checkpoint lets
            messages be acknowledged.
        parallelism: how many tasks read, join and write; a queue has as many readers.
        min_pause_between_checkpoints_ms: time from a checkpoint's end to the beginning of the next. There
            must be some, or a worker could be told of the first only after the next has begun.
        max_bundle_time_ms: how long Flink keeps a bundle open for more; a source is asked again when its
            bundle ends.
        savepoint_path: savepoint or retained checkpoint to go on from.
        savepoint_directory: where a stop leaves a savepoint; None is what the cluster is configured for.
    """

    master: str
    checkpointing_interval_ms: int
    parallelism: int = 1
    min_pause_between_checkpoints_ms: int = 500
    max_bundle_time_ms: int = 200
    savepoint_path: str | None = None
    savepoint_directory: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, with the flag's name and the fix."""
        if not _MASTER.fullmatch(self.master):
            raise ValueError(
                "--flink_master must be the address of a cluster's REST API, as 127.0.0.1:8081 is: a job "
                "inside the job server could not be stopped with a savepoint"
            )
        if self.checkpointing_interval_ms <= 0:
            raise ValueError(
                "--checkpointing_interval must be more than 0 (milliseconds; 10000, say): without "
                "checkpoints Flink keeps no state and tells of no final bundle, so that no message would "
                "ever be acknowledged"
            )
        if self.parallelism < 1:
            raise ValueError("--parallelism must be at least 1: it is also the number of readers")
        if self.min_pause_between_checkpoints_ms < 1:
            raise ValueError(
                "--min_pause_between_checkpoints must be at least 1 (milliseconds): a checkpoint may only "
                "begin when the workers know that the one before is complete"
            )
        if self.max_bundle_time_ms < 1:
            raise ValueError("--max_bundle_time_mills must be at least 1 (milliseconds)")

    @property
    def rest_url(self) -> str:
        """Where the cluster's REST API is."""
        named = _MASTER.fullmatch(self.master)
        assert named is not None  # noqa: S101 - as __post_init__ has made sure
        return f"{named['scheme'] or 'http://'}{named['address']}"

    @property
    def longest_unacknowledged_secs(self) -> float:
        """How long a message that was read may wait until it is acknowledged: two checkpoints, one lost."""
        round_ms = self.checkpointing_interval_ms + self.min_pause_between_checkpoints_ms
        return 2 * round_ms / 1000 + _RECOVERY_SECS

    def flags(self) -> list[str]:
        """Tell Flink all this, and what else the join needs, as flags of Beam."""
        flags = [
            f"--flink_master={self.master}",
            f"--parallelism={self.parallelism}",
            f"--checkpointing_interval={self.checkpointing_interval_ms}",
            f"--min_pause_between_checkpoints={self.min_pause_between_checkpoints_ms}",
            f"--max_bundle_time_mills={self.max_bundle_time_ms}",
            # Otherwise what the bundle at hand has made waits, in a checkpoint, for a bundle that may never
            # come.
            "--finish_bundle_before_checkpointing",
            # A job that was cancelled can be continued from its last checkpoint.
            "--externalized_checkpoints_enabled",
            "--retain_externalized_checkpoints_on_cancellation",
        ]
        if self.savepoint_path:
            flags.append(f"--savepoint_path={self.savepoint_path}")
        return flags


def flink_environment_flags(given: str | None, config: str | None) -> list[str]:
    """Choose what runs the Python code on Flink's machines: our own program, unless told otherwise.

    Args:
        given: ``--environment_type``.
        config: ``--environment_config``.

    Raises:
        EngineError: our program is not installed here, or the environment would be this very process.
    """
    if given == "LOOPBACK":
        raise EngineError(
            "--environment_type=LOOPBACK would tie the job to this process: leave it out, and task managers "
            f"start {WORKER_COMMAND}."
        )
    kind = given or "PROCESS"
    if kind == "PROCESS" and config is None:
        config = json.dumps({"command": _worker_command()})
    return [
        f"--environment_type={kind}",
        *([f"--environment_config={config}"] if config is not None else []),
    ]


def is_given(flag: str, beam_args: Sequence[str]) -> bool:
    """Tell whether a flag is among those for Beam."""
    return any(argument.partition("=")[0] == flag for argument in beam_args)


def _worker_command() -> str:
    command = os.path.join(os.path.dirname(sys.executable), WORKER_COMMAND)
    if not os.access(command, os.X_OK):
        raise EngineError(
            f"There is no {command}, which task managers are to start: install this package with pip, here "
            'and on their machines, or name their program with --environment_config=\'{"command": "…"}\'.'
        )
    return command
