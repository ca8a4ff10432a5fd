"""Writes the samples to a place, a bundle after the other; also a program, so that it can be killed."""

import sys
from collections.abc import Iterable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from tests.sinks.places import sink
from tests.sinks.samples import BUNDLES, Element


def write(kind: str, address: str, elements: Iterable[Element], flags: Sequence[str] = ()) -> None:
    """Run a pipeline that writes one bundle."""
    options = PipelineOptions(["--runner=FnApiRunner", *flags])
    with beam.Pipeline(options=options) as pipeline:
        rows = pipeline | beam.Create(list(elements), reshuffle=False)
        _ = rows | sink(kind, address)


if __name__ == "__main__":
    kind, address, *flags = sys.argv[1:]
    for bundle in BUNDLES:
        write(kind, address, bundle, flags)
        sys.stdout.write("written\n")
        sys.stdout.flush()
