"""The streaming job on Beam's Prism: for trials, since nothing of it outlives the process."""

import io
import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from datetime import datetime, timedelta
from threading import Event
from typing import Any, Final, TextIO

import apache_beam as beam
import grpc
from apache_beam.runners.runner import PipelineResult, PipelineState
from typing_extensions import override

from pipeline.beam_log import unlogged
from pipeline.errors import EngineError
from pipeline.graph_faults import is_told, sentence_in
from pipeline.inboxes import registry
from pipeline.stopping import stopping_on_signals
from transforms.breaker import take_breaker_back
from transforms.tally import Tally, close_tally, tally_of

_STOPPING: Final = b"stopping: what was received is joined and written, the rest is given back\n"
_LOOK_SECS: Final = 0.5
_STATUS_EVERY: Final = timedelta(seconds=10)
# What became of the messages: exact, and known to the end, where Beam's counters end with the last bundle.
_OF_TALLY: Final = (
    "received", "redelivered", "archived", "archive_files", "acknowledged", "unacknowledged", "unconfirmed",
    "released", "lost_leases", "receive_faults",
)  # fmt: skip
_COUNTED_BY_TALLY: Final = {"inboxes", "archive"}
_ENDED: Final = """\
{counts}

Stopped. Prism keeps nothing, so everybody's patience was ended: sends that waited for their reports have left
as unreported, and reports that waited for their sends as orphans."""


def run_on_prism(
    pipeline: beam.Pipeline,
    run_id: str,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> str:
    """Run until a signal comes, then let everything leave; return what was done, in words.

    Raises:
        OperatorError: only the operator can help.
        RuntimeError: a bug.
    """
    tally = tally_of(run_id)
    try:
        with stopping_on_signals(_STOPPING), unlogged(is_told), _quiet_prism():
            result = _submit(pipeline)
            _follow(result, tally, clock, say)
            counters = _finished(result, tally)
            return _ENDED.format(counts=_counts(counters, tally))
    finally:
        registry.close_run(run_id)
        take_breaker_back(run_id)
        close_tally(run_id)


def _submit(pipeline: beam.Pipeline) -> PipelineResult:
    """Start Prism and hand it the job; Prism does not hear a Ctrl-C, which is for this process to answer."""
    with _ignored(signal.SIGINT):
        try:
            return pipeline.run()
        except (OSError, RuntimeError, ValueError, grpc.RpcError) as failure:
            raise EngineError(
                f"Prism does not start ({type(failure).__name__}: {_line(failure)}). Where Beam cannot "
                "download it: GOBIN=DIRECTORY go install github.com/apache/beam/sdks/v2/go/cmd/prism@"
                f"v{beam.__version__}, and --prism_location=DIRECTORY/prism."
            ) from failure


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def _quiet_prism() -> Iterator[None]:
    """Keep off the log what Prism tells its developers, and what is said at the end: why a job has failed.

    A filter of Beam's gives Prism's lines their levels, too late for the loggers: so the handlers choose.
    """

    def is_shown(record: logging.LogRecord) -> bool:
        is_of_prism = record.name == "PrismRunner" or record.name.startswith("SdkWorker@")
        return not is_of_prism and not is_told(record)

    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(is_shown)
    try:
        # Beam's worker prints there what it logs as well.
        with redirect_stderr(_Untold(sys.stderr)):
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_shown)


class _Untold(io.TextIOBase):
    """Leaves out texts about what is said in a sentence at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._has_left_out = False

    @override
    def write(self, text: str, /) -> int:
        ends_it = self._has_left_out and text == "\n"  # print writes it by itself
        self._has_left_out = sentence_in(text) is not None
        return len(text) if ends_it or self._has_left_out else self._stream.write(text)

    @override
    def flush(self) -> None:
        self._stream.flush()

    @override
    def fileno(self) -> int:
        return self._stream.fileno()


def _follow(
    result: PipelineResult,
    tally: Tally,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> None:
    """Say how the job stands until it has ended."""
    told_at: datetime | None = None
    pause = Event()
    while not PipelineState.is_terminal(_state(result)):
        pause.wait(_LOOK_SECS)
        counts = tally.counts()
        is_time = told_at is None or clock() - told_at >= _STATUS_EVERY
        if counts.get("acknowledged") and is_time:
            told_at = clock()
            say(
                f"stream: {counts['received']:,} received, {counts['archived']:,} archived, "
                f"{counts['acknowledged']:,} acknowledged"
            )


def _state(result: PipelineResult) -> str:
    try:
        state: str = result.state
    except grpc.RpcError:
        raise EngineError(
            "Prism has ended, and with it the join's state. What was not acknowledged comes back to its "
            "queue; what was is in the archive: sms-receipts backfill makes tables of it."
        ) from None
    return state


def _finished(result: PipelineResult, tally: Tally) -> Mapping[str, int]:
    """Return the counters of a job that has ended, by name; raise what ended it, if something did."""
    try:
        result.wait_until_finish()
    except RuntimeError as failure:
        # Beam passes on what a step raised as text; the tally has what the source raised.
        sentence = sentence_in(f"{type(tally.failure).__name__}: {tally.failure}\n")
        raise (sentence or sentence_in(str(failure)) or failure) from None
    counters: list[Any] = result.metrics().query()["counters"]
    counts: Counter[str] = Counter()
    for counter in counters:
        metric = counter.key.metric
        # Beam's own have URNs for names.
        if ":" not in metric.name and metric.namespace not in _COUNTED_BY_TALLY:
            counts[metric.name] += counter.committed or 0
    return counts


def _counts(counters: Mapping[str, int], tally: Tally) -> str:
    of_messages = tally.counts()
    lines = [(name, of_messages.get(name, 0)) for name in _OF_TALLY] + sorted(counters.items())
    return "\n".join(f"{name.replace('_', ' '):<28}{count:>12,}" for name, count in lines)


def _line(failure: BaseException) -> str:
    return str(failure).strip().partition("\n")[0].rstrip(".")
