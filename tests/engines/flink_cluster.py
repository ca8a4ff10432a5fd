"""A standalone Flink session cluster on this machine, with Beam's job server beside it."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from typing_extensions import Self

START_SECS: Final = 120.0
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
SLOTS: Final = 2
_OPENED: Final = (
    "java.io", "java.lang", "java.lang.invoke", "java.net", "java.nio", "java.time", "java.util",
    "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.net.util",
    "sun.nio.ch",
)  # fmt: skip
# Short runs on few cores: no second compiler, no parallel collector.
_JAVA: Final = (
    "java",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss,SSS",
)
# Without Flink's own scripts nobody works these out, and they must agree.
_TASK_MANAGER_MEMORY: Final = {
    "framework.heap.size": "128m",
    "framework.off-heap.size": "128m",
    "task.heap.size": "512m",
    "task.off-heap.size": "64m",
    "network.min": "96m",
    "network.max": "96m",
    "managed.size": "128m",
    "jvm-metaspace.size": "300m",
    "jvm-overhead.min": "128m",
    "jvm-overhead.max": "128m",
}
_CONFIG: Final = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest}
blob.server.port: {blob}
jobmanager.memory.process.size: 1200m
taskmanager.numberOfTaskSlots: {slots}
taskmanager.network.sort-shuffle.min-buffers: 64
state.backend.type: hashmap
state.checkpoints.dir: file://{root}/checkpoints
state.savepoints.dir: file://{root}/savepoints
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 100
restart-strategy.fixed-delay.delay: 1s
heartbeat.interval: 1000
heartbeat.timeout: 6000
pekko.ask.timeout: 60s
io.tmp.dirs: {root}/tmp
"""


class FlinkCluster:
    """One job manager, two task managers of two slots each, and a job server.

    Every process leads a group of its own, and dies with the thread that started it.
    """

    def __init__(self, jars: Path, root: Path, environment: Mapping[str, str]) -> None:
        """Start everything and wait until it can take jobs.

        Args:
            jars: directory of ``tests.engines.fetch.flink``.
            root: directory for checkpoints, logs and the like.
            environment: variables for task managers, and so for the workers that they start.
        """
        self._classpath = f"{jars}/*"
        self.root = root
        self._environment = {**os.environ, **environment}
        self._task_managers: dict[int, subprocess.Popen[bytes]] = {}
        rpc, rest, blob, job, artifacts = _free_ports(5)
        self.address = f"127.0.0.1:{rest}"
        self.job_endpoint = f"localhost:{job}"
        for directory in ("conf", "log", "tmp"):
            (root / directory).mkdir()
        config = _CONFIG.format(rpc=rpc, rest=rest, blob=blob, root=root, slots=SLOTS)
        (root / "conf" / "config.yaml").write_text(config, encoding="utf-8")
        with ExitStack() as stack:
            self._processes = stack
            flink = "org.apache.flink.runtime"
            configured = ("--configDir", str(root / "conf"))
            entry = f"{flink}.entrypoint.StandaloneSessionClusterEntrypoint"
            self._start("job-manager", ("-Xmx512m",), entry, *configured)
            for number in (1, 2):
                self.start_task_manager(number)
            self._start(
                "job-server",
                ("-Xmx512m",),
                "org.apache.beam.runners.flink.FlinkJobServerDriver",
                f"--flink-master={self.address}",
                f"--job-port={job}",
                f"--artifact-port={artifacts}",
                "--expansion-port=-1",
                f"--artifacts-dir={root}/artifacts",
            )
            self.wait_for_slots(2 * SLOTS)
            wait_until(lambda: _listens(job), START_SECS, "the job server")
            self._processes = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def start_task_manager(self, number: int) -> None:
        """Start a task manager; also again, after it was killed."""
        memory = [f"taskmanager.memory.{key}={size}" for key, size in _TASK_MANAGER_MEMORY.items()]
        settings = [f"taskmanager.resource-id=tm{number}", "taskmanager.cpu.cores=1.0", *memory]
        self._task_managers[number] = self._start(
            f"task-manager-{number}",
            ("-Xmx640m", "-XX:MaxDirectMemorySize=300m", "-XX:MaxMetaspaceSize=300m"),
            "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            *("--configDir", str(self.root / "conf")),
            *(word for setting in settings for word in ("-D", setting)),
        )

    def kill_task_manager(self, number: int) -> None:
        """Kill -9; its workers notice by themselves."""
        process = self._task_managers[number]
        process.kill()
        process.wait()

    def workers(self, number: int) -> list[int]:
        """The ids of the Python workers that a task manager has started."""
        threads = Path(f"/proc/{self._task_managers[number].pid}/task")
        return [
            int(child) for file in threads.glob("*/children") for child in file.read_text().split()
        ]

    def wait_for_slots(self, count: int) -> None:
        """Wait until so many slots are there."""

        def are_there() -> bool:
            with suppress(OSError):
                return bool(self.ask("/overview")["slots-total"] >= count)
            return False

        wait_until(are_there, START_SECS, f"{count} slots of Flink")

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask the REST API."""
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 (our own)
            return json.load(answer)

    def _start(
        self, name: str, memory: Sequence[str], program: str, *arguments: str
    ) -> subprocess.Popen[bytes]:
        with (self.root / "log" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 (our own command)
                [*_JAVA, *memory, "-cp", self._classpath, program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (no threads between fork and exec)
            )
        self._processes.callback(_end, process)
        return process


def wait_until(condition: Callable[[], bool], secs: float, what: str) -> None:
    """Look again and again."""
    deadline = time.monotonic() + secs
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {secs:.0f} s for {what}")
        time.sleep(0.2)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    # The group, as workers are in it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listening in sockets:
            listening.bind(("127.0.0.1", 0))
        return [listening.getsockname()[1] for listening in sockets]
