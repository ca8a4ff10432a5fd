"""Land with several processes, because one is bound by Python's lock: they compete for the messages.

An MNS queue is made for competing consumers, and files of the archive are never shared; so this
process and its children each land on their own, and only counts, requests to stop and failures
travel, through one pipe a child. A child outlives the reads of its parent and no longer: the end of
the pipe is the end of the parent, however that came.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from time import monotonic
from typing import Final

from typing_extensions import Self

from pipeline.errors import LandingProcessError
from pipeline.landing import Landed, Landing, Standing, together
from pipeline.landing_child import (
    Command,
    Done,
    Failed,
    LandingParts,
    Progress,
    Ready,
    Report,
    Stop,
    serve,
)
from pipeline.mns.settings import MnsSettings, Until
from pipeline.stopping import is_stop_requested, request_stop
from transforms.breaker import DEFAULT_LIMIT, FailureLimit

# How soon a request to stop reaches the children.
_TICK_SECS: Final = 0.25
# How long children may take to give their messages back when this process is done with them.
_LEAVE_SECS: Final = 60.0
# A child in a read says something twice a second; one that says nothing for so long hangs.
_PATIENCE_SECS: Final = 60.0
# Giving messages back is done in silence, and takes this much more than ``stop_secs`` at most.
_LEAVING_SECS: Final = 10.0
_NOTHING_IS_LOST: Final = (
    "no message is lost, those it held come back to their queue: run again, with fewer "
    "--landing_processes if it happens again"
)
_NOTHING: Final = Landed(*(0 for _ in Landed._fields))


class _Child:
    """A landing process, as its parent sees it."""

    def __init__(self, parts: LandingParts) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, childs_end = context.Pipe()
        level = logging.getLogger().level
        self.process: SpawnProcess = context.Process(
            target=serve, args=(childs_end, parts, level), name="landing"
        )
        self.process.start()
        childs_end.close()
        self.is_idle = False
        self.is_landing = False
        self.silent_secs = 0.0
        self.landed = _NOTHING
        self.standing: Standing | None = None

    def tell(self, command: Command) -> None:
        """Send a command; a child that is gone is noticed by its silence."""
        try:
            self.pipe.send(command)
        except OSError:
            return

    def land(self, until: Until) -> None:
        """Begin a read."""
        self.is_idle, self.is_landing, self.landed = False, True, _NOTHING
        self.silent_secs = 0.0
        self.tell(until)

    def hear(self) -> Exception | None:
        """Take in what the child says; return what ended it, if something did."""
        self.silent_secs = 0.0
        try:
            report: Report = self.pipe.recv()
        except (EOFError, OSError):
            return self._lost()
        if isinstance(report, Failed):
            self.is_landing = self.is_idle = False
            if report.traceback:
                report.failure.__cause__ = RuntimeError(
                    f"in a landing process:\n{report.traceback}"
                )
            return report.failure
        if isinstance(report, (Progress, Done)):
            self.landed, self.standing = report.landed, report.standing
        if isinstance(report, (Ready, Done)):
            self.is_idle, self.is_landing = True, False
        return None

    def give_up(self) -> LandingProcessError:
        """End the child at once; return why."""
        self.is_landing = self.is_idle = False
        self.process.kill()
        return LandingProcessError(
            f"A landing process said nothing for {self.silent_secs:.0f} s and was ended, for want of memory "
            f"perhaps; {_NOTHING_IS_LOST}"
        )

    def leave(self, deadline_secs: float) -> None:
        """Let the child end, which it does when its pipe does; at the deadline, end it."""
        self.pipe.close()
        if not (self.is_idle or self.is_landing):
            self.process.kill()  # still on its way up, or of no use any more: it holds no messages
        self.process.join(max(0.0, deadline_secs - monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()

    def _lost(self) -> LandingProcessError:
        self.is_landing = self.is_idle = False
        self.process.join(_LEAVE_SECS)
        code = self.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return LandingProcessError(
            f"A landing process {how}, for want of memory perhaps; {_NOTHING_IS_LOST}"
        )


class LandingProcesses:
    """A :class:`Landing` of this process and of others, over the same queues and archive.

    Use it as a context manager, and from one thread at a time. The others start at once and take
    part as soon as they can; a read that ends before does not wait for them.
    """

    def __init__(
        self,
        settings: MnsSettings,
        archive: str,
        clock: Callable[[], datetime],
        processes: int,
        limit: FailureLimit = DEFAULT_LIMIT,
    ) -> None:
        """Start ``processes - 1`` children; settings hold no secrets, keys come from the environment.

        Each process has its share of ``limit``: together they let no more pass than one would.
        """
        parts = LandingParts(settings, archive, clock, limit.shared_by(processes))
        self._stop_patience_secs = settings.stop_secs + _LEAVING_SECS
        self._landing = Landing(*parts)
        self._children = [_Child(parts) for _ in range(processes - 1)]

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the children; at once when this process is to leave at once (Ctrl-C, twice)."""
        self._landing.close()
        is_hasty = kind is not None and not issubclass(kind, Exception)
        deadline_secs = monotonic() + (0.0 if is_hasty else _LEAVE_SECS)
        for child in self._children:
            child.leave(deadline_secs)

    def standing(self) -> Standing:
        """How the processes stand together; those that sit out the read at hand are left out."""
        theirs = [child.standing for child in self._children if child.standing is not None]
        return together([self._landing.standing(), *theirs])

    def land(
        self,
        until: Until,
        progress: Callable[[Landed], None] | None = None,
        patience_secs: float = _PATIENCE_SECS,
    ) -> Landed:
        """Read the queues once, as ``Landing.land`` does; return the sum over the processes.

        Each process applies ``until`` for itself. One that says nothing for ``patience_secs`` is
        ended; once it is to stop, for a little more than ``stop_secs`` if that is less.

        Raises:
            OperatorError: Only the operator can help, or a process was killed. The other processes
                have ended their reads cleanly; a request to stop stays behind.
        """
        stop_patience_secs = min(patience_secs, self._stop_patience_secs)
        round_ = _Round(self._children, until, patience_secs, stop_patience_secs)

        def tell(own: Landed) -> None:
            if progress is not None:
                progress(_sum([own, *round_.landed()]))

        round_.start()
        try:
            own = self._landing.land(until, tell)
            round_.finish()
        except Exception:
            # The reads of the children may have no end of their own.
            request_stop()
            round_.finish()
            raise
        except BaseException:  # asked twice to stop: leave now
            for child in self._children:
                child.process.kill()
            round_.finish()
            raise
        if round_.failure is not None:
            raise round_.failure
        return _sum([own, *round_.landed()])


