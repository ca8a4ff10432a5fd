"""What the simulator asks of the job's launcher."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from typing_extensions import Self

from tests.simulation.clock import SharedClock
from tests.simulation.mishaps import Interruption


@dataclass(frozen=True)
class Task:
    """One run of the job.

    Attributes:
        command: ``run`` or ``backfill``.
        flags: those of the command.
        clock: the time.
        log: file to which the process writes what it says and does.
        interruption: what happens to it.
        stopped_after_secs: SIGTERM is sent then, if it still runs.
        killed_after_secs: SIGKILL is sent then.
        settings: constants of the project that are different here, by dotted name: quicker ways to a state.
        flaw: a function of ``flaws.py`` that breaks the job on purpose, to see that it is noticed.
    """

    command: str
    flags: Sequence[str]
    clock: SharedClock
    log: str
    interruption: Interruption | None = None
    stopped_after_secs: float | None = None
    killed_after_secs: float | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    flaw: str | None = None

    def to_json(self) -> str:
        """One line of text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The other way round."""
        given: dict[str, Any] = json.loads(text)
        interruption = given["interruption"]
        return cls(
            **given
            | {
                "clock": SharedClock(**given["clock"]),
                "interruption": Interruption(**interruption) if interruption else None,
            }
        )
