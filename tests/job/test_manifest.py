"""Counts are notes for the manifest, and metrics for whoever watches the runner."""

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from transforms.manifest import METRICS, counts_note


@pytest.mark.integration
def test_what_is_noted_is_counted_by_beam() -> None:
    pipeline = beam.Pipeline(runner=FnApiRunner())
    counts = [{"messages": 5, "failed/unknown_shape": 2}, {"messages": 3, "matched_reports": 1}]
    pipeline | "Counts" >> beam.Create(counts) | "Note" >> beam.Map(counts_note)

    metrics = pipeline.run().metrics().query(MetricsFilter().with_namespace(METRICS))

    assert {counter.key.metric.name: counter.committed for counter in metrics["counters"]} == {
        "messages": 8,
        "failed/unknown_shape": 2,
        "matched_reports": 1,
    }