class _Round:
    """One read of the children, watched by a thread while this process reads for itself."""

    def __init__(
        self,
        children: Iterable[_Child],
        until: Until,
        patience_secs: float,
        stop_patience_secs: float,
    ) -> None:
        self._children = list(children)
        self._patience_secs = patience_secs
        self._stop_patience_secs = stop_patience_secs
        for child in self._children:
            child.standing = None
        self._took_part: list[_Child] = []
        self._until = until
        self._began_secs = monotonic()
        self._is_own_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="landing-processes", daemon=True)
        self.failure: Exception | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """Wait until every child that took part has ended its read."""
        self._is_own_done.set()
        self._thread.join()

    def landed(self) -> list[Landed]:
        """What the children have landed so far."""
        return [child.landed for child in self._took_part]

    def _watch(self) -> None:
        is_stop_told = False
        living = {child.pipe: child for child in self._children}
        while True:
            stops = is_stop_requested()
            for child in living.values():
                takes_part = not child.is_idle or child in self._took_part
                if not takes_part and not stops and not self._is_own_done.is_set():
                    self._begin(child)
            landing = [child for child in living.values() if child.is_landing]
            if stops and not is_stop_told:
                is_stop_told = True
                for child in landing:
                    child.tell(Stop())
                    child.silent_secs = 0.0
            if self._is_own_done.is_set() and not landing:
                return
            if not living:
                self._is_own_done.wait()
                continue
            patience_secs = self._stop_patience_secs if stops else self._patience_secs
            for pipe, failure in _listen(living, patience_secs):
                del living[pipe]
                self.failure = self.failure or failure
                request_stop()

    def _begin(self, child: _Child) -> None:
        until = self._until
        if until.max_secs is not None:
            left_secs = until.max_secs - (monotonic() - self._began_secs)
            if left_secs <= 0:
                return
            until = replace(until, max_secs=left_secs)
        child.land(until)
        self._took_part.append(child)


def _listen(
    living: Mapping[Connection, _Child], patience_secs: float
) -> list[tuple[Connection, Exception]]:
    """Hear what children say within a tick; return what ended some, by their pipe."""
    began_secs = monotonic()
    speaking = wait(list(living), _TICK_SECS)
    # Not more than a tick: whoever stopped this process for a while stopped its children, too.
    waited_secs = min(monotonic() - began_secs, _TICK_SECS)
    ended = []
    for pipe, child in living.items():
        failure: Exception | None = None
        if pipe in speaking:
            failure = child.hear()
        elif child.is_landing:
            child.silent_secs += waited_secs
            if child.silent_secs > patience_secs:
                failure = child.give_up()
        if failure is not None:
            ended.append((pipe, failure))
    return ended


def _sum(landed: Iterable[Landed]) -> Landed:
    return Landed(*(sum(counts) for counts in zip(*landed, strict=True)))
