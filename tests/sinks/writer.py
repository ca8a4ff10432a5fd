"""Writes to a place, as one bundle; also in a process of its own that dies in the middle of it."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from google.cloud.bigquery import Client
from google.pubsub_v1.services.publisher import PublisherClient

from tests.sinks.places import sink
from tests.sinks.samples import Element

# By kind of place: the library's call that brings something there for good.
_CALLS: Final[dict[str, tuple[Any, str]]] = {
    "parquet": (Path, "rename"),
    "avro": (Path, "rename"),
    "topics": (PublisherClient, "publish"),
    "bigquery": (Client, "insert_rows_json"),
}
# What has imported everything is forked for each writer.
_PROCESSES: Final = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


class Death(NamedTuple):
    """A writer kills itself at the n-th call (from 1 on) that brings something to its place."""

    call: int
    is_done: bool
    """Whether the call is made first: then the place has what the writer never heard of."""


def write(kind: str, address: str, elements: Iterable[Element], flags: Sequence[str] = ()) -> None:
    """Run a pipeline that writes one bundle."""
    options = PipelineOptions(["--runner=FnApiRunner", *flags])
    with beam.Pipeline(options=options) as pipeline:
        rows = pipeline | beam.Create(list(elements), reshuffle=False)
        _ = rows | sink(kind, address)


def start_dying(
    kind: str, address: str, elements: Sequence[Element], death: Death
) -> ForkServerProcess:
    """Let a process of its own write one bundle, and die."""
    process = _PROCESSES.Process(
        target=_write_and_die, args=(dict(os.environ), kind, address, elements, death)
    )
    process.start()
    return process


def _write_and_die(
    environment: dict[str, str], kind: str, address: str, elements: Sequence[Element], death: Death
) -> None:
    os.environ.update(environment)
    owner, name = _CALLS[kind]
    setattr(owner, name, _deadly(getattr(owner, name), death))
    write(kind, address, elements)


def _deadly(call: Callable[..., Any], death: Death) -> Callable[..., Any]:
    numbers = count(1)

    def count_and_call(*args: Any, **kwargs: Any) -> Any:
        is_last = next(numbers) == death.call
        if is_last and not death.is_done:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = call(*args, **kwargs)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return count_and_call
