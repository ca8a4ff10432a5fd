"""Runs the source bundle by bundle, as engines do: with Beam's DoFn, trackers, caches, coders, finalizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from apache_beam.io.unbounded_source import (
    _PROVIDER,
    _ReaderCache,
    _ReadFromUnboundedSourceDoFn,
)
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.transforms.core import _BundleFinalizerParam
from apache_beam.utils.timestamp import Timestamp

from pipeline.inboxes.source import ReadInboxes
from schemas.records import MnsMessage

_CODER = _PROVIDER.restriction_coder()


class Bundle(NamedTuple):
    """What a bundle brought."""

    messages: list[MnsMessage]
    watermark: Timestamp | None
    residual: bytes | None
    """Where the next one goes on; None at the end."""
    finalize: Callable[[], None]


class Worker:
    """A DoFn instance with the readers that it keeps."""

    def __init__(self) -> None:
        self.clock_secs = 0.0
        self._fn = _ReadFromUnboundedSourceDoFn()
        self._fn.setup()
        # Its seam for tests is a clock of the cache.
        self._fn._reader_cache = _ReaderCache(now=lambda: self.clock_secs)  # noqa: SLF001

    def run(self, restriction: bytes, fail_after: int | None = None) -> Bundle:
        """Run a bundle; let a step behind the source fail after some elements."""
        tracker = ThreadsafeRestrictionTracker(_PROVIDER.create_tracker(_CODER.decode(restriction)))
        finalizer, estimator = _BundleFinalizerParam(), ManualWatermarkEstimator(None)
        elements: Any = self._fn.process(
            None, finalizer, RestrictionTrackerView(tracker), estimator
        )
        messages: list[MnsMessage] = []
        for count, element in enumerate(elements, 1):
            messages += element.value
            if count == fail_after:
                elements.close()
                return Bundle(messages, None, None, finalizer.finalize_bundle)
        tracker.check_done()
        deferred = tracker.deferred_status()
        residual = None if deferred is None else _CODER.encode(deferred[0])
        watermark = estimator.current_watermark()
        return Bundle(messages, watermark, residual, finalizer.finalize_bundle)

    def tear_down(self) -> None:
        """End, as an engine does with what it has no use for."""
        self._fn.teardown()


def starts(read: ReadInboxes) -> list[bytes]:
    """Split a source as engines do at the start; return where each split begins."""
    return [
        _CODER.encode(part)
        for source in read.sources()
        for part in _PROVIDER.split(source, _PROVIDER.initial_restriction(source))
    ]
