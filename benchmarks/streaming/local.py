"""The landing on Beam's local runner, as a process: read until the queues are empty, archive, acknowledge.

    python -m benchmarks.streaming.local ENDPOINT ARCHIVE [--decode]

With ``--decode`` the same chain decodes, too, and packs what was said for 16 buckets, as a stream does.
"""

from __future__ import annotations

import argparse
import uuid

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from benchmarks.streaming.jobs import QUEUES
from pipeline.clock import utc_now
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.source import ReadInboxes
from pipeline.mns.settings import MnsSettings, Until
from pipeline.mns.spec import MnsInboxSpec
from transforms.archive import ArchiveRaw
from transforms.breaker import DEFAULT_LIMIT
from transforms.decode_bundles import DecodeMessages
from transforms.limit_failures import LimitFailures

_BUCKETS = 16


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("endpoint")
    parser.add_argument("archive")
    parser.add_argument("--decode", action="store_true")
    flags = parser.parse_args()
    settings = MnsSettings(QUEUES, mns_endpoint=flags.endpoint, dybaseapi_endpoint=flags.endpoint)
    reading = Reading(settings.max_bundle_messages, settings.max_bundle_secs)
    run_id = uuid.uuid4().hex
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(flags=[])) as pipeline:
        inbox = MnsInboxSpec(settings, Until(empty=True))
        received = pipeline | "ReadInboxes" >> ReadInboxes([inbox], reading, run_id=run_id)
        usable = received | "LimitFailures" >> LimitFailures(DEFAULT_LIMIT, utc_now, run_id=run_id)
        archived = usable | "ArchiveRaw" >> ArchiveRaw(flags.archive, utc_now, run_id=run_id)
        if flags.decode:
            archived | "DecodeMessages" >> DecodeMessages(_BUCKETS, utc_now)


if __name__ == "__main__":
    main()
