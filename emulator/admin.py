"""What the emulator tells and takes about itself, under ``/emulator``: none of it is Alibaba's.

* ``GET /emulator``: what was sent, delivered and is waiting.
* ``GET /emulator/queues/NAME``: the truth: ``{"active": [message ids], "inactive": [...], "delayed":
  [...]}``, as of now, expired messages left out.
* ``GET /emulator/clock`` and ``POST /emulator/clock`` with ``{"advance_secs": N}``: ``{"now_ms": M}``. Time
  never goes back. Long polls, leases, tokens, retention, deliveries and live traffic follow at once.
  Official clients go on to date their requests by the machine's clock, which stays good, too.
* ``GET /emulator/faults``: ``{"plan": the plan or null, "counts": [{"matched": N, "injected": M}, ...]}``,
  counts in the order of the rules. ``PUT`` sets a plan (emulator/faults.py) and starts to count anew,
  ``DELETE`` ends it.

A request that makes no sense is answered with 400 and ``{"error": "one sentence"}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emulator.faults import FaultPlanError, parse_plan
from emulator.running_plan import RunningPlan

if TYPE_CHECKING:
    from starlette.requests import Request

    from emulator.clock import Clock
    from emulator.injector import FaultInjector
    from emulator.queues import QueueStore

# A year: whoever asks for more has mistaken the unit.
_MAX_ADVANCE_SECS: Final = 366 * 86_400


class Admin:
    """The handlers; ``routes`` are for Starlette."""

    def __init__(
        self,
        clock: Clock,
        store: QueueStore,
        injector: FaultInjector,
        tell: Callable[[], dict[str, object]],
        catch_up: Callable[[], None],
    ) -> None:
        """Govern ``clock`` and ``injector``, and tell about ``store``.

        Args:
            clock: the emulator's.
            store: its queues.
            injector: where the running plan is.
            tell: what ``GET /emulator`` answers.
            catch_up: does at once what is due by a clock that was advanced.
        """
        self._clock = clock
        self._store = store
        self._injector = injector
        self._tell = tell
        self._catch_up = catch_up
        self.routes = [
            Route("/emulator", self._overview),
            Route("/emulator/queues/{name}", self._queue),
            Route("/emulator/clock", self._time),
            Route("/emulator/clock", self._advance, methods=["POST"]),
            Route("/emulator/faults", self._plan),
            Route("/emulator/faults", self._set_plan, methods=["PUT"]),
            Route("/emulator/faults", self._end_plan, methods=["DELETE"]),
        ]

    async def _overview(self, _: Request) -> Response:
        return JSONResponse(self._tell())

    async def _queue(self, request: Request) -> Response:
        name = request.path_params["name"]
        queue = self._store.get(name)
        if queue is None:
            return _error(404, f"there is no queue {name}")
        active, inactive, delayed = queue.states(self._clock.now_ms())
        states = {"active": active, "inactive": inactive, "delayed": delayed}
        return JSONResponse(
            {state: [each.message_id for each in messages] for state, messages in states.items()}
        )

    async def _time(self, _: Request) -> Response:
        return JSONResponse({"now_ms": self._clock.now_ms()})

    async def _advance(self, request: Request) -> Response:
        secs = _advance_secs(await request.body())
        if secs is None:
            limits = f"a number of seconds, from 0 to {_MAX_ADVANCE_SECS}"
            return _error(400, f'the body must be {{"advance_secs": N}}, N {limits}')
        self._clock.advance(int(secs * 1000))
        self._catch_up()
        return await self._time(request)

    async def _plan(self, _: Request) -> Response:
        running = self._injector.plan
        if running is None:
            return JSONResponse({"plan": None, "counts": []})
        counts = [each._asdict() for each in running.counts]
        return JSONResponse({"plan": running.plan.document, "counts": counts})

    async def _set_plan(self, request: Request) -> Response:
        try:
            plan = parse_plan(await request.body())
        except FaultPlanError as error:
            return _error(400, str(error))
        self._injector.plan = RunningPlan(plan, self._clock.now_ms())
        return await self._plan(request)

    async def _end_plan(self, request: Request) -> Response:
        self._injector.plan = None
        return await self._plan(request)


def _advance_secs(body: bytes) -> float | None:
    try:
        given = json.loads(body)
    except ValueError:
        return None
    secs = given.get("advance_secs") if isinstance(given, dict) and len(given) == 1 else None
    if isinstance(secs, bool) or not isinstance(secs, int | float):
        return None
    return secs if 0 <= secs <= _MAX_ADVANCE_SECS else None


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)
