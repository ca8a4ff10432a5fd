"""The engines of the benchmark: started once, and asked which processes are their workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.engines import fetch
from tests.engines.flink_cluster import FlinkCluster
from tests.engines.streams import Streaming


class Engine(Protocol):
    """What runs the streaming graph."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    @property
    def flags(self) -> Sequence[str]:
        """What ``sms-receipts stream`` is told."""

    def workers(self, streaming: Streaming) -> list[int]:
        """Process ids of the Python workers."""


@dataclass(frozen=True)
class Prism:
    """Beam's Prism; the worker is the process of the command itself."""

    program: Path
    name: str = "prism"

    @property
    def flags(self) -> Sequence[str]:
        """What ``sms-receipts stream`` is told."""
        return ["--runner=PrismRunner", f"--prism_location={self.program}"]

    def workers(self, streaming: Streaming) -> list[int]:
        """Process ids of the Python workers."""
        return [streaming.process.pid]


@dataclass(frozen=True)
class Flink:
    """A Flink cluster of this machine; each task manager starts a worker when it gets work.

    Attributes:
        cluster: two task managers of two slots each.
        parallelism: tasks; two fit on one task manager, so that there is one worker.
        checkpoint_secs: the interval of checkpoints.
    """

    cluster: FlinkCluster
    parallelism: int
    checkpoint_secs: float
    name: str = "flink"

    @property
    def flags(self) -> Sequence[str]:
        """What ``sms-receipts stream`` is told."""
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.cluster.address}",
            f"--job_endpoint={self.cluster.job_endpoint}",
            f"--parallelism={self.parallelism}",
            f"--checkpointing_interval={round(self.checkpoint_secs * 1000)}",
        ]

    def workers(self, streaming: Streaming) -> list[int]:  # noqa: ARG002 (those of the cluster)
        """Process ids of the Python workers."""
        return [pid for number in (1, 2) for pid in self.cluster.workers(number)]

    def busy_task_manager(self) -> int:
        """Return the number of a task manager that has a worker."""
        return 1 if self.cluster.workers(1) else 2


@contextmanager
def flink(
    root: Path, environment: Mapping[str, str], parallelism: int, checkpoint_secs: float
) -> Iterator[Flink]:
    """Start a cluster, with its files in the empty directory ``root``."""
    with FlinkCluster(fetch.flink(), root, environment) as cluster:
        yield Flink(cluster, parallelism, checkpoint_secs)
