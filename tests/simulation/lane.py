"""A lane: an emulator and a launcher of jobs that share a clock; seeds go through it one by one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from typing_extensions import Self

from tests.emulator.mns_caller import XMLNS, MnsCaller, Reply
from tests.emulator_process import EmulatorProcess, start_emulator_process
from tests.simulation.bodies import REPLIES, REPORTS, Draft
from tests.simulation.books import Books, Enqueued
from tests.simulation.clock import SharedClock, shared_clock
from tests.simulation.mishaps import Rule, name_of
from tests.simulation.task import Task

_ROOT: Final = Path(__file__).parents[2]
_ID: Final = re.compile(r"<MessageId>([^<]+)</MessageId>")


class Lane:
    """A context manager; ``root`` is a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._emulator = start_emulator_process()
            opened.callback(self._emulator.stop)
            self.clock = shared_clock(self.root / "clock", self._emulator.url)
            self._caller = _Caller(self._emulator, self.clock)
            self._launcher = opened.enter_context(self._launch())
            opened.callback(self._launcher.kill)
            assert self._answer() == "ready"
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def queue_names(self) -> Sequence[str]:
        """The queue of reports and the one of replies."""
        return (self._emulator.report_queue, self._emulator.reply_queue)

    @property
    def endpoint(self) -> str:
        """Where all of Alibaba is."""
        return self._emulator.url

    def renew_queues(self, visibility_secs: int, retention_secs: int) -> None:
        """Begin with empty queues."""
        for name in self.queue_names:
            self._caller.manage("DELETE", name)
            attributes = (
                f"<VisibilityTimeout>{visibility_secs}</VisibilityTimeout>"
                f"<MessageRetentionPeriod>{retention_secs}</MessageRetentionPeriod>"
            )
            document = f'<Queue xmlns="{XMLNS}">{attributes}</Queue>'
            created = self._caller.manage("PUT", name, document)
            assert created.status == 201, created

    def set_faults(self, seed: str, rules: Sequence[Rule]) -> None:
        """Let the services go wrong as the rules say."""
        self._admin("PUT", "faults", {"seed": seed, "rules": rules})

    def end_faults(self) -> Counter[str]:
        """Let the services go right again; returns how often each kind of fault was met."""
        injected: Counter[str] = Counter()
        told = self._admin("GET", "faults")
        for rule, counts in zip(told["plan"]["rules"], told["counts"], strict=True):
            injected[name_of(rule)] += counts["injected"]
        self._admin("DELETE", "faults")
        return injected

    def enqueue(self, batch: Sequence[Draft], books: Books) -> None:
        """Put messages of one type on their queue, and into the books."""
        name = self.queue_names[(REPORTS, REPLIES).index(batch[0].message_type)]
        entries = "".join(
            f"<Message><MessageBody>{escape(draft.body)}</MessageBody></Message>" for draft in batch
        )
        # The emulator counts milliseconds.
        not_before = self.clock() - timedelta(milliseconds=2)
        document = f'<Messages xmlns="{XMLNS}">{entries}</Messages>'
        sent = self._caller.manage("POST", f"{name}/messages", document)
        assert sent.status == 201, sent
        ids = _ID.findall(sent.body.decode())
        for message_id, draft in zip(ids, batch, strict=True):
            books.enqueued[message_id] = Enqueued(
                name, draft, not_before, self.clock() + timedelta(milliseconds=2)
            )

    def held(self) -> set[str]:
        """The ids of all messages that are on the queues, in whatever state."""
        return {
            message_id
            for name in self.queue_names
            for state in self._admin("GET", f"queues/{name}").values()
            for message_id in state
        }

    def run(self, task: Task) -> int:
        """Run the job until all its processes are gone; returns its exit code, negative for a signal."""
        assert self._launcher.stdin is not None
        self._launcher.stdin.write(f"{task.to_json()}\n")
        self._launcher.stdin.flush()
        return int(self._answer())

    def _launch(self) -> subprocess.Popen[str]:
        # A killed job leaves what it and Beam had there.
        temporary = self.root / "tmp"
        temporary.mkdir()
        environment = {
            **os.environ,
            "TMPDIR": str(temporary),
            "ALIBABA_CLOUD_ACCESS_KEY_ID": self._emulator.key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": self._emulator.key_secret,
        }
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.simulation.job"],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _answer(self) -> str:
        assert self._launcher.stdout is not None
        return self._launcher.stdout.readline().strip()

    def _admin(self, method: str, path: str, document: object = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self._emulator.url}/emulator/{path}",
            None if document is None else json.dumps(document).encode(),
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)


class _Caller(MnsCaller):
    """Signs requests of the account with the time that the lane shares."""

    def __init__(self, emulator: EmulatorProcess, clock: SharedClock) -> None:
        super().__init__(emulator)
        self._clock = clock

    def manage(self, method: str, path: str, document: str = "") -> Reply:
        headers: dict[str, str | None] = {"date": format_datetime(self._clock(), usegmt=True)}
        return self.call(method, f"/queues/{path}", document, headers)
